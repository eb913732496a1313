/** Bytes of small chunks, one behind the other: as chunks, each would take a hundred bytes more. */
export class Crumbs {
  #memory = Buffer.alloc(0)
  #length = 0

  get length(): number {
    return this.#length
  }

  add(bytes: Buffer): void {
    const length = this.#length + bytes.length
    if (length > this.#memory.length) {
      const memory = Buffer.allocUnsafeSlow(Math.max(1_024, 2 * length))
      this.#memory.copy(memory, 0, 0, this.#length)
      this.#memory = memory
    }
    bytes.copy(this.#memory, this.#length)
    this.#length = length
  }

  /** All of them, and none are left. */
  take(): Buffer {
    const bytes = this.#memory.subarray(0, this.#length)
    this.#memory = Buffer.alloc(0)
    this.#length = 0
    return bytes
  }
}
