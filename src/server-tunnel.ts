import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { type Connection, joinConnection, type Rejection } from './connection.js'
import { TunnelError } from './errors.js'
import type { Listener, SocketAddress, Visitor } from './listener.js'
import type { Protocol } from './protocol.js'
import { reset } from './stream.js'

/** A tunnel as its server shows it. */
export interface TunnelInfo {
  /** What its visitors speak. */
  readonly protocol: Protocol
  /** Address that the server listens on for visitors, the first where there are several; empty for a unix socket. */
  readonly host: string
  /** 0 for a unix socket. */
  readonly port: number
  /** File that it listens on, where that is a unix socket. */
  readonly path: string | undefined
  /** Where the client's control connection comes from. */
  readonly client: Visitor
  /** Resolves, and never rejects, when the tunnel is gone: with the error, where the client did not give it back. */
  readonly closed: Promise<TunnelError | undefined>
}

/** The visitors of a server that wait for their exchange: by its id, what to call with the data stream. */
export type Exchanges = Map<string, (dataStream: Duplex) => void>

export interface ServerTunnelOptions {
  protocol: Protocol
  path: string | undefined
  client: Visitor
  exchanges: Exchanges
  /** Milliseconds that a visitor waits for its exchange. */
  exchangeTimeout: number
  /** Visitors that may wait at once. */
  maxWaiting: number
  /** A visitor waits under this id. */
  onExchange(id: string, visitor: Visitor, cameTo: SocketAddress): void
  onConnection(connection: Connection, ...streams: Duplex[]): void
  onReject(rejection: Rejection): void
}

/** A visitor from its arrival until its data stream comes. */
interface Waiting {
  id: string
  visitor: Visitor
  stream: Duplex
  timer: NodeJS.Timeout
  streamOnClose: () => void
}

/**
 * The server's half of a tunnel: owns the public port and the visitors that wait. Those that were joined
 * outlive it.
 */
export class ServerTunnel implements TunnelInfo {
  readonly protocol: Protocol
  readonly host: string
  readonly port: number
  readonly path: string | undefined
  readonly client: Visitor
  readonly closed: Promise<TunnelError | undefined>
  readonly #listener: Listener
  readonly #options: ServerTunnelOptions
  readonly #waiting = new Map<string, Waiting>()
  #resolveClosed: (error: TunnelError | undefined) => void = () => {}

  constructor(listener: Listener, options: ServerTunnelOptions) {
    this.protocol = options.protocol
    this.host = listener.host
    this.port = listener.port
    this.path = options.path
    this.client = options.client
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.#listener = listener
    this.#options = options
  }

  /** A visitor has come: it waits while the client is told of it. */
  park(stream: Duplex, visitor: Visitor, cameTo: SocketAddress): void {
    const id = randomUUID()
    const { maxWaiting, exchangeTimeout, exchanges, onExchange, onReject } = this.#options
    if (this.#waiting.size >= maxWaiting) {
      reset(stream)
      const message = `${maxWaiting} visitors wait at this tunnel already`
      onReject({ id, visitor, error: new TunnelError('limit-reached', message) })
      return
    }

    const timer = setTimeout(() => {
      const message = `the client opened no data stream for this visitor within ${exchangeTimeout} ms`
      this.turnAway(id, new TunnelError('exchange-expired', message))
    }, exchangeTimeout).unref()
    const streamOnClose = () => {
      const left = new TunnelError('visitor-left', 'the visitor left before its exchange was made')
      // A flow that had to make room knows better.
      this.turnAway(id, stream.errored instanceof TunnelError ? stream.errored : left)
    }
    stream.once('close', streamOnClose)
    this.#waiting.set(id, { id, visitor, stream, timer, streamOnClose })
    exchanges.set(id, (dataStream) => this.#join(id, dataStream))
    // Only who reads notices a reset. This reads a chunk at the most, and the stream keeps it for the relay.
    stream.read(0)
    onExchange(id, visitor, cameTo)
  }

  /** Resets a visitor that waits. */
  turnAway(id: string, error: TunnelError): void {
    const waiting = this.#take(id)
    if (!waiting) return
    reset(waiting.stream)
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
    const { visitor, stream } = waiting
    const connection = joinConnection({ id, visitor, fromVisitor: stream, fromTarget: dataStream })
    this.#options.onConnection(connection, stream, dataStream)
  }

  /** The visitor with this id, which from now on waits no more. */
  #take(id: string): Waiting | undefined {
    const waiting = this.#waiting.get(id)
    if (!waiting) return undefined
    this.#waiting.delete(id)
    this.#options.exchanges.delete(id)
    clearTimeout(waiting.timer)
    waiting.stream.off('close', waiting.streamOnClose)
    return waiting
  }
}
