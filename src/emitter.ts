import { EventEmitter } from 'node:events'

/** The listening half of an event emitter, typed: what users of a server or tunnel see. */
export interface Listenable<Events extends Record<keyof Events, unknown[]>> {
  /** Calls the listener at every event. */
  on<E extends keyof Events>(event: E, listener: (...args: Events[E]) => void): this
  /** Calls the listener at the next event. */
  once<E extends keyof Events>(event: E, listener: (...args: Events[E]) => void): this
  /** Removes a listener. */
  off<E extends keyof Events>(event: E, listener: (...args: Events[E]) => void): this
}

/** An emitter whose listeners can't break what they listen to. */
export class Emitter<Events extends Record<keyof Events, unknown[]>> implements Listenable<Events> {
  readonly #emitter = new EventEmitter()

  on<E extends keyof Events>(event: E, listener: (...args: Events[E]) => void): this {
    this.#emitter.on(event as string, listener as () => void)
    return this
  }

  once<E extends keyof Events>(event: E, listener: (...args: Events[E]) => void): this {
    this.#emitter.once(event as string, listener as () => void)
    return this
  }

  off<E extends keyof Events>(event: E, listener: (...args: Events[E]) => void): this {
    this.#emitter.off(event as string, listener as () => void)
    return this
  }

  /**
   * Calls the listeners. One that throws has a bug, which surfaces as an uncaught exception as with any
   * emitter, but after our own work and not in the middle of it.
   */
  protected emit<E extends keyof Events>(event: E, ...args: Events[E]): void {
    try {
      this.#emitter.emit(event as string, ...args)
    } catch (error) {
      process.nextTick(() => {
        throw error
      })
    }
  }
}
