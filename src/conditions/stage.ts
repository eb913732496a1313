import { Duplex } from 'node:stream'
import { TunnelError } from '../errors.js'
import type { Waiting } from '../throttle.js'
import { Alarm } from './alarm.js'
import type { Chance } from './chance.js'
import { delayOf, HELD_COST, MAX_HELD, type Member, type Way } from './way.js'

type Done = (error?: Error | null) => void

/** Bytes that are on their way, or the end behind them. */
interface Held {
  bytes: Buffer | undefined
  /** When they came, and by how much of the jitter they are late or early. */
  at: number
  luck: number
}

/**
 * A stage of the relay that does to one direction of one visitor what the conditions say: bytes come in as fast as the bandwidth lets
 * them, are on their way for as long as the latency says, and are handed on in slices. The end of the direction is on its way as
 * long as they are. All come out whole and in order. It has one timer, and holds a bounded number of bytes.
 */
export class Stage extends Duplex implements Member {
  #way: Way
  readonly #chance: Chance
  readonly #onGone: () => void
  readonly #alarm = new Alarm(() => this.#advance())
  /** What waits to come in: until there is room, or for its turn. */
  #entering: { bytes: Buffer; done: Done } | undefined
  #turn: Waiting | undefined
  readonly #held: Held[] = []
  #cost = 0
  #isWanted = false
  #hasEnded = false
  /** Since when these conditions hold, how much they have let through, and until when the next slice waits. */
  #since = performance.now()
  #passed = 0
  #gapEnd = 0

  constructor(way: Way, chance: Chance, onGone: () => void) {
    super()
    this.#way = way
    this.#chance = chance
    this.#onGone = onGone
    this.#advance()
  }

  /** Other conditions hold from now on, also for what is on its way. */
  update(way: Way): void {
    this.#leaveLine()
    if (way !== this.#way) {
      this.#since = performance.now()
      this.#passed = 0
      this.#gapEnd = 0
    }
    this.#way = way
    this.#advance()
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#entering = { bytes, done }
    this.#enter()
  }

  override _final(done: Done): void {
    this.#hold(undefined)
    done()
  }

  override _read(): void {
    this.#isWanted = true
    this.#advance()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#alarm.clear()
    this.#leaveLine()
    this.#onGone()
    done(error)
  }

  /** Lets in what waits, as far as there is room and the bandwidth allows. */
  #enter(): void {
    if (!this.#entering || this.#turn || this.destroyed) return
    const { throttle, isStill } = this.#way
    const { length } = this.#entering.bytes
    const isFull = isStill || this.#cost >= MAX_HELD
    if (isFull && !this.#hasEnded) return
    if (!throttle || this.#hasEnded) {
      this.#let(length)
      return
    }
    const bytes = throttle.portion(length)
    const onTurn = () => {
      this.#turn = undefined
      this.#let(bytes)
    }
    this.#turn = { bytes, onTurn }
    throttle.wait(this.#turn)
  }

  #leaveLine(): void {
    if (this.#turn) this.#way.throttle?.leave(this.#turn)
    this.#turn = undefined
  }

  /** Lets in so many bytes of what waits. */
  #let(count: number): void {
    const { bytes, done } = this.#entering as { bytes: Buffer; done: Done }
    const rest = bytes.subarray(count)
    this.#entering = rest.length > 0 ? { bytes: rest, done } : undefined
    this.#hold(bytes.subarray(0, count))
    if (rest.length === 0) done()
    else this.#enter()
  }

  #hold(bytes: Buffer | undefined): void {
    if (this.#hasEnded) return
    this.#held.push({ bytes, at: performance.now(), luck: this.#chance() * 2 - 1 })
    this.#cost += HELD_COST + (bytes?.length ?? 0)
    this.#advance()
  }

  /** Hands on what has been on its way for long enough, and comes back for the next when that has. */
  #advance(): void {
    const closeAt = this.#since + (this.#way.closeAfter ?? Number.POSITIVE_INFINITY)
    if (closeAt <= performance.now()) this.#end()
    let next = closeAt
    while (this.#isWanted && !this.#way.isStill && !this.#hasEnded && !this.destroyed) {
      const due = this.#nextDue()
      if (due > performance.now()) {
        next = Math.min(closeAt, due)
        break
      }
      this.#pass()
    }
    if (this.#hasEnded || this.destroyed) return
    this.#alarm.set(next)
    this.#enter()
  }

  /** When there is something to do next. */
  #nextDue(): number {
    // What was handed on last is still to be taken: a reset would throw it away.
    if (this.#mayPass === 0) return this.readableLength > 0 ? performance.now() + 1 : 0
    const [head] = this.#held
    return head ? Math.max(head.at + delayOf(this.#way, head.luck), this.#gapEnd) : Number.POSITIVE_INFINITY
  }

  /** Bytes until the reset. */
  get #mayPass(): number {
    return Math.max(0, (this.#way.resetAfter ?? Number.POSITIVE_INFINITY) - this.#passed)
  }

  #pass(): void {
    const most = this.#mayPass
    const [head] = this.#held
    if (most === 0) {
      const why = `the conditions of the tunnel reset it after ${this.#passed} bytes`
      this.destroy(new TunnelError('broken-on-purpose', why))
    } else if (!head?.bytes) {
      this.#end()
    } else {
      const { slice } = this.#way
      const bytes = head.bytes.subarray(0, Math.min(slice?.size ?? most, most))
      head.bytes = head.bytes.subarray(bytes.length)
      this.#cost -= bytes.length
      this.#passed += bytes.length
      if (slice) this.#gapEnd = performance.now() + slice.gap
      if (head.bytes.length === 0) {
        this.#held.shift()
        this.#cost -= HELD_COST
      }
      this.#isWanted = this.push(bytes)
    }
  }

  /** Ends the direction. What comes from now on is lost. */
  #end(): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#alarm.clear()
    this.#leaveLine()
    this.#held.length = 0
    this.push(null)
    this.#enter()
  }
}
