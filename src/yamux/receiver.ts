import { Flag, type FrameHandler, type Header, Type } from './frame.js'
import type { Pings } from './pings.js'
import type { Sender } from './sender.js'
import type { YamuxStream } from './stream.js'
import type { StreamTable } from './stream-table.js'

export interface ReceiverOptions {
  streams: StreamTable
  sender: Sender
  pings: Pings
  /** What no window is larger than. */
  maxWindow: number
  /** Takes a stream of the peer, or resets it. */
  accept(id: number): void
  onGoAway(code: number): void
  /** The peer has broken the protocol. Nothing more is wanted of it. */
  onViolation(reason: string): void
}

/** What the frames mean that come in. */
export class Receiver implements FrameHandler {
  readonly #options: ReceiverOptions
  /** Whose payload comes, where somebody wants it, and whether its direction ends behind it. */
  #current: { stream: YamuxStream; ends: boolean } | undefined

  constructor(options: ReceiverOptions) {
    this.#options = options
  }

  onFrame(frame: Header): void {
    this.#current = undefined
    if (frame.type === Type.ping) this.#pingOnReceived(frame)
    else if (frame.type === Type.goAway) this.#options.onGoAway(frame.length)
    else this.#streamFrameOnReceived(frame)
  }

  onPayload(bytes: Buffer, isLast: boolean): void {
    if (!this.#current) return
    const { stream, ends } = this.#current
    stream.receive(bytes)
    if (isLast && ends) stream.receiveEnd()
  }

  onViolation(reason: string): void {
    this.#options.onViolation(reason)
  }

  #streamFrameOnReceived({ type, flags, id, length }: Header): void {
    const { streams, maxWindow } = this.#options
    const isData = type === Type.data
    if (flags & Flag.syn) this.#opened(id)
    const stream = streams.get(id)
    if (!stream) {
      // It is gone, and the peer did not know that when it sent this.
      if (isData && length > maxWindow) this.onViolation(`a frame of ${length} bytes for no stream`)
    } else if (flags & Flag.rst) {
      stream.receiveReset()
    } else if (isData && !stream.allows(length)) {
      this.onViolation(`stream ${id}: ${length} bytes are more than its window allows`)
    } else if (!isData && !stream.receiveCredit(length)) {
      this.onViolation(`stream ${id}: its window is larger than can be`)
    } else {
      if (flags & Flag.ack) streams.answered(stream)
      const ends = (flags & Flag.fin) > 0
      if (isData && length > 0) this.#current = { stream, ends }
      else if (ends) stream.receiveEnd()
    }
  }

  #opened(id: number): void {
    const { streams, accept } = this.#options
    if (!streams.isPeers(id)) this.onViolation(`the peer opens a stream of the number ${id}`)
    else if (streams.get(id)) this.onViolation(`the peer opens stream ${id} once more`)
    else accept(id)
  }

  #pingOnReceived({ flags, length }: Header): void {
    const { sender, pings } = this.#options
    if (flags & Flag.syn) sender.send({ type: Type.ping, flags: Flag.ack, id: 0, length })
    else if (flags & Flag.ack) pings.answered(length)
  }
}
