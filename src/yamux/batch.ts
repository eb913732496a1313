import type { Writable } from 'node:stream'
import { HEADER, type Header, writeHeader } from './frame.js'

/** Headers and small payloads are gathered in pieces of memory of this size. */
const SLAB = 8_192

/** Payloads up to this size are copied behind their header: to hand the system one more buffer costs more. */
export const SMALL = 2_048

const NOTHING = Buffer.alloc(0)

/** Frames that go to the link together: in one system call, where it is a socket. */
export class Batch {
  readonly #link: Writable
  #slab = Buffer.allocUnsafeSlow(SLAB)
  /** What is gathered in the slab, and not handed over yet. */
  #start = 0
  #end = 0
  #bytes = 0
  /** Who is to be told when it was sent. */
  #onSent: (() => void)[] = []

  constructor(link: Writable) {
    this.#link = link
  }

  /** How much it holds. */
  get bytes(): number {
    return this.#bytes
  }

  begin(): void {
    this.#bytes = 0
    this.#link.cork()
  }

  /** A frame, or the header of one whose payload follows. */
  addHeader(header: Header): void {
    this.#reserve(HEADER)
    writeHeader(this.#slab, this.#end, header)
    this.#end += HEADER
    this.#bytes += HEADER
  }

  /** A part of a payload. Its memory is the link's until it was sent. */
  addPayload(bytes: Buffer): void {
    this.#bytes += bytes.length
    if (bytes.length <= SMALL) {
      this.#reserve(bytes.length)
      bytes.copy(this.#slab, this.#end)
      this.#end += bytes.length
    } else {
      this.#handOver()
      this.#link.write(bytes)
    }
  }

  /** Calls back when the link needs nothing more of what was added until now. */
  whenSent(callback: () => void): void {
    this.#onSent.push(callback)
  }

  /** Hands over what was added. */
  finish(): void {
    this.#handOver()
    if (this.#onSent.length > 0) {
      const callbacks = this.#onSent
      this.#onSent = []
      // Behind all else of it. What becomes of the link is told by its `close`.
      this.#link.write(NOTHING, () => {
        for (const callback of callbacks) callback()
      })
    }
    this.#link.uncork()
  }

  #reserve(size: number): void {
    if (this.#end + size <= SLAB) return
    this.#handOver()
    // The link may still hold parts of the old one.
    this.#slab = Buffer.allocUnsafeSlow(SLAB)
    this.#start = 0
    this.#end = 0
  }

  #handOver(): void {
    if (this.#end === this.#start) return
    this.#link.write(this.#slab.subarray(this.#start, this.#end))
    this.#start = this.#end
  }
}
