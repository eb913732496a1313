import { INITIAL_WINDOW } from './frame.js'
import type { Pings } from './pings.js'

/**
 * A window that is used up in fewer round trips than this holds its stream up. One that does is granted anew by halves, each of which
 * may have to wait for a round trip: then it takes two.
 */
const ROUND_TRIPS = 3

/** How many times as large it is then. Each step takes two round trips, and a short transfer should not be over before the last. */
const GROWTH = 4

/**
 * A link is near where a round trip takes less than this, in milliseconds. What holds a window up there is to wake both ends for each half of it. So its
 * round trip counts as this long, and windows grow to this size at the most: more would only wait in the buffers of the system.
 */
const NEAR = 1
const NEAR_WINDOW = 1_048_576

/** Pings that must be answered before any window grows. */
const MIN_ANSWERS = 2

/** What the windows of one session share. */
export class Windows {
  readonly maxWindow: number
  readonly #pings: Pings
  /** Bytes by which windows may still grow. */
  #growth: number

  constructor({ maxWindow, maxGrowth, pings }: { maxWindow: number; maxGrowth: number; pings: Pings }) {
    this.maxWindow = Math.max(maxWindow, INITIAL_WINDOW)
    this.#growth = maxGrowth
    this.#pings = pings
  }

  /** A window begins to be used up: by the time that it is, the round trip should be known. */
  measure(): void {
    this.#pings.measure()
  }

  /** A window of this size was used up since then: tells how much larger it should be. */
  growthFor(size: number, since: number): number {
    const { roundTrip, answers, answeredAt } = this.#pings
    // The first answer may tell of a peer that was busy to start, and windows never shrink. So each step is for an answer of its own.
    if (roundTrip === undefined || answers < MIN_ANSWERS || answeredAt < since) return 0
    if (performance.now() - since >= ROUND_TRIPS * Math.max(roundTrip, NEAR)) return 0
    const limit = roundTrip < NEAR ? Math.min(NEAR_WINDOW, this.maxWindow) : this.maxWindow
    const growth = Math.max(Math.min((GROWTH - 1) * size, limit - size, this.#growth), 0)
    this.#growth -= growth
    return growth
  }

  /** A window is gone that had grown so far. */
  giveBack(growth: number): void {
    this.#growth += growth
  }
}

/**
 * How much the peer may send on one stream. It begins with what the protocol says, and grows as long as it holds the stream
 * up: as much must be under way as the link takes within a round trip.
 */
export class ReceiveWindow {
  readonly #windows: Windows
  #size = INITIAL_WINDOW
  /** What the peer may send before it is granted more. */
  #left = INITIAL_WINDOW
  /** When the window was last looked at, at first when data first came, and what was granted anew since then. */
  #since = 0
  #granted = 0

  constructor(windows: Windows) {
    this.#windows = windows
  }

  allows(bytes: number): boolean {
    return bytes <= this.#left
  }

  received(bytes: number): void {
    if (this.#since === 0) this.#since = performance.now()
    this.#left -= bytes
  }

  /** Whether half of it is used up: there is something to grant, as soon as that is read. */
  get isLow(): boolean {
    return this.#left <= this.#size / 2
  }

  /** What to grant the peer now, where so many bytes were not read yet. Less than half of the window is not worth a frame. */
  grant(unread: number): number {
    if (this.#used(unread) < this.#size / 2) return 0
    if (this.#granted === 0) this.#windows.measure()
    this.#granted += this.#used(unread)
    if (this.#granted >= this.#size) this.#look()
    const bytes = this.#used(unread)
    this.#left += bytes
    return bytes
  }

  /** The stream is gone. */
  release(): void {
    this.#windows.giveBack(this.#size - INITIAL_WINDOW)
    this.#size = INITIAL_WINDOW
  }

  #used(unread: number): number {
    return this.#size - this.#left - unread
  }

  #look(): void {
    const since = this.#since
    this.#since = performance.now()
    this.#granted = 0
    this.#size += this.#windows.growthFor(this.#size, since)
  }
}
