import { Transform } from 'node:stream'
import { parse } from 'bytes'
import { invalidOption } from './options.js'

/** A speed in bytes per second: a number, or a text such as `'100kb'` or `'1.5mb'`, of which a kb is 1,024 bytes. */
export type Rate = number | string

/** Understands a rate. */
export function parseRate(name: string, value: unknown): number | undefined {
  if (value === undefined) return undefined
  // The library takes a unit that it does not know for bytes.
  const isKnown = typeof value === 'number' || /^\d+(\.\d+)? ?(b|kb|mb|gb)?$/i.test(String(value))
  const rate = isKnown ? parse(value as string) : null
  if (rate === null || !(rate >= 1) || rate > Number.MAX_SAFE_INTEGER) {
    throw invalidOption(
      name,
      "bytes per second, such as '100kb', '1.5mb' or 65536 (b, kb, mb and gb are known)",
      value,
    )
  }
  return rate
}

/** Slices of a second in which bytes are let through: finer ones cost more turns of the event loop. */
const SLICES = 20

/** Who stands in line for so many bytes. */
export interface Waiting {
  bytes: number
  onTurn(): void
}

/**
 * A token bucket for any number of streams, which take turns. It saves what one second brings, or less, and is empty when the
 * first byte comes.
 */
export class Throttle {
  readonly #rate: number
  readonly #slice: number
  readonly #saved: number
  readonly #waiting: Waiting[] = []
  #tokens = 0
  /** When tokens were last added. */
  #filled: number | undefined
  /** Whether the line is being served, or a timer will. */
  #isBusy = false
  /** Until the first in line can be paid for. */
  #timer: NodeJS.Timeout | undefined

  /** `rate` is in bytes per second. `saves` is how much of what nobody uses is kept for later: that of a second, or next to nothing. */
  constructor(rate: number, saves: 'second' | 'slice' = 'second') {
    this.#rate = rate
    this.#slice = Math.max(1, Math.ceil(rate / SLICES))
    this.#saved = saves === 'second' ? rate : this.#slice
  }

  /** How many of so many bytes one turn may take, so that others get theirs. */
  portion(bytes: number): number {
    return Math.min(bytes, this.#slice)
  }

  /** What one stream passes through. */
  stage(): Transform {
    let waiting: Waiting | undefined
    const stage: Transform = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        const pass = (at: number) => {
          const bytes = this.portion(chunk.length - at)
          if (bytes === 0) return done()
          waiting = {
            bytes,
            onTurn() {
              stage.push(chunk.subarray(at, at + bytes))
              pass(at + bytes)
            },
          }
          this.wait(waiting)
        }
        pass(0)
      },
      destroy: (error, done) => {
        if (waiting) this.leave(waiting)
        done(error)
      },
    })
    return stage
  }

  /** Whether so many bytes may pass now, for what is rather dropped than kept. What is too much is paid back later. */
  allows(bytes: number): boolean {
    this.#fill()
    if (this.#tokens < 0) return false
    this.#tokens -= bytes
    return true
  }

  /** Gives it its turn when that has come, which may be at once. */
  wait(waiting: Waiting): void {
    this.#waiting.push(waiting)
    if (this.#isBusy) return
    this.#fill()
    this.#serve()
  }

  /** Its turn is nothing to it any more. */
  leave(waiting: Waiting): void {
    const at = this.#waiting.indexOf(waiting)
    if (at < 0) return
    this.#waiting.splice(at, 1)
    // Who comes first now may want less.
    if (at === 0 && this.#timer) this.#timerOnEnd()
  }

  /** Lets through who can be paid for, in turn, and comes back for the next when it can. */
  #serve(): void {
    this.#isBusy = true
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      if (next.bytes > this.#tokens) {
        const delay = ((next.bytes - this.#tokens) / this.#rate) * 1_000
        this.#timer = setTimeout(() => this.#timerOnEnd(), Math.ceil(delay)).unref()
        return
      }
      this.#waiting.shift()
      this.#tokens -= next.bytes
      // This may put the stream at the end of the line again.
      next.onTurn()
    }
    this.#isBusy = false
  }

  #timerOnEnd(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    // By how much a timer is late is not lost to those in line, however little is saved up otherwise.
    this.#fill(Math.max(this.#rate, this.#waiting[0]?.bytes ?? 0))
    this.#serve()
  }

  #fill(most = this.#saved): void {
    const now = performance.now()
    const seconds = (now - (this.#filled ?? now)) / 1_000
    this.#tokens = Math.min(most, this.#tokens + seconds * this.#rate)
    this.#filled = now
  }
}
