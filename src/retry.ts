import pRetry from 'p-retry'
import { TunnelError, type TunnelErrorCode } from './errors.js'

/** What waiting may heal; anything else is the same at the next attempt. */
const passing = new Set<TunnelErrorCode>([
  'address-unavailable',
  'caddy-unreachable',
  'connection-lost',
  'hostname-taken',
  'limit-reached',
  'path-taken',
  'port-taken',
  'ports-exhausted',
  'server-closed',
  'server-unreachable',
  'timeout',
  'url-unreachable',
])

/** Whether another attempt may succeed. */
export function mayPass(error: unknown): boolean {
  return error instanceof TunnelError && passing.has(error.code)
}

/**
 * Milliseconds before the second attempt, and the most before a later one: they double, each is up to twice as long by chance,
 * and a server that is back is found within the last.
 */
const FIRST_DELAY = 100
const LONGEST_DELAY = 500

export interface RetryOptions {
  /** Most attempts. */
  attempts: number
  /** Gives up, also while waiting. */
  signal: AbortSignal
  /** Lets the process end while waiting. */
  unref: boolean
}

/** Tries until it works, with growing delays. Rejects with the last error, one that can't pass, or the signal's reason. */
export function untilItWorks<T>(
  attempt: () => Promise<T>,
  { attempts, signal, unref }: RetryOptions,
): Promise<T> {
  return pRetry(attempt, {
    retries: attempts - 1,
    minTimeout: FIRST_DELAY,
    maxTimeout: LONGEST_DELAY,
    randomize: true,
    signal,
    unref,
    shouldRetry: ({ error }) => mayPass(error),
  })
}
