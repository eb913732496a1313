/** Told of datagrams that were dropped, and why. */
export type OnDrop = (count: number, reason: string) => void

/** Datagrams that were dropped, as events show them. */
export interface Drop {
  /** How many since the last such event. */
  readonly count: number
  /** Why the last of them was, for people. */
  readonly reason: string
}

/** Milliseconds between two events of drops. */
const INTERVAL = 1_000

/** Gives back what counts each drop, and tells of them: of the first at once, and of those after it once a second. */
export function gatherDrops(tally: { drops: number }, tell: (drop: Drop) => void): OnDrop {
  let count = 0
  let reason = ''
  let timer: NodeJS.Timeout | undefined

  return (more, why) => {
    count += more
    tally.drops += more
    reason = why
    if (!timer) flush()
  }

  function flush() {
    timer = undefined
    if (count === 0) return
    tell({ count, reason })
    count = 0
    timer = setTimeout(flush, INTERVAL).unref()
  }
}
