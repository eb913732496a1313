import { TunnelError } from './errors.js'

/** Answers that a client may have saved up; more than ever wait for one. */
const MAX_ANSWERS = 65_536

/**
 * How fast a client may send messages: so many a second, and as many at once after a second of silence. One answer to
 * each exchange is free, whenever it comes: a client whose target is down rejects every visitor, and how many
 * come is not up to it.
 */
export class MessageRate {
  readonly #perSecond: number
  #left: number
  #answers = 0
  #last = performance.now()

  constructor(perSecond: number) {
    this.#perSecond = perSecond
    this.#left = perSecond
  }

  /** The client was told of a visitor. */
  expectAnswer(): void {
    this.#answers = Math.min(MAX_ANSWERS, this.#answers + 1)
  }

  /** A message of this type has come. Throws `limit-reached` where it is one too many. */
  count(type: string): void {
    if (type === 'reject' && this.#answers > 0) {
      this.#answers--
      return
    }
    const now = performance.now()
    this.#left = Math.min(this.#perSecond, this.#left + ((now - this.#last) / 1_000) * this.#perSecond)
    this.#last = now
    if (this.#left < 1) {
      throw new TunnelError(
        'limit-reached',
        `the client sent more than ${this.#perSecond} messages a second: send fewer, or raise limits.messages of createServer`,
      )
    }
    this.#left--
  }
}
