import { NOTHING } from '../stream.js'
import type { RecordedBody } from './record.js'

/** Where many small pieces come, they share memory of at least so many bytes. */
const LEAST = 1_024

/** A body that is coming. Of what is kept, it knows the cost; who lets it keep more is asked first. */
export class Body implements RecordedBody {
  size = 0
  #kept = NOTHING
  #length = 0
  /** Most bytes to keep. */
  #limit: number

  constructor(limit: number) {
    this.#limit = limit
  }

  get bytes(): Buffer {
    return this.#kept.subarray(0, this.#length)
  }

  get isTruncated(): boolean {
    return this.size > this.#length
  }

  /** Memory that it takes. */
  get cost(): number {
    return this.#kept.length
  }

  /** Takes a copy of what there is room for. */
  append(piece: Buffer): void {
    // What comes behind a gap is not kept, though there may be room for it.
    const count = this.isTruncated ? 0 : Math.min(piece.length, this.#limit - this.#length)
    this.size += piece.length
    if (count <= 0) return
    const needed = this.#length + count
    if (needed > this.#kept.length) {
      const grown = Buffer.allocUnsafeSlow(Math.min(this.#limit, Math.max(LEAST, needed, this.#length * 2)))
      this.#kept.copy(grown)
      this.#kept = grown
    }
    piece.copy(this.#kept, this.#length, 0, count)
    this.#length = needed
  }

  /** Forgets all, and keeps nothing any more. */
  drop(): void {
    this.#limit = 0
    this.#length = 0
    this.#kept = NOTHING
  }
}
