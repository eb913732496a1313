/** The HTTP port of a server: one for all HTTP tunnels. */
import type { IncomingMessage, Server, ServerOptions } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Address, formatAddress } from '../address.js'
import type { Aborted } from '../deadline.js'
import type { HttpSettings } from '../http-options.js'
import { type Listener, listening, listenOnAll } from '../listener.js'
import { HALF_CLOSE_TIMEOUT } from '../relay.js'
import { BACKLOG, closeServer, socketOnError } from '../socket.js'
import { Names } from './names.js'
import { Visit, type VisitOptions } from './visit.js'

/** Longest head of a request, in bytes. */
const MAX_HEAD = 32_768
/** Milliseconds that a head may take to come, and between two looks for those that take longer. */
const HEAD_TIMEOUT = 15_000
const LOOK_INTERVAL = 2_000
/** Milliseconds that a connection stays without a request: longer than proxies keep theirs, 60 s mostly, so that they close first. */
const IDLE_TIMEOUT = 75_000

/** Milliseconds that a visitor may take to close a connection that was ended. */
const LINGER = 5_000

const OPTIONS: ServerOptions = {
  insecureHTTPParser: false,
  maxHeaderSize: MAX_HEAD,
  headersTimeout: HEAD_TIMEOUT,
  connectionsCheckingInterval: LOOK_INTERVAL,
  keepAliveTimeout: IDLE_TIMEOUT,
  // Uploads take as long as they take.
  requestTimeout: 0,
  noDelay: true,
}

export interface FrontOptions {
  /** Connections that there may be at a time. */
  maxConnections: number
  unref: boolean
  aborted: Aborted
  /** How long a visitor that has finished sending may wait in silence for the rest of its answers, in milliseconds. */
  halfCloseTimeout?: number
}

/** What lies between visitors of HTTP tunnels and the tunnels. */
export interface Front {
  readonly port: number
  readonly names: Names
  /** Changes how many connections there may be from now on; those that there are stay. */
  limit(maxConnections: number): void
  /** Stops listening, and ends connections that carry no request. */
  stop(): void
  /** Resolves when all are closed; those that are not after `grace` milliseconds are cut. */
  finish(grace: number): Promise<void>
}

/** Resolves when it listens. Rejects with `port-taken`, `address-unavailable`, or the signal's reason. */
export async function openFront(settings: HttpSettings, options: FrontOptions): Promise<Front> {
  // Loaded by who needs it alone.
  const http = await import('node:http')
  const servers: Server[] = []
  let closed: Promise<void> | undefined
  const isStopped = () => closed !== undefined
  const names: Names = new Names(settings, () => listener.port)
  const listen = async (address: Address): Promise<Listener> => {
    const server = serve({ http, names, settings, isStopped }, options)
    servers.push(server)
    server.listen({ ...address, backlog: BACKLOG })
    await listening(server, formatAddress(address), options.aborted)
    const { port } = server.address() as { port: number }
    return { host: address.host, port, close: () => closeServer(server) }
  }
  const listener = await listenOnAll(settings, () => {}, listen)
  return {
    port: listener.port,
    names,
    limit(maxConnections) {
      for (const server of servers) server.maxConnections = maxConnections
    },
    stop() {
      closed ??= listener.close()
    },
    async finish(grace) {
      const timer = setTimeout(() => {
        for (const server of servers) server.closeAllConnections()
      }, grace)
      await closed
      clearTimeout(timer)
    },
  }
}

function serve(
  options: VisitOptions,
  { maxConnections, unref, halfCloseTimeout = HALF_CLOSE_TIMEOUT }: FrontOptions,
): Server {
  const { http } = options
  const visits = new WeakMap<Duplex, Visit>()
  const server = http.createServer(OPTIONS)
  server.maxConnections = maxConnections
  // A visitor that has sent all it has to say still waits for the answer.
  Object.assign(server, { httpAllowHalfOpen: true })
  if (unref) server.unref()

  server.on('connection', (socket: Socket) => {
    if (unref) socket.unref()
    visits.set(socket, new Visit(socket, options))
    // One that has left looks the same, until something is written to it: Node destroys the socket then.
    socket.once('end', () => socket.setTimeout(halfCloseTimeout))
  })
  for (const event of ['request', 'checkContinue', 'checkExpectation'] as const) {
    server.on(event, (request, response) => visits.get(request.socket)?.take(request, response))
  }
  server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    // It belongs to nobody from here on.
    socket.on('error', socketOnError)
    const visit = visits.get(socket)
    // Node does not look after the answers that are still to come any more.
    if (!visit || visit.isBusy) {
      socket.destroy()
      return
    }
    const response = new http.ServerResponse(request)
    response.shouldKeepAlive = false
    response.assignSocket(socket)
    response.once('finish', () => {
      socket.setTimeout(LINGER, () => socket.destroy()).end()
      socket.resume()
    })
    visit.take(request, response, { socket, head })
  })
  return server
}
