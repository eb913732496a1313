import type { Readable } from 'node:stream'
import type { Taker, Verdict } from '../socket-reader.js'
import { Crumbs } from './crumbs.js'
import { surface } from './errors.js'
import type { Holder, Loan } from './loan.js'

/**
 * What is a smaller part of the memory it lies in is copied: whoever keeps it would keep all of that. What is handed over is not kept, mostly, and no more than
 * once at a time; what is pushed waits there.
 */
const MIN_SHARE = { handedOver: 1 / 8, pushed: 1 / 2 }

/**
 * Chunks of fewer bytes are gathered with their like, behind others that nobody has read, and where many come at once: a peer that sends bytes one by one could
 * make each window take forty times its size.
 */
const CRUMB = 1_024

/** What has come for a stream, on its way to whoever reads it. */
export class Inbox implements Holder {
  readonly #stream: Readable
  readonly #loan: Loan
  /** Small chunks behind those that wait to be read. */
  readonly #crumbs = new Crumbs()
  #isSweeping = false
  /** Whether more was asked for than has been pushed since. */
  #isAsked = false
  #taker: Taker | undefined
  /** What is handed over when all that has come was looked through. */
  #lent: Buffer[] = []

  constructor(stream: Readable, loan: Loan) {
    this.#stream = stream
    this.#loan = loan
  }

  /** Bytes that nobody has read. */
  get unread(): number {
    return this.#stream.readableLength + this.#crumbs.length
  }

  /** Nobody else reads from the stream from now on. */
  lendTo(taker: Taker): void {
    this.#taker = taker
    this.#stream.on('data', (chunk: Buffer) => this.#handOver([chunk], false))
    this.#stream.resume()
  }

  /** The reader asks for more. */
  ask(): void {
    this.#isAsked = true
    this.#sweep()
  }

  /** Bytes have come. */
  add(bytes: Buffer): void {
    if (this.#taker && this.#stream.readableFlowing && this.unread === 0) {
      this.#lent.push(bytes)
      this.#loan.add(this)
    } else if (bytes.length < CRUMB && this.unread > 0) {
      this.#crumbs.add(bytes)
      this.#sweepSoon()
    } else {
      this.#sweep()
      const isSmall = bytes.length < bytes.buffer.byteLength * MIN_SHARE.pushed
      this.#push(isSmall ? Buffer.from(bytes) : bytes)
      if (!isSmall) this.#loan.keep()
    }
  }

  /** What was lent goes on together. */
  handOn(): void {
    const chunks = this.#lent
    const [first] = chunks
    if (!first) return
    this.#lent = []
    if (this.#stream.destroyed) return
    const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
    const least = Math.max(first.buffer.byteLength * MIN_SHARE.handedOver, (chunks.length - 1) * CRUMB)
    if (length < least) this.#handOver([Buffer.concat(chunks)], false)
    else if (this.#handOver(chunks, this.#loan.isReused) !== 'done') this.#loan.keep()
  }

  /** Nothing more comes. */
  end(): void {
    this.handOn()
    this.#sweep()
    this.#push(null)
    // It is seen also by who reads nothing, where there is nothing to read.
    this.#stream.read(0)
  }

  #handOver(chunks: Buffer[], isReused: boolean): Verdict | undefined {
    try {
      const verdict = this.#taker?.take(chunks, isReused)
      if (verdict === 'wait') this.#stream.pause()
      return verdict
    } catch (error) {
      surface(error)
      return 'keep'
    }
  }

  /** What came in one turn goes on together, where it is asked for; the rest waits until it is. */
  #sweepSoon(): void {
    if (!this.#isAsked || this.#isSweeping) return
    this.#isSweeping = true
    process.nextTick(() => {
      this.#isSweeping = false
      this.#sweep()
    })
  }

  #sweep(): void {
    if (this.#crumbs.length > 0 && !this.#stream.destroyed) this.#push(this.#crumbs.take())
  }

  #push(bytes: Buffer | null): void {
    this.#isAsked = false
    try {
      this.#stream.push(bytes)
    } catch (error) {
      surface(error)
    }
  }
}
