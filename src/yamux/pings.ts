import { YamuxError } from './errors.js'
import { Flag, type Header, MAX_UINT32, Type } from './frame.js'

/** How old the last measurement is when it is worth another ping, in milliseconds. */
const MEASURE_INTERVAL = 1_000

interface Waiting {
  sentAt: number
  onAnswer?(roundTrip: number): void
  onEnd?(reason: Error): void
}

/** Pings that wait for their answers, and what they told. */
export class Pings {
  readonly #send: (frame: Header) => void
  readonly #waiting = new Map<number, Waiting>()
  #next = 0
  #measuredAt = Number.NEGATIVE_INFINITY
  #roundTrip: number | undefined

  constructor(send: (frame: Header) => void) {
    this.#send = send
  }

  /**
   * The shortest round trip so far, in milliseconds. Longer ones have waited behind data, and windows
   * that grow by them would only let more data wait.
   */
  get roundTrip(): number | undefined {
    return this.#roundTrip
  }

  /** Resolves with the round trip. Rejects when the time is up, or the session ends. */
  ping(timeout: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const id = this.#ask({
        onAnswer(roundTrip) {
          clearTimeout(timer)
          resolve(roundTrip)
        },
        onEnd(reason) {
          clearTimeout(timer)
          reject(reason)
        },
      })
      const timer = setTimeout(() => {
        this.#waiting.delete(id)
        reject(new YamuxError('timeout', `the peer did not answer a ping within ${timeout} ms`))
      }, timeout).unref()
    })
  }

  /** Asks for another measurement where the last one is not fresh. */
  measure(): void {
    const now = performance.now()
    if (now - this.#measuredAt < MEASURE_INTERVAL) return
    this.#measuredAt = now
    this.#ask({})
  }

  /** An answer has come. One that nobody waits for came too late. */
  answered(id: number): void {
    const waiting = this.#waiting.get(id)
    if (!waiting) return
    this.#waiting.delete(id)
    const roundTrip = performance.now() - waiting.sentAt
    this.#roundTrip = Math.min(this.#roundTrip ?? roundTrip, roundTrip)
    waiting.onAnswer?.(roundTrip)
  }

  end(reason: Error): void {
    for (const waiting of this.#waiting.values()) waiting.onEnd?.(reason)
    this.#waiting.clear()
  }

  #ask(handlers: Omit<Waiting, 'sentAt'>): number {
    const id = this.#next
    this.#next = (id + 1) % MAX_UINT32
    this.#waiting.set(id, { sentAt: performance.now(), ...handlers })
    this.#send({ type: Type.ping, flags: Flag.syn, id: 0, length: id })
    return id
  }
}
