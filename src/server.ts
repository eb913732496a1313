import type { Socket } from 'node:net'
import { formatAddress } from './address.js'
import { untilAborted, withDeadline } from './deadline.js'
import type { TunnelError } from './errors.js'
import type { Front } from './http/front.js'
import { listenOnAll } from './listener.js'
import { logServer } from './log-events.js'
import { RunningServer } from './running-server.js'
import type { Server } from './server-info.js'
import { readServerOptions, type ServerOptions, type Settings } from './server-options.js'
import { listenTcp } from './tcp.js'
import { serverSecurity } from './tls-options.js'

/**
 * Starts a tunnel server; resolves when it listens. Rejects with `invalid-option`, `insecure-address`,
 * `port-taken`, `address-unavailable`, `caddy-unreachable`, `caddy-conflict`, `caddy-failed`, `timeout` or `aborted`.
 */
export async function createServer(options: ServerOptions = {}): Promise<Server> {
  const settings = readServerOptions(options)
  const { hosts, port, unref, timeout, signal } = settings
  const where = hosts.map((host) => formatAddress({ host, port })).join(' and ')
  return withDeadline(`listening on ${where}`, { timeout, signal }, async (aborted) => {
    const security = await untilAborted(serverSecurity(settings.tls, settings.secrets), aborted)
    // Caddy may be lost before there is one, or where there will be none.
    let server: RunningServer | undefined
    const front = await frontOf(settings, aborted, (error) => server?.reportCaddy(error))
    const listener = await listenOnAll<Socket>(
      settings,
      (socket, client) => server?.accept(socket, client),
      (address, take) => listenTcp({ ...address, unref, aborted }, take),
    ).catch(async (error) => {
      front?.stop()
      // A process that ends over this would leave behind what Caddy was told.
      if (front) await untilAborted(front.finish(0), aborted).catch(() => {})
      throw error
    })
    // No client is handed over before the event loop turns, and by then the server is there.
    server = new RunningServer(listener, options, settings, security, front)
    if (settings.logger) logServer(server, settings.logger)
    return server
  })
}

/** The port for HTTP tunnels, where there is to be one. */
async function frontOf(
  { http, httpConnections, unref }: Settings,
  aborted: AbortSignal,
  onCaddy: (error?: TunnelError) => void,
): Promise<Front | undefined> {
  if (!http) return undefined
  const options = { maxConnections: httpConnections, unref, aborted }
  if (!http.caddy) return (await import('./http/front.js')).openFront(http, options)
  const { openBehindCaddy } = await import('./http/behind-caddy.js')
  return openBehindCaddy(http, http.caddy, { ...options, onCaddy })
}
