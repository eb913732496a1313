import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { type Connection, joinConnection, type Rejection } from './connection.js'
import { type CloseOptions, Connections, type Stats } from './connections.js'
import { reserve } from './descriptors.js'
import { TunnelError } from './errors.js'
import type { SiteInfo } from './http/names.js'
import type { Listener, SocketAddress, Visitor } from './listener.js'
import type { Protocol } from './protocol.js'
import { reset } from './stream.js'
import { newTunnelId } from './tunnel-id.js'
import type { TunnelInfo } from './tunnel-info.js'
import { type MayVisit, visitorDenied } from './visitor-filter.js'

/** The visitors of a server that wait for their exchange: by its id, what to call with the data stream. */
export type Exchanges = Map<string, (dataStream: Duplex) => void>

export interface ServerTunnelOptions {
  protocol: Protocol
  path: string | undefined
  /** What makes the URL of an HTTP tunnel. */
  site: SiteInfo | undefined
  /** Where the client's control connection comes from, or came from last. */
  client(): SocketAddress
  secretName: string | undefined
  /** Who may visit, by address. */
  mayVisit: MayVisit
  exchanges: Exchanges
  /** Milliseconds that a visitor waits for its exchange. */
  exchangeTimeout: number
  /** Visitors that may wait at once, here and at the server. */
  maxWaiting: number
  maxWaitingTotal: number
  /** Visitors that may be here at once, inside and waiting. */
  maxVisitors: number
  /** Whether the client is not heard as it should be, and may turn out to be lost. */
  isSilent(): boolean
  /** What becomes of visitors that come while the client is lost. */
  whileLost: 'wait' | 'refuse'
  /** A visitor waits under this id. */
  onExchange(id: string, visitor: Visitor, cameTo: SocketAddress): void
  onConnection(connection: Connection, ...streams: Duplex[]): void
  onReject(rejection: Rejection): void
  /** It is to be closed at the server: tells the client, where it is still that client's. */
  takeBack(tunnel: ServerTunnel, error: TunnelError): void
}

/**
 * Visitors of each tunnel that may wait though those of others have used up what may wait at the server: nobody can keep a
 * neighbour's visitors out.
 */
const OWN_PLACES = 16

/** A visitor from its arrival until its data stream comes. */
interface Waiting {
  id: string
  visitor: Visitor
  cameTo: SocketAddress
  stream: Duplex
  /** Cuts it. */
  turnAway(error: TunnelError): void
  /** Ends the wait. There is none while the client is lost. */
  timer: NodeJS.Timeout | undefined
  streamOnClose: () => void
}

/**
 * The server's half of a tunnel: owns the public port and the visitors that wait. Those that were joined
 * outlive it.
 */
export class ServerTunnel implements TunnelInfo {
  readonly id = newTunnelId()
  readonly protocol: Protocol
  readonly host: string
  readonly port: number
  readonly path: string | undefined
  readonly site: SiteInfo | undefined
  readonly secretName: string | undefined
  readonly openedAt = new Date()
  readonly closed: Promise<TunnelError | undefined>
  readonly #listener: Listener
  readonly #options: ServerTunnelOptions
  readonly #waiting = new Map<string, Waiting>()
  /** Visitors that were joined. */
  readonly #connections = new Connections()
  /** Whether the client is there to be told of visitors. */
  #isLost = false
  #resolveClosed: (error: TunnelError | undefined) => void = () => {}

  constructor(listener: Listener, options: ServerTunnelOptions) {
    this.protocol = options.protocol
    this.host = listener.host
    this.port = listener.port
    this.path = options.path
    this.site = options.site
    this.secretName = options.secretName
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.#listener = listener
    this.#options = options
  }

  get client(): SocketAddress {
    return this.#options.client()
  }

  get hostname(): string | undefined {
    return this.site?.hostname
  }

  get url(): string | undefined {
    return this.site?.url
  }

  get connections(): number {
    return this.#connections.size
  }

  get stats(): Stats {
    return this.#connections.stats
  }

  close(options: CloseOptions = {}): Promise<void> {
    return this.#connections.close(options, (grace) => {
      const message = 'the tunnel was closed at the server, by who runs it'
      this.#options.takeBack(this, new TunnelError('closed-by-server', message))
      return this.#connections.finish(grace)
    })
  }

  /** How many visitors wait for their data stream. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** The client is lost: visitors wait for it to come back, however long that takes. */
  lose(): void {
    this.#isLost = true
    for (const waiting of this.#waiting.values()) clearTimeout(waiting.timer)
  }

  /**
   * The client is back: it is told of all who wait, as it may not have heard of them before, and no faster than it reads: they may be more
   * than would count as messages that pile up. Resolves when it was told, or when there is no room for more for good.
   */
  async resume(hasRoom: () => Promise<boolean>): Promise<void> {
    const waited = [...this.#waiting.values()]
    this.#isLost = false
    for (const waiting of waited) {
      if (!(await hasRoom())) return
      if (this.#waiting.has(waiting.id)) this.#announce(waiting)
    }
  }

  /** A visitor has come: it waits while the client is told of it. Who can't be joined is reset, unless its owner knows better. */
  park(
    stream: Duplex,
    visitor: Visitor,
    cameTo: SocketAddress,
    turnAway: (error: TunnelError) => void = () => reset(stream),
  ): void {
    const id = randomUUID()
    const { exchanges } = this.#options
    const error = this.#whyNot(visitor) ?? reserve.keep()
    if (error) {
      turnAway(error)
      this.#reject({ id, visitor, error })
      return
    }

    const streamOnClose = () => {
      const left = new TunnelError('visitor-left', 'the visitor left before its exchange was made')
      // A flow that had to make room knows better.
      this.turnAway(id, stream.errored instanceof TunnelError ? stream.errored : left)
    }
    stream.once('close', streamOnClose)
    const waiting = { id, visitor, cameTo, stream, turnAway, timer: undefined, streamOnClose }
    this.#waiting.set(id, waiting)
    exchanges.set(id, (dataStream) => this.#join(id, dataStream))
    // Only who reads notices a reset. This reads a chunk at the most, and the stream keeps it for the relay.
    stream.read(0)
    if (!this.#isLost) this.#announce(waiting)
  }

  /** Resets a visitor that waits. */
  turnAway(id: string, error: TunnelError): void {
    const waiting = this.#take(id)
    if (!waiting) return
    waiting.turnAway(error)
    this.#reject({ id, visitor: waiting.visitor, error })
  }

  /** Counts datagrams that were dropped. */
  countDrops(count: number): void {
    this.#connections.drops += count
  }

  /** Frees the port at once and turns away who waits. Visitors inside stay. */
  end(error?: TunnelError): void {
    this.#listener.close()
    for (const id of this.#waiting.keys()) {
      this.turnAway(id, error ?? new TunnelError('closed', 'the tunnel was closed'))
    }
    this.#resolveClosed(error)
  }

  /** Why no visitor may come in now, if so. */
  #whyNot(visitor: Visitor): TunnelError | undefined {
    const { mayVisit, exchanges, maxWaiting, maxWaitingTotal, maxVisitors, whileLost } = this.#options
    if (!mayVisit(visitor.address)) return visitorDenied(visitor.address)
    const waiting = this.#waiting.size
    if (waiting >= maxWaiting) return tooMany(`${maxWaiting} visitors wait at this tunnel`, 'waiting')
    if (exchanges.size >= maxWaitingTotal && waiting >= OWN_PLACES)
      return tooMany(`${maxWaitingTotal} visitors wait at this server`, 'waitingTotal')
    // Flows have a bound of their own.
    if (this.protocol !== 'udp' && waiting + this.#connections.size >= maxVisitors)
      return tooMany(`${maxVisitors} visitors are at this tunnel`, 'visitors')
    if (this.#isLost && whileLost === 'refuse') {
      return new TunnelError('connection-lost', 'the control connection of the tunnel is lost')
    }
    return undefined
  }

  /** Tells the client of a visitor, which waits from now on for so long. */
  #announce(waiting: Waiting): void {
    const { id, visitor, cameTo } = waiting
    this.#startTimer(waiting)
    this.#options.onExchange(id, visitor, cameTo)
  }

  #startTimer(waiting: Waiting): void {
    const { exchangeTimeout, isSilent, whileLost } = this.#options
    clearTimeout(waiting.timer)
    waiting.timer = setTimeout(() => {
      // It came just before the loss of the client is noticed, and is to wait like those who come just behind.
      if (isSilent() && whileLost === 'wait') return this.#startTimer(waiting)
      const message = `the client opened no data stream for this visitor within ${exchangeTimeout} ms`
      this.turnAway(waiting.id, new TunnelError('exchange-expired', message))
    }, exchangeTimeout).unref()
  }

  #join(id: string, dataStream: Duplex): void {
    const waiting = this.#take(id)
    if (!waiting) return
    const { visitor, stream } = waiting
    const connection = joinConnection({ id, visitor, fromVisitor: stream, fromTarget: dataStream })
    this.#connections.add(connection, stream, dataStream)
    this.#options.onConnection(connection, stream, dataStream)
  }

  #reject(rejection: Rejection): void {
    this.#connections.rejections++
    this.#options.onReject(rejection)
  }

  /** The visitor with this id, which from now on waits no more. */
  #take(id: string): Waiting | undefined {
    const waiting = this.#waiting.get(id)
    if (!waiting) return undefined
    this.#waiting.delete(id)
    this.#options.exchanges.delete(id)
    reserve.release()
    clearTimeout(waiting.timer)
    waiting.stream.off('close', waiting.streamOnClose)
    return waiting
  }
}

function tooMany(what: string, limit: string): TunnelError {
  return new TunnelError('limit-reached', `${what} already: raise limits.${limit} of createServer for more`)
}
