import { closeSync, openSync } from 'node:fs'
import { isSystemError, TunnelError } from './errors.js'

/** Descriptors that are left to the rest of the process. */
const SPARE = 4

/** What a visitor takes: two sockets. */
const PER_VISITOR = 2

/** Visitors that one look is for, at most. */
const MAX_LOOK = 32

/** How long a look holds good, in milliseconds: the rest of the process opens files too. */
const MAX_AGE = 100

/**
 * Descriptors that are kept open for sockets to come, so that one visitor does not take what another needs to be joined: with
 * none left, each would have half of its sockets.
 *
 * Nor do visitors ever take the last one. A process that has none accepts connections and closes them unseen (libuv does): whoever came
 * takes that for the end of an empty answer. Once another thread has taken the one that libuv keeps for this, it
 * tries to accept for ever, and takes a whole core for it.
 *
 * Nothing in Node tells how many are left, so files are opened to see. One look is for several visitors where they come fast:
 * for twice as many as the one before. Those who have left since make room for others.
 */
class Reserve {
  readonly #kept: number[] = []
  /** Visitors of whom a socket is still to come. */
  #waiting = 0
  /** Visitors who have theirs. */
  #inside = 0
  /** The last look: when it was, how many visitors there may be by that, and for how many the next will be. */
  #looked = { at: Number.NEGATIVE_INFINITY, upTo: 0, next: 1 }

  /** A visitor has come, and waits for another socket. Gives back a `limit-reached` where the process can't have it. */
  keep(): TunnelError | undefined {
    const { at, upTo } = this.#looked
    const isKnown = this.#waiting + this.#inside < upTo && performance.now() - at < MAX_AGE
    const error = isKnown ? undefined : this.#look()
    if (!error) this.#waiting++
    return error
  }

  /** A socket comes: makes room for it. */
  spend(): void {
    const descriptor = this.#kept.pop()
    if (descriptor !== undefined) closeSync(descriptor)
  }

  /** A visitor waits no more: the socket has come, or will not. */
  release(): void {
    this.#waiting--
    this.#giveBack(this.#waiting)
  }

  /** A visitor is inside. */
  enter(): void {
    this.#inside++
  }

  leave(): void {
    this.#inside--
  }

  /** Sees for how many more there is room, and keeps what those have been promised who wait. */
  #look(): TunnelError | undefined {
    const at = performance.now()
    let room = at - this.#looked.at < MAX_AGE ? this.#looked.next : 1
    let next = Math.min(2 * room, MAX_LOOK)
    let cause: unknown
    try {
      const wanted = this.#waiting + PER_VISITOR * room + SPARE
      while (this.#kept.length < wanted) this.#kept.push(openSync('/dev/null', 'r'))
    } catch (error) {
      // Where there is no such file, as on Windows, there is no such limit either.
      if (isSystemError(error, 'EMFILE') || isSystemError(error, 'ENFILE')) {
        cause = error
        const found = this.#kept.length - this.#waiting - SPARE
        room = Math.max(0, Math.floor(found / PER_VISITOR))
        // Where there are few, nobody else of the process should find none while it is looked for many.
        next = 1
      }
    }
    this.#giveBack(this.#waiting + Math.min(room, 1))
    this.#looked = { at, upTo: this.#waiting + this.#inside + room, next }
    if (room > 0) return undefined
    const message = 'this process may open hardly any more files and sockets: raise its limit (ulimit -n)'
    return new TunnelError('limit-reached', message, { cause })
  }

  #giveBack(wanted: number): void {
    while (this.#kept.length > wanted) this.spend()
  }
}

/** That of this process. */
export const reserve = new Reserve()
