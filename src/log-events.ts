import type { Connection, ConnectionEnd } from './connection.js'
import type { TunnelError } from './errors.js'
import { formatVisitor, type SocketAddress } from './listener.js'
import type { Logger } from './logger.js'
import type { Server } from './server-info.js'
import type { Tunnel } from './tunnel.js'
import { formatTunnel, type TunnelInfo } from './tunnel-info.js'

/** Logs what a server tells by its events. */
export function logServer(server: Server, logger: Logger): void {
  server.on('tunnel', (tunnel) => {
    const name = `tunnel ${tunnel.id} at ${formatTunnel(tunnel)} for ${formatVisitor(tunnel.client)}`
    logger.info(fieldsOf(tunnel), `opened ${name}`)
    tunnel.closed.then((error) => {
      logger.info({ ...fieldsOf(tunnel), ...codeOf(error) }, `closed ${name}${reason(error)}`)
    })
  })
  server.on('connection', (connection, tunnel) => {
    connection.closed.then((end) => {
      const text = `${formatVisitor(connection.visitor)} has left ${formatTunnel(tunnel)}${reason(end.error)}`
      logger.debug({ tunnel: tunnel.id, ...visitOf(connection, end) }, text)
    })
  })
  server.on('reject', ({ id, visitor, error }, tunnel) => {
    const text = `turned ${formatVisitor(visitor)} away from ${formatTunnel(tunnel)}${reason(error)}`
    logger.warn({ tunnel: tunnel.id, exchange: id, visitor, ...codeOf(error) }, text)
  })
  server.on('drop', ({ count, reason }, tunnel) => {
    const text = `dropped ${datagrams(count)} of ${formatTunnel(tunnel)}: ${reason}`
    logger.warn({ tunnel: tunnel.id, count }, text)
  })
  server.on('refuse', ({ client, error, secretName, failures }) => {
    const fields = { client, secretName, failures, ...codeOf(error) }
    logger.warn(fields, `refused ${formatVisitor(client)}${reason(error)}`)
  })
  server.on('disconnect', ({ client, error, secretName }) => {
    logger.warn({ client, secretName, ...codeOf(error) }, `lost ${formatVisitor(client)}${reason(error)}`)
  })
  server.on('reconnect', (client) => logger.info({ client }, `${formatVisitor(client)} is back`))
  server.on('caddyLost', (error) => logger.warn(codeOf(error), `lost Caddy${reason(error)}`))
  server.on('caddyBack', () => logger.info({}, 'Caddy is configured again'))
  server.on('close', () => logger.info({}, `the server at ${server.address} is closed`))
}

/** Logs what a tunnel tells by its events. */
export function logTunnel(tunnel: Tunnel, logger: Logger): void {
  const { url, target } = tunnel
  logger.info({ url, target }, `${url} leads to ${target}`)
  tunnel.on('connection', (connection) => {
    connection.closed.then((end) => {
      const text = `${formatVisitor(connection.visitor)} has left ${url}${reason(end.error)}`
      logger.debug({ url, ...visitOf(connection, end) }, text)
    })
  })
  tunnel.on('reject', ({ id, visitor, error }) => {
    const text = `turned ${formatVisitor(visitor)} away from ${url}${reason(error)}`
    logger.warn({ url, exchange: id, visitor, ...codeOf(error) }, text)
  })
  tunnel.on('drop', ({ count, reason }) => {
    logger.warn({ url, count }, `dropped ${datagrams(count)} of ${url}: ${reason}`)
  })
  tunnel.on('disconnect', (error) => {
    logger.warn({ url, ...codeOf(error) }, `the link of ${url} is lost${reason(error)}`)
  })
  tunnel.on('reconnect', () => logger.info({ url }, `the link of ${url} is back`))
  tunnel.closed.then((error) => {
    const text = `${url} is closed${reason(error)}`
    if (error) logger.error({ url, ...codeOf(error) }, text)
    else logger.info({ url }, text)
  })
}

/** `1 datagram`, `2 datagrams`. */
export function datagrams(count: number): string {
  return `${count} datagram${count === 1 ? '' : 's'}`
}

function fieldsOf(tunnel: TunnelInfo): { tunnel: string; address: string; client: SocketAddress } {
  const { id, client, secretName } = tunnel
  return {
    tunnel: id,
    address: formatTunnel(tunnel),
    client,
    ...(secretName !== undefined && { secretName }),
  }
}

function visitOf({ id, visitor }: Connection, { bytesIn, bytesOut, duration, error }: ConnectionEnd): object {
  return { exchange: id, visitor, bytesIn, bytesOut, duration, ...codeOf(error) }
}

function codeOf(error: TunnelError | undefined): object {
  return error ? { code: error.code } : {}
}

function reason(error: TunnelError | undefined): string {
  return error ? `: ${error.message}` : ''
}
