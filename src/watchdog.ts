/** Looks that a watchdog takes at its peer before it gives up. */
const LOOKS = 4

export interface Watchdog {
  /** The peer was heard. */
  heard(): void
  stop(): void
}

/**
 * Calls `onSilence` once the peer has not been heard for `timeout` milliseconds, up to a quarter less. It counts looks instead of
 * reading a clock: a process that was itself suspended (a debugger, a closed laptop) finds one look overdue,
 * not its peer dead.
 */
export function startWatchdog(timeout: number, onSilence: () => void): Watchdog {
  let silent = 0
  const timer = setInterval(() => {
    silent++
    if (silent === LOOKS) onSilence()
  }, timeout / LOOKS).unref()
  return {
    heard() {
      silent = 0
    },
    stop() {
      clearInterval(timer)
    },
  }
}
