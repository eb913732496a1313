import { type EventEmitter, setMaxListeners } from 'node:events'
import { TunnelError } from './errors.js'
import { checkSignal, checkTimeout } from './options.js'

/** What every operation that waits can be given. */
export interface WaitOptions {
  /** Milliseconds until the operation is given up with `timeout`. */
  timeout?: number
  /** Gives the operation up with `aborted`. It has no effect once the operation is done. */
  signal?: AbortSignal
}

/**
 * Runs `work` with a signal that aborts, with the error to reject with, when the time is up or the caller's
 * own signal aborts. `doing` completes the sentence «… took longer than …».
 */
export async function withDeadline<T>(
  doing: string,
  { timeout, signal, unref = false }: { timeout: number; signal?: AbortSignal; unref?: boolean },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  checkTimeout('timeout', timeout)
  checkSignal('signal', signal)
  const controller = new AbortController()
  const timer = setTimeout(timerOnTimeout, timeout)
  if (unref) timer.unref()
  if (signal) {
    allowMany(signal)
    signal.addEventListener('abort', signalOnAbort)
  }
  if (signal?.aborted) signalOnAbort()
  try {
    controller.signal.throwIfAborted()
    return await work(controller.signal)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', signalOnAbort)
  }

  function timerOnTimeout() {
    controller.abort(new TunnelError('timeout', `${doing} took longer than ${timeout} ms`))
  }

  function signalOnAbort() {
    controller.abort(new TunnelError('aborted', `${doing} was aborted`, { cause: signal?.reason }))
  }
}

/** What gives a wait up: an `AbortSignal`, or a {@link Deadline}. */
export interface Aborted {
  readonly aborted: boolean
  /** Why, once it is aborted. */
  readonly reason: unknown
  throwIfAborted(): void
  addEventListener(event: 'abort', listener: () => void, options?: { once: true }): void
  removeEventListener(event: 'abort', listener: () => void): void
}

/**
 * Gives waits up when its time is over, or before. It is for what each visitor needs: to make an `AbortSignal` and to listen
 * to it takes some 15 µs.
 */
export class Deadline implements Aborted {
  readonly #timer: NodeJS.Timeout
  readonly #listeners = new Set<() => void>()
  #reason: Error | undefined

  constructor(timeout: number, tooLate: () => Error) {
    this.#timer = setTimeout(() => this.abort(tooLate()), timeout).unref()
  }

  get aborted(): boolean {
    return this.#reason !== undefined
  }

  get reason(): Error | undefined {
    return this.#reason
  }

  throwIfAborted(): void {
    if (this.#reason) throw this.#reason
  }

  addEventListener(_event: 'abort', listener: () => void): void {
    this.#listeners.add(listener)
  }

  removeEventListener(_event: 'abort', listener: () => void): void {
    this.#listeners.delete(listener)
  }

  abort(reason: Error): void {
    if (this.#reason) return
    this.#reason = reason
    for (const listener of this.#listeners) listener()
  }

  /** What it was for is done. */
  stop(): void {
    clearTimeout(this.#timer)
  }
}

/** Runs `onAbort` with the reason when the wait is given up. Gives back what makes it forget that. */
export function whenAborted(aborted: Aborted, onAbort: (reason: TunnelError) => void): () => void {
  allowMany(aborted)
  const listener = () => onAbort(aborted.reason as TunnelError)
  if (aborted.aborted) listener()
  else aborted.addEventListener('abort', listener, { once: true })
  return () => aborted.removeEventListener('abort', listener)
}

/** One signal may serve any number of operations; Node would warn of more than ten. */
function allowMany(aborted: Aborted): void {
  if (aborted instanceof AbortSignal) setMaxListeners(0, aborted)
}

/** Settles as the promise does, or rejects with the reason why it was given up. */
export function untilAborted<T>(promise: Promise<T>, aborted: Aborted): Promise<T> {
  return new Promise((resolve, reject) => {
    const forget = whenAborted(aborted, reject)
    promise.then(resolve, reject).finally(forget)
  })
}

/**
 * Resolves with the event, or one of them. Rejects with one of `rejectionEvents`, or with the reason why it was given up; nothing stays
 * behind on either, as both may serve many waits.
 */
export function waitForEvent(
  emitter: EventEmitter,
  events: readonly string[],
  aborted?: Aborted,
  rejectionEvents: readonly string[] = ['error'],
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (aborted?.aborted) return reject(aborted.reason)
    const emitterOnEvent = () => {
      stop()
      resolve()
    }
    const emitterOnRejection = (reason?: unknown) => {
      stop()
      reject(reason)
    }
    const waitOnAbort = () => emitterOnRejection(aborted?.reason)
    for (const event of events) emitter.on(event, emitterOnEvent)
    for (const event of rejectionEvents) emitter.on(event, emitterOnRejection)
    aborted?.addEventListener('abort', waitOnAbort)

    function stop() {
      for (const event of events) emitter.off(event, emitterOnEvent)
      for (const event of rejectionEvents) emitter.off(event, emitterOnRejection)
      aborted?.removeEventListener('abort', waitOnAbort)
    }
  })
}
