import { Duplex } from 'node:stream'
import { DatagramDecoder, encodeDatagrams } from './datagrams.js'
import type { OnDrop } from './drops.js'
import { TunnelError } from './errors.js'
import { currentTurn, whenTurned } from './turn.js'

/** What a flow holds of datagrams that its reader has not taken yet: bytes, and datagrams however small. */
const MAX_QUEUED_BYTES = 262_144
const MAX_QUEUED = 1_024

/** What all flows of one public port hold together, in bytes. */
const MAX_QUEUED_TOGETHER = 16_777_216

/** Bytes for which a write of their own is worth it: as many as a socket reads at a time. */
const FULL = 65_536

const OVER_LIMIT = 'they came faster than the limit allows'

export interface FlowOptions {
  /** Sends a datagram to where the flow comes from, or leads to. */
  send(datagram: Buffer, done: (error: Error | null) => void): void
  /** Milliseconds of silence in both directions after which the flow ends. Default: it does not end by itself. */
  flowTimeout?: number
  onDrop: OnDrop
  /** What this flow and others hold together. Default: it counts for itself alone. */
  queue?: { bytes: number }
  /** Whether a datagram of so many bytes may be received, or sent. Default: any. */
  mayReceive?(bytes: number): boolean
  maySend?(bytes: number): boolean
  /** A datagram has passed, in whichever direction. */
  onUse?(): void
  /** It takes no more datagrams. */
  onFinish?(): void
}

type Done = (error?: Error | null) => void

/**
 * The datagrams between two addresses as a byte stream, so that a relay can carry them: what is read from it and
 * written to it is framed as `datagrams.ts` says. It has no half-close: where one direction ends, both do.
 *
 * Datagrams that come while nobody takes them wait in a queue, and are dropped where that is full. One that comes alone is handed on at
 * once. In a burst, those of one turn of the event loop are handed on together, as a write for each costs more than all else.
 */
export class Flow extends Duplex {
  readonly #options: FlowOptions
  readonly #decoder = new DatagramDecoder()
  #silence: NodeJS.Timeout | undefined
  #queue: Buffer[] = []
  #queuedBytes = 0
  readonly #together: { bytes: number }
  /** Whether the reader waits for more. */
  #isWanted = false
  /** The last turn of the event loop in which datagrams came, how many, and whether several had in the one before. */
  #turn = -1
  #inTurn = 0
  #isBurst = false
  #isFinished = false
  #bytesReceived = 0
  #bytesSent = 0

  constructor(options: FlowOptions) {
    // Without a buffer of its own on the reading side: the queue knows what a datagram costs.
    super({ readableHighWaterMark: 1 })
    this.#options = options
    this.#together = options.queue ?? { bytes: 0 }
    const { flowTimeout } = options
    if (flowTimeout !== undefined) this.#silence = setTimeout(() => this.finish(), flowTimeout).unref()
  }

  /** Bytes of the datagrams that came and were taken. */
  get bytesReceived(): number {
    return this.#bytesReceived
  }

  /** Bytes of the datagrams that were sent. */
  get bytesSent(): number {
    return this.#bytesSent
  }

  /** A datagram has come. */
  receive(datagram: Buffer): void {
    if (this.#isFinished) {
      this.#options.onDrop(1, 'their flow has ended')
      return
    }
    const isFull =
      this.#queue.length >= MAX_QUEUED ||
      this.#queuedBytes + datagram.length > MAX_QUEUED_BYTES ||
      this.#together.bytes + datagram.length > MAX_QUEUED_TOGETHER
    if (isFull) {
      this.#options.onDrop(1, 'they came faster than the tunnel takes them')
      return
    }
    if (this.#options.mayReceive?.(datagram.length) === false) {
      this.#options.onDrop(1, OVER_LIMIT)
      return
    }
    this.#use()
    this.#bytesReceived += datagram.length
    this.#queue.push(datagram)
    this.#queuedBytes += datagram.length
    this.#together.bytes += datagram.length
    const turn = currentTurn()
    if (turn !== this.#turn) {
      this.#turn = turn
      this.#isBurst = this.#inTurn > 1
      this.#inTurn = 0
      if (this.#isBurst) whenTurned(this.#turnOnEnd)
    }
    this.#inTurn++
    if (this.#isWanted && (!this.#isBurst || this.#queuedBytes >= FULL)) this._read()
  }

  /** Ends the flow behind what has come. */
  finish(): void {
    if (this.#isFinished) return
    this.#isFinished = true
    this.#options.onFinish?.()
    clearTimeout(this.#silence)
    const { flowTimeout } = this.#options
    if (flowTimeout !== undefined && !this.destroyed) {
      // Its end comes behind what nobody may ever read.
      const why = `not read to its end for ${flowTimeout} ms`
      this.#silence = setTimeout(() => this.destroy(new TunnelError('timeout', why)), flowTimeout).unref()
    }
    if (this.#isWanted) this._read()
  }

  readonly #turnOnEnd = () => {
    if (this.#isWanted) this._read()
  }

  override _read(): void {
    this.#isWanted = true
    if (this.#queue.length > 0) {
      const bytes = encodeDatagrams(this.#queue)
      this.#clear()
      this.#isWanted = false
      this.push(bytes)
    } else if (this.#isFinished) {
      this.#isWanted = false
      this.push(null)
    }
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    try {
      this.#send(this.#decoder.decode(chunk), done)
    } catch (error) {
      done(error as Error)
    }
  }

  /** More is taken when the kernel has the last of these, so no more than a chunk of them waits here. */
  #send(datagrams: Buffer[], done: Done): void {
    const last = datagrams.pop()
    if (!last) {
      done()
      return
    }
    this.#use()
    for (const datagram of datagrams) this.#sendOne(datagram, () => {})
    this.#sendOne(last, done)
  }

  #sendOne(datagram: Buffer, done: Done): void {
    if (this.#options.maySend?.(datagram.length) === false) {
      this.#options.onDrop(1, OVER_LIMIT)
      done()
      return
    }
    this.#options.send(datagram, (error) => {
      if (error) this.#options.onDrop(1, error.message)
      else this.#bytesSent += datagram.length
      done()
    })
  }

  override _final(done: Done): void {
    this.finish()
    done(this.#decoder.isBetween ? null : cutOff())
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#clear()
    this.finish()
    clearTimeout(this.#silence)
    done(error)
  }

  #clear(): void {
    this.#together.bytes -= this.#queuedBytes
    this.#queue = []
    this.#queuedBytes = 0
  }

  #use(): void {
    if (!this.#isFinished) this.#silence?.refresh()
    this.#options.onUse?.()
  }
}

function cutOff(): TunnelError {
  return new TunnelError('connection-lost', 'the data stream ended in the middle of a datagram')
}
