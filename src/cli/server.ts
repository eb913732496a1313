import { once } from 'node:events'
import { resolve } from 'node:path'
import { formatAddress } from '../address.js'
import { TunnelError } from '../errors.js'
import type { HttpOptions } from '../http-options.js'
import { formatVisitor } from '../listener.js'
import { createServer } from '../server.js'
import type { Server } from '../server-info.js'
import type { ServerOptions } from '../server-options.js'
import type { TunnelInfo } from '../server-tunnel.js'
import { GRACE, onEndSignals, writeLine } from './exit.js'
import { inFlags } from './flags.js'
import { closingLine, datagrams } from './report.js'
import { readSecret, type SecretOptions } from './secret.js'
import { readServerTls, type ServerTlsArguments } from './tls.js'

interface HttpArguments {
  httpPort?: number
  domain?: string
  trustProxy?: string[]
}

type ServerArguments = Omit<ServerOptions, 'secret' | 'tls' | 'http'> &
  SecretOptions &
  ServerTlsArguments &
  HttpArguments

/** `pipe server`: runs until it is told to end. */
export async function runServer(options: ServerArguments): Promise<void> {
  const secret = readSecret(options) ?? process.env.PIPE_SECRET
  const { secretFile, tlsCert, tlsKey, httpPort, domain, trustProxy, ...settings } = options
  const http = readHttp(options)
  const server = await createServer({ ...settings, http, secret, tls: readServerTls(options) })
  const closed = once(server, 'close')
  // Before anything is printed: a script may answer the address with a signal at once.
  const stopListening = onEndSignals((count) => {
    if (count === 1 && server.connections > 0) writeLine(process.stderr, closingLine(server.connections))
    server.close({ grace: count === 1 ? GRACE : 0 })
  })
  report(server)
  writeLine(process.stdout, server.address)
  const { host, ports, sockets } = options
  const terms = [
    ...(Array.isArray(host) && host.length > 1 ? [`listens on ${host.join(' and ')}`] : []),
    secret === undefined ? 'asks for no secret' : 'asks for the secret',
    encryption(server),
    ...(http ? [`HTTP tunnels on port ${server.httpPort} in ${domain ?? 'localhost'}`] : []),
    `public ports: ${ports ?? 'any from 1024 up'}`,
    ...(sockets === undefined ? [] : [`unix sockets in ${resolve(sockets)}`]),
    'Ctrl-C closes',
  ]
  writeLine(process.stderr, terms.join('; '))
  await closed
  stopListening()
}

function readHttp({ httpPort, domain, trustProxy }: HttpArguments): HttpOptions | undefined {
  if (httpPort !== undefined) return { port: httpPort, domain, trustedProxies: trustProxy }
  const [name] =
    Object.entries({ '--domain': domain, '--trust-proxy': trustProxy }).find(([, given]) => given) ?? []
  if (name) throw new TunnelError('invalid-option', `${name} must be left out where there is no --http-port`)
  return undefined
}

function encryption({ tls }: Server): string {
  if (tls === false) return 'does not encrypt'
  return tls ? 'encrypts with its certificate' : 'encrypts by the secret'
}

function report(server: Server): void {
  const say = (text: string) => writeLine(process.stderr, `${new Date().toISOString()} ${text}`)
  server.on('tunnel', async (tunnel) => {
    const name = `${addressOf(tunnel)} for ${formatVisitor(tunnel.client)}`
    say(`opened ${name}`)
    const error = await tunnel.closed
    say(`closed ${name}${error ? `: ${inFlags(error.message)}` : ''}`)
  })
  server.on('reject', ({ visitor, error }, tunnel) => {
    say(`turned ${formatVisitor(visitor)} away from ${addressOf(tunnel)}: ${inFlags(error.message)}`)
  })
  server.on('drop', ({ count, reason }, tunnel) => {
    say(`dropped ${datagrams(count)} of ${addressOf(tunnel)}: ${reason}`)
  })
  server.on('refuse', ({ client, error }) => {
    say(`refused ${formatVisitor(client)}: ${inFlags(error.message)}`)
  })
  server.on('disconnect', ({ client, error }) =>
    say(`lost ${formatVisitor(client)}: ${inFlags(error.message)}`),
  )
  server.on('reconnect', (client) => say(`${formatVisitor(client)} is back`))
}

/** `127.0.0.1:41234`, `udp:127.0.0.1:41234` or `unix:/tmp/x.sock`. */
function addressOf({ protocol, host, port, path, url }: TunnelInfo): string {
  if (url !== undefined) return url
  if (path !== undefined) return `unix:${path}`
  return `${protocol === 'udp' ? 'udp:' : ''}${formatAddress({ host, port })}`
}
