/** What the run knows: what was sent and what came, what went wrong, what was done to it. */
import { bytesAt } from './random.js'

/** How long after a recovery an error may still be an echo of the fault, in milliseconds. */
const ECHO = 500
/** How long a fault and the recovery from it may take, in milliseconds. */
const LONGEST_FAULT = 60_000
/** Failures that are told in full; more are only counted. */
const MAX_TOLD = 20

export class Ledger {
  /** The faults that cut connections, those that may only delay them, and who they met, in order. */
  #faults = []
  #counts = new Map()
  #failures = new Map()
  /** Milliseconds by kind of fault. */
  recoveries = new Map()
  /** Milliseconds of requests that met no fault. */
  latencies = []
  /** Talks that are going on, by number. */
  talks = new Map()
  #lastNumber = 0

  count(name, more = 1) {
    this.#counts.set(name, this.counted(name) + more)
  }

  counted(name) {
    return this.#counts.get(name) ?? 0
  }

  countsBelow(prefix) {
    return [...this.#counts]
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, count]) => [name.slice(prefix.length), count])
  }

  fail(what, detail = '') {
    const known = this.#failures.get(what)
    if (known) known.count++
    else this.#failures.set(what, { count: 1, detail, at: performance.now() })
  }

  get failures() {
    return [...this.#failures.values()].reduce((sum, { count }) => sum + count, 0)
  }

  *tellFailures(start) {
    for (const [what, { count, detail, at }] of [...this.#failures].slice(0, MAX_TOLD)) {
      const times = count > 1 ? `${count} times, ` : ''
      yield `${what} (${times}first at ${((at - start) / 1_000).toFixed(1)} s)${detail && `: ${detail}`}`
    }
    if (this.#failures.size > MAX_TOLD) yield `and ${this.#failures.size - MAX_TOLD} other kinds of failure`
  }

  /** A fault begins. Ends with what it gives back. */
  begin({ kind, slots, cuts, kills }) {
    const fault = { kind, slots, cuts, kills, until: Number.POSITIVE_INFINITY }
    this.#faults.push(fault)
    return () => {
      fault.until = performance.now() + ECHO
    }
  }

  /** The faults that this slot has met since then. */
  met(slot, since) {
    const met = []
    for (let i = this.#faults.length - 1; i >= 0 && this.#faults[i].until >= since - LONGEST_FAULT; i--) {
      const fault = this.#faults[i]
      if (fault.slots.includes(slot) && fault.until >= since) met.push(fault)
    }
    return met
  }

  recovered(kind, milliseconds) {
    if (!this.recoveries.has(kind)) this.recoveries.set(kind, [])
    this.recoveries.get(kind).push(milliseconds)
  }

  newNumber() {
    return ++this.#lastNumber
  }

  /** A talk over one connection, of which both ends look up here what the other has sent. */
  open({ slot, seed, plan }) {
    const number = this.newNumber()
    const talk = {
      number,
      slot,
      ...plan,
      opened: performance.now(),
      /** From visitor to target, and back. */
      up: new Lane(seed ^ number),
      down: new Lane(~seed ^ number),
    }
    this.talks.set(number, talk)
    return talk
  }
}

/** One direction of a connection. */
class Lane {
  #seed
  sent = 0
  received = 0
  /** When anything came last. */
  heard = performance.now()
  /** What was sent in all, once that is known. */
  total

  constructor(seed) {
    this.#seed = seed
  }

  /** The next bytes to send. */
  take(length) {
    const bytes = bytesAt(this.#seed, this.sent, length)
    this.sent += length
    return bytes
  }

  /** All was sent. */
  finish() {
    this.total = this.sent
  }

  /** Whether these are the bytes that come next, and whether they were sent at all. */
  accepts(bytes) {
    const wanted = bytesAt(this.#seed, this.received, bytes.length)
    this.received += bytes.length
    this.heard = performance.now()
    return this.received <= this.sent && wanted.equals(bytes)
  }

  get isWhole() {
    return this.received === this.total
  }
}
