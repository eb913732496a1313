import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { formatAddress, isAnyAddress, isLoopback } from '../address.js'
import { withDeadline } from '../deadline.js'
import { TunnelError } from '../errors.js'
import { listening } from '../listener.js'
import { checkHost, checkPort, checkSecret } from '../options.js'
import type { Server } from '../server-info.js'
import { dashboardOf } from './dashboard.js'
import { answerTo, routesOf } from './routes.js'

export interface AdminOptions {
  host: string
  port: number
  /** What who asks must show as a bearer token. Only a loopback address does without. */
  secret: string | undefined
}

/** The administration of a server, while it listens. */
export interface Admin {
  readonly url: string
  close(): void
}

/** Milliseconds for an answer to be read, a request to come, and a connection to be of use again. */
const TIMEOUT = 10_000
/** People and their programs are few. */
const MAX_CONNECTIONS = 256

/**
 * Starts the administration of a server. Call it in the same turn in which the server has come: from here on it counts. Rejects with
 * `invalid-option`, `insecure-address`, `port-taken`, `address-unavailable` or `timeout`.
 */
export async function openAdmin(server: Server, { host, port, secret }: AdminOptions): Promise<Admin> {
  const dashboard = dashboardOf(server)
  const routes = routesOf(server, dashboard.routes)
  checkHost('the admin host', host)
  checkPort('the admin port', port)
  checkSecret('the admin secret', secret)
  if (secret === undefined && !isLoopback(host)) {
    throw new TunnelError(
      'insecure-address',
      `${host} can be reached by others, who could close tunnels: set PIPE_ADMIN_SECRET or --admin-secret-file`,
    )
  }
  const settings = { headersTimeout: TIMEOUT, requestTimeout: TIMEOUT, keepAliveTimeout: TIMEOUT }
  const web = http.createServer({ ...settings, connectionsCheckingInterval: 1_000 })
  web.on('request', async (request: IncomingMessage, response: ServerResponse) => {
    const answer = await answerTo(request, routes, secret)
    if (answer.stream && request.method !== 'HEAD') return answer.stream(response)
    // Nobody reads what a request carries.
    const hasBody = request.headers['transfer-encoding'] ?? request.headers['content-length'] ?? '0'
    response.writeHead(answer.status, {
      'content-type': answer.type,
      'content-length': Buffer.byteLength(answer.body),
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      ...(hasBody !== '0' && { connection: 'close' }),
      ...answer.headers,
    })
    response.end(answer.body)
  })
  web.timeout = TIMEOUT
  web.maxConnections = MAX_CONNECTIONS
  const where = formatAddress({ host, port })
  await withDeadline(`listening on ${where}`, { timeout: TIMEOUT }, (aborted) => {
    web.listen({ host, port })
    return listening(web, where, aborted)
  })
  return {
    url: `http://${formatAddress({ host: openable(host), port: (web.address() as AddressInfo).port })}`,
    close() {
      dashboard.close()
      web.close()
      web.closeAllConnections()
    },
  }
}

/** Where it listens at all addresses, one of them: the others are no host of a URL. */
function openable(host: string): string {
  if (!isAnyAddress(host)) return host
  return host === '::' ? '::1' : '127.0.0.1'
}
