import { YamuxError } from './errors.js'
import { Flag, type Header, MAX_UINT32, Type } from './frame.js'

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
  #isMeasuring = false
  #roundTrip: number | undefined
  #answers = 0
  #answeredAt = Number.NEGATIVE_INFINITY

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

  /** How many were answered, and when the last one was. */
  get answers(): number {
    return this.#answers
  }
  get answeredAt(): number {
    return this.#answeredAt
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

  /** Sends a ping that nobody waits for, unless one is under way. */
  measure(): void {
    if (this.#isMeasuring) return
    this.#isMeasuring = true
    this.#ask({
      onAnswer: () => {
        this.#isMeasuring = false
      },
    })
  }

  /** An answer has come. One that nobody waits for came too late. */
  answered(id: number): void {
    const waiting = this.#waiting.get(id)
    if (!waiting) return
    this.#waiting.delete(id)
    this.#answers++
    this.#answeredAt = performance.now()
    const roundTrip = this.#answeredAt - waiting.sentAt
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
