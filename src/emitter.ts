import { EventEmitter } from 'node:events'

/** An emitter whose listeners can't break what they listen to. It has no event named `error`. */
export class Emitter<Events extends Record<keyof Events, unknown[]>> extends EventEmitter<Events> {
  /**
   * Calls the listeners. One that throws has a bug, which surfaces as an uncaught exception as with any
   * emitter, but behind our own work and not in the middle of it.
   */
  protected tell<E extends keyof Events & string>(event: E, ...args: Events[E]): void {
    try {
      ;(this as EventEmitter).emit(event, ...args)
    } catch (error) {
      process.nextTick(() => {
        throw error
      })
    }
  }
}
