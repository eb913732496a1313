import { randomUUID } from 'node:crypto'
import type net from 'node:net'
import type { Duplex } from 'node:stream'
import { type Connection, joinConnection, type Rejection, type Visitor } from './connection.js'
import { TunnelError } from './errors.js'
import { reset } from './relay.js'
import { peerOf, portOf } from './tcp.js'

/** A tunnel as its server shows it. */
export interface TunnelInfo {
  /** What it forwards. */
  readonly protocol: 'tcp'
  /** Address that the server listens on for visitors. */
  readonly host: string
  readonly port: number
  /** Where the client's control connection comes from. */
  readonly client: Visitor
  /** Resolves, and never rejects, when the tunnel is gone: with the error, where the client did not give it back. */
  readonly closed: Promise<TunnelError | undefined>
}

/** The visitors of a server that wait for their exchange: by its id, what to call with the data stream. */
export type Exchanges = Map<string, (dataStream: Duplex) => void>

export interface ServerTunnelOptions {
  host: string
  client: Visitor
  exchanges: Exchanges
  /** Milliseconds that a visitor waits for its exchange. */
  exchangeTimeout: number
  /** Visitors that may wait at once. */
  maxWaiting: number
  /** A visitor waits under this id. */
  onExchange(id: string, visitor: Visitor): void
  onConnection(connection: Connection, ...streams: Duplex[]): void
  onReject(rejection: Rejection): void
}

/** A visitor from its arrival until its data stream comes. */
interface Waiting {
  id: string
  visitor: Visitor
  socket: net.Socket
  timer: NodeJS.Timeout
  socketOnClose: () => void
}

/**
 * The server's half of a tunnel: owns the public port and the visitors that wait. Those that were joined
 * outlive it.
 */
export class ServerTunnel implements TunnelInfo {
  readonly protocol = 'tcp'
  readonly host: string
  readonly port: number
  readonly client: Visitor
  readonly closed: Promise<TunnelError | undefined>
  readonly #listener: net.Server
  readonly #options: ServerTunnelOptions
  readonly #waiting = new Map<string, Waiting>()
  #resolveClosed: (error: TunnelError | undefined) => void = () => {}

  constructor(listener: net.Server, options: ServerTunnelOptions) {
    this.host = options.host
    this.port = portOf(listener)
    this.client = options.client
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.#listener = listener
    this.#options = options
  }

  /** A visitor has come: it waits while the client is told of it. */
  park(socket: net.Socket): void {
    const id = randomUUID()
    const visitor = peerOf(socket)
    if (this.#waiting.size >= this.#options.maxWaiting) {
      reset(socket)
      const message = `${this.#options.maxWaiting} visitors wait at this tunnel already`
      this.#options.onReject({ id, visitor, error: new TunnelError('limit-reached', message) })
      return
    }

    const { exchangeTimeout } = this.#options
    const timer = setTimeout(() => {
      const message = `the client opened no data stream for this visitor within ${exchangeTimeout} ms`
      this.turnAway(id, new TunnelError('exchange-expired', message))
    }, exchangeTimeout).unref()
    const socketOnClose = () => {
      this.turnAway(id, new TunnelError('visitor-left', 'the visitor left before its exchange was made'))
    }
    socket.once('close', socketOnClose)
    this.#waiting.set(id, { id, visitor, socket, timer, socketOnClose })
    this.#options.exchanges.set(id, (dataStream) => this.#join(id, dataStream))
    // Only who reads notices a reset. This reads a chunk at the most, and the socket keeps it for the relay.
    socket.read(0)
    this.#options.onExchange(id, visitor)
  }

  /** Resets a visitor that waits. */
  turnAway(id: string, error: TunnelError): void {
    const waiting = this.#take(id)
    if (!waiting) return
    reset(waiting.socket)
    this.#options.onReject({ id, visitor: waiting.visitor, error })
  }

  /** Frees the port at once and turns away who waits. */
  close(error?: TunnelError): void {
    this.#listener.close()
    for (const id of this.#waiting.keys()) {
      this.turnAway(id, error ?? new TunnelError('closed', 'the tunnel was closed'))
    }
    this.#resolveClosed(error)
  }

  #join(id: string, dataStream: Duplex): void {
    const waiting = this.#take(id)
    if (!waiting) return
    const { visitor, socket } = waiting
    this.#options.onConnection(joinConnection(id, visitor, socket, dataStream), socket, dataStream)
  }

  /** The visitor with this id, which from now on waits no more. */
  #take(id: string): Waiting | undefined {
    const waiting = this.#waiting.get(id)
    if (!waiting) return undefined
    this.#waiting.delete(id)
    this.#options.exchanges.delete(id)
    clearTimeout(waiting.timer)
    waiting.socket.off('close', waiting.socketOnClose)
    return waiting
  }
}
