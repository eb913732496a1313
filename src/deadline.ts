import { type EventEmitter, setMaxListeners } from 'node:events'
import { pEvent } from 'p-event'
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
    // One signal may serve any number of operations; Node would warn of more than ten.
    setMaxListeners(0, signal)
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

/** Runs `onAbort` with the reason when the signal aborts, until disposed of. */
export function whenAborted(signal: AbortSignal, onAbort: (reason: TunnelError) => void): () => void {
  const listener = () => onAbort(signal.reason)
  if (signal.aborted) listener()
  else signal.addEventListener('abort', listener, { once: true })
  return () => signal.removeEventListener('abort', listener)
}

/** Settles as the promise does, or rejects with the signal's reason. */
export function untilAborted<T>(promise: Promise<T>, aborted: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const forget = whenAborted(aborted, reject)
    promise.then(resolve, reject).finally(forget)
  })
}

/**
 * Resolves with the event, or one of them. Rejects with one of `rejectionEvents`, or with the signal's reason; nothing stays behind on
 * the signal, which may serve many waits.
 */
export async function waitForEvent(
  emitter: EventEmitter,
  event: string | readonly string[],
  aborted: AbortSignal | undefined,
  rejectionEvents = ['error'],
): Promise<void> {
  const controller = new AbortController()
  const { signal } = controller
  const forget = aborted && whenAborted(aborted, (reason) => controller.abort(reason))
  try {
    await pEvent(emitter, event, { rejectionEvents, signal })
  } finally {
    forget?.()
  }
}
