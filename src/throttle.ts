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

interface Waiting {
  stage: Transform
  bytes: number
  onTurn(): void
}

/**
 * A token bucket for any number of streams, which take turns. It holds what one second brings, and is empty when the
 * first byte comes.
 */
export class Throttle {
  readonly #rate: number
  readonly #slice: number
  readonly #waiting: Waiting[] = []
  #tokens = 0
  /** When tokens were last added. */
  #filled: number | undefined
  /** Whether the line is being served, or a timer will. */
  #isBusy = false

  /** `rate` is in bytes per second. */
  constructor(rate: number) {
    this.#rate = rate
    this.#slice = Math.max(1, Math.ceil(rate / SLICES))
  }

  /** What one stream passes through. */
  stage(): Transform {
    const stage: Transform = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        const pass = (at: number) => {
          const bytes = Math.min(chunk.length - at, this.#slice)
          if (bytes === 0) return done()
          this.#wait({
            stage,
            bytes,
            onTurn() {
              stage.push(chunk.subarray(at, at + bytes))
              pass(at + bytes)
            },
          })
        }
        pass(0)
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

  #wait(waiting: Waiting): void {
    this.#waiting.push(waiting)
    if (!this.#isBusy) this.#serve()
  }

  /** Lets through who can be paid for, in turn, and comes back for the next when it can. */
  #serve(): void {
    this.#isBusy = true
    this.#fill()
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      if (!next.stage.destroyed && next.bytes > this.#tokens) {
        const delay = ((next.bytes - this.#tokens) / this.#rate) * 1_000
        setTimeout(() => this.#serve(), Math.ceil(delay)).unref()
        return
      }
      this.#waiting.shift()
      if (next.stage.destroyed) continue
      this.#tokens -= next.bytes
      // This may put the stream at the end of the line again.
      next.onTurn()
    }
    this.#isBusy = false
  }

  #fill(): void {
    const now = performance.now()
    const seconds = (now - (this.#filled ?? now)) / 1_000
    this.#tokens = Math.min(this.#rate, this.#tokens + seconds * this.#rate)
    this.#filled = now
  }
}
