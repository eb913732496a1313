import { Throttle } from '../throttle.js'
import type { CheckedDirection } from './options.js'

/** Most bytes that are on their way in one direction of one visitor; no more are taken then. */
export const MAX_HELD = 16_777_216
/** What a chunk or a datagram takes beside its bytes: small ones are not free. */
export const HELD_COST = 256

/** What holds in one direction of a tunnel, until other conditions do. */
export interface Way extends CheckedDirection {
  /** Nothing flows. */
  isStill: boolean
  /** What all visitors share the bandwidth with. */
  throttle: Throttle | undefined
}

/** What is told of other conditions. */
export interface Member {
  update(way: Way): void
}

export function makeWay(conditions: CheckedDirection): Way {
  const { bandwidth, stall } = conditions
  return { ...conditions, isStill: stall, throttle: bandwidth ? new Throttle(bandwidth, 'slice') : undefined }
}

/** Milliseconds on the way. `luck` is from -1 to 1. */
export function delayOf({ latency, jitter }: Way, luck: number): number {
  return Math.max(0, latency + jitter * luck)
}
