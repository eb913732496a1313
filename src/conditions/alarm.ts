/** One timer, for the next of many moments. */
export class Alarm {
  readonly #onTime: () => void
  #timer: NodeJS.Timeout | undefined
  #at = Number.POSITIVE_INFINITY

  constructor(onTime: () => void) {
    this.#onTime = onTime
  }

  /** Goes off then, as `performance.now()` has it, and no more at the time that was set before. Never goes off at infinity. */
  set(at: number): void {
    if (at === this.#at) return
    clearTimeout(this.#timer)
    this.#at = at
    if (at === Number.POSITIVE_INFINITY) return
    // A timer may be early by a part of a millisecond.
    const delay = Math.max(1, Math.ceil(at - performance.now()))
    this.#timer = setTimeout(() => {
      this.#at = Number.POSITIVE_INFINITY
      this.#onTime()
    }, delay).unref()
  }

  clear(): void {
    this.set(Number.POSITIVE_INFINITY)
  }
}
