import { type Batch, SMALL } from './batch.js'

export type Done = (error?: Error | null) => void

const IDLE: Done = () => {}

/** The one write of a stream that is under way. */
export class SendQueue {
  #chunks: Buffer[] = []
  /** The first chunk that was not sent in full, and how much of it was. */
  #index = 0
  #offset = 0
  #size = 0
  #left = 0
  #done = IDLE

  /** Bytes of the write. */
  get size(): number {
    return this.#size
  }

  /** Bytes of it that were not sent yet. */
  get left(): number {
    return this.#left
  }

  fill(chunks: Buffer[], size: number, done: Done): void {
    this.#chunks = chunks
    this.#index = 0
    this.#offset = 0
    this.#size = size
    this.#left = size
    this.#done = done
  }

  /** Moves so many bytes, of those that are left, into the batch. */
  moveTo(batch: Batch, bytes: number): void {
    this.#left -= bytes
    for (let missing = bytes; missing > 0; ) {
      const chunk = this.#chunks[this.#index] as Buffer
      const end = Math.min(chunk.length, this.#offset + missing)
      const isWhole = this.#offset === 0 && end === chunk.length
      batch.addPayload(isWhole ? chunk : chunk.subarray(this.#offset, end))
      missing -= end - this.#offset
      this.#offset = end
      if (end === chunk.length) {
        this.#index++
        this.#offset = 0
      }
    }
    if (this.#left > 0) return
    if (this.#size > SMALL) batch.whenSent(this.#done)
    else process.nextTick(this.#done)
    this.#clear()
  }

  /** The stream is gone, or there was nothing to send, which Node tells whoever wrote. That runs behind our own work, as it may write more. */
  finish(): void {
    process.nextTick(this.#done)
    this.#clear()
  }

  #clear(): void {
    this.#done = IDLE
    this.#chunks = []
    this.#left = 0
  }
}
