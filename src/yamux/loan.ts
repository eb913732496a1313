/** Has parts of the memory, and hands them on together. */
export interface Holder {
  handOn(): void
}

/** The memory that the link was read into last: whether it is to be used again, and whether somebody keeps a part of it. */
export class Loan {
  #isReused = false
  #isKept = false
  readonly #holders = new Set<Holder>()

  /** Whether what is looked through now lies in memory that is to be used again. */
  get isReused(): boolean {
    return this.#isReused
  }

  /** Looks through what has come; tells whether somebody keeps a part of it. */
  during(isReused: boolean, look: () => void): boolean {
    this.#isReused = isReused
    this.#isKept = false
    look()
    for (const holder of this.#holders) holder.handOn()
    this.#holders.clear()
    return this.#isKept
  }

  /** Hands something on when all was looked through. */
  add(holder: Holder): void {
    this.#holders.add(holder)
  }

  keep(): void {
    this.#isKept = true
  }
}
