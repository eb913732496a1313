import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { Rejection } from './connection.js'
import { reserve } from './descriptors.js'
import { TunnelError } from './errors.js'
import type { SocketAddress, Visitor } from './listener.js'

/** The visitors of a server that wait for their exchange: by its id, what to call with the data stream. */
export type Exchanges = Map<string, (dataStream: Duplex) => void>

export interface WaitingRoomOptions {
  exchanges: Exchanges
  /** Milliseconds that a visitor waits for its exchange. */
  exchangeTimeout: number
  /** Whether the client is not heard as it should be, and may turn out to be lost. */
  isSilent(): boolean
  /** What becomes of visitors that come while the client is lost. */
  whileLost: 'wait' | 'refuse'
  /** A visitor waits under this id. */
  onExchange(id: string, visitor: Visitor, cameTo: SocketAddress): void
  /** Its data stream has come. */
  onJoin(id: string, visitor: Visitor, stream: Duplex, dataStream: Duplex): void
  onReject(rejection: Rejection): void
}

/** Who has come. */
export interface Arriving {
  stream: Duplex
  visitor: Visitor
  cameTo: SocketAddress
  /** Cuts it. */
  turnAway(error: TunnelError): void
}

/** A visitor from its arrival until its data stream comes. */
interface Waiting extends Arriving {
  id: string
  /** Ends the wait. There is none while the client is lost. */
  timer: NodeJS.Timeout | undefined
  streamOnClose: () => void
}

/** The visitors of one tunnel that wait for their data streams. */
export class WaitingRoom {
  readonly #options: WaitingRoomOptions
  readonly #waiting = new Map<string, Waiting>()
  /** Whether the client is there to be told of visitors. */
  #isLost = false

  constructor(options: WaitingRoomOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#waiting.size
  }

  get isLost(): boolean {
    return this.#isLost
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

  /** A visitor waits from now on, while the client is told of it. A descriptor was kept for it. */
  enter(arriving: Arriving): void {
    const { stream } = arriving
    const id = randomUUID()
    const streamOnClose = () => {
      const left = new TunnelError('visitor-left', 'the visitor left before its exchange was made')
      // A flow that had to make room knows better.
      this.turnAway(id, stream.errored instanceof TunnelError ? stream.errored : left)
    }
    stream.once('close', streamOnClose)
    const waiting = { ...arriving, id, timer: undefined, streamOnClose }
    this.#waiting.set(id, waiting)
    this.#options.exchanges.set(id, (dataStream) => this.#join(id, dataStream))
    // Only who reads notices a reset. This reads a chunk at the most, and the stream keeps it for the relay.
    stream.read(0)
    if (!this.#isLost) this.#announce(waiting)
  }

  /** Cuts a visitor that waits. */
  turnAway(id: string, error: TunnelError): void {
    const waiting = this.#take(id)
    if (!waiting) return
    waiting.turnAway(error)
    this.#options.onReject({ id, visitor: waiting.visitor, error })
  }

  turnAllAway(error: TunnelError): void {
    for (const id of this.#waiting.keys()) this.turnAway(id, error)
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
    if (waiting) this.#options.onJoin(id, waiting.visitor, waiting.stream, dataStream)
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
