import type { Rejection } from './connection.js'
import { Emitter } from './emitter.js'
import type { Tunnel } from './tunnel.js'

/** Most that are kept of either kind; one more drops the oldest. */
const MAX_KEPT = 1_000

/** A visitor that was turned away. */
export interface RecordedRejection extends Rejection {
  readonly at: Date
}

interface RejectionsEvents {
  /** A visitor was turned away. */
  change: [rejection: RecordedRejection]
  /** It had to make room. */
  drop: [rejection: RecordedRejection]
}

/** What went wrong with the visitors of a tunnel, and left no request that tells of it. */
export class Rejections extends Emitter<RejectionsEvents> {
  /** By exchange id, the oldest first. */
  readonly #rejected = new Map<string, RecordedRejection>()
  /** Why connections broke, by exchange id. */
  readonly #reasons = new Map<string, string>()

  constructor(tunnel: Pick<Tunnel, 'on'>) {
    super()
    tunnel.on('reject', (rejection) => this.#add({ ...rejection, at: new Date() }))
    tunnel.on('connection', async ({ id, closed }) => {
      const { error } = await closed
      if (!error) return
      this.#reasons.set(id, error.message)
      makeRoom(this.#reasons)
    })
  }

  get all(): RecordedRejection[] {
    return [...this.#rejected.values()]
  }

  /** Why the connection of that exchange id broke, where it did. */
  reasonOf(connection: string): string | undefined {
    return this.#reasons.get(connection)
  }

  clear(): void {
    this.#rejected.clear()
  }

  #add(rejection: RecordedRejection): void {
    this.#rejected.set(rejection.id, rejection)
    const dropped = makeRoom(this.#rejected)
    if (dropped) this.tell('drop', dropped)
    this.tell('change', rejection)
  }
}

/** Drops the oldest, where there are too many, and gives it back. */
function makeRoom<Kept>(kept: Map<string, Kept>): Kept | undefined {
  const [oldest] = kept
  if (!oldest || kept.size <= MAX_KEPT) return undefined
  kept.delete(oldest[0])
  return oldest[1]
}
