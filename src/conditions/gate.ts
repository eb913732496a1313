import type { OnDrop } from '../drops.js'
import type { Waiting } from '../throttle.js'
import { Alarm } from './alarm.js'
import type { Chance } from './chance.js'
import { delayOf, HELD_COST, MAX_HELD, type Member, type Way } from './way.js'

/** How long a datagram that the next one is to overtake waits for that, in milliseconds. */
const OVERTAKE_TIMEOUT = 100

export interface GateOptions {
  /** Takes a datagram at the end of its way. */
  onPass(datagram: Buffer): void
  onDrop: OnDrop
  onGone(): void
}

interface Held {
  datagram: Buffer
  at: number
  luck: number
  /** The next one is to overtake it. */
  isLate: boolean
}

/**
 * Does to the datagrams of one direction of one flow what the conditions say. Those that the bandwidth holds back wait, as in front
 * of a slow link, for about a second at the most. It has one timer, and holds a bounded number of bytes.
 */
export class Gate implements Member {
  #way: Way
  readonly #chance: Chance
  readonly #options: GateOptions
  readonly #alarm = new Alarm(() => this.#advance())
  /** Those that wait for their turn to be sent, and those that are on their way. */
  readonly #line: Held[] = []
  readonly #held: Held[] = []
  #turn: Waiting | undefined
  #lineBytes = 0
  #cost = 0
  #isGone = false

  constructor(way: Way, chance: Chance, options: GateOptions) {
    this.#way = way
    this.#chance = chance
    this.#options = options
  }

  /** Other conditions hold from now on, also for those on their way. */
  update(way: Way): void {
    this.#leaveLine()
    this.#way = way
    this.#send()
    this.#advance()
  }

  /** A datagram has come. */
  pass(datagram: Buffer): void {
    const { dropRate, duplicateRate, reorderRate } = this.#way
    // As many for each, so that one condition does not change what another does.
    const [drop, duplicate, reorder, luck] = [this.#chance(), this.#chance(), this.#chance(), this.#chance()]
    if (drop < dropRate) {
      this.#options.onDrop(1, 'the conditions of the tunnel say so')
      return
    }
    const held = { datagram, at: 0, luck: luck * 2 - 1, isLate: reorder < reorderRate }
    this.#take(held)
    if (duplicate < duplicateRate) this.#take({ ...held, isLate: false })
  }

  destroy(): void {
    this.#isGone = true
    this.#leaveLine()
    this.#alarm.clear()
    this.#options.onGone()
  }

  #take(held: Held): void {
    const { bandwidth = Number.POSITIVE_INFINITY } = this.#way
    if (this.#cost + held.datagram.length > MAX_HELD || this.#lineBytes > bandwidth) {
      this.#options.onDrop(1, 'they came faster than the conditions of the tunnel let them through')
      return
    }
    this.#cost += HELD_COST + held.datagram.length
    this.#lineBytes += held.datagram.length
    this.#line.push(held)
    this.#send()
  }

  /** Sends those in line as fast as the bandwidth lets them. */
  #send(): void {
    while (!this.#turn && !this.#isGone) {
      const [first] = this.#line
      const { throttle } = this.#way
      if (!first) return
      if (!throttle) {
        this.#sendFirst(first)
        continue
      }
      const onTurn = () => {
        this.#turn = undefined
        this.#sendFirst(first)
        this.#send()
      }
      this.#turn = { bytes: first.datagram.length, onTurn }
      throttle.wait(this.#turn)
    }
  }

  #leaveLine(): void {
    if (this.#turn) this.#way.throttle?.leave(this.#turn)
    this.#turn = undefined
  }

  #sendFirst(held: Held): void {
    this.#line.shift()
    this.#lineBytes -= held.datagram.length
    held.at = performance.now()
    const firstLate = held.isLate ? -1 : this.#firstLate()
    if (firstLate < 0) {
      this.#held.push(held)
    } else {
      for (const late of this.#held.slice(firstLate)) Object.assign(late, { at: held.at, isLate: false })
      this.#held.splice(firstLate, 0, held)
    }
    this.#advance()
  }

  /** Where those begin that wait at the end to be overtaken, or -1. */
  #firstLate(): number {
    let at = this.#held.length
    while (this.#held[at - 1]?.isLate) at--
    return at === this.#held.length ? -1 : at
  }

  /** Hands on those that have been on their way for long enough, and comes back for the next when that has. */
  #advance(): void {
    let next = Number.POSITIVE_INFINITY
    const now = performance.now()
    while (!this.#way.isStill && !this.#isGone) {
      const [head] = this.#held
      if (!head) break
      next = head.at + delayOf(this.#way, head.luck) + (head.isLate ? OVERTAKE_TIMEOUT : 0)
      if (next > now) break
      next = Number.POSITIVE_INFINITY
      this.#held.shift()
      this.#cost -= HELD_COST + head.datagram.length
      this.#options.onPass(head.datagram)
    }
    if (!this.#isGone) this.#alarm.set(next)
  }
}
