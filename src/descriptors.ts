import { closeSync, openSync } from 'node:fs'
import { isSystemError, TunnelError } from './errors.js'

/** Descriptors that are left to the rest of the process. Each costs every visitor 5 µs. */
const SPARE = 4

/**
 * Descriptors that are kept open for sockets to come, so that one visitor does not take what another needs to be joined: with
 * none left, each would have half of its sockets.
 *
 * Nor do visitors ever take the last one. A process that has none accepts connections and closes them unseen (libuv does): whoever came
 * takes that for the end of an empty answer. Once another thread has taken the one that libuv keeps for this, it
 * tries to accept for ever, and takes a whole core for it.
 */
export class Reserve {
  readonly #kept: number[] = []
  #wanted = 0

  /** One more socket is to come. Gives back a `limit-reached` where the process can't have it. */
  keep(): TunnelError | undefined {
    const opened: number[] = []
    try {
      // Nothing in Node tells how many are left. Where there is no such file, as on Windows, there is no such limit either.
      while (opened.length < 1 + SPARE) opened.push(openSync('/dev/null', 'r'))
    } catch (error) {
      if (isSystemError(error, 'EMFILE') || isSystemError(error, 'ENFILE')) {
        for (const descriptor of opened) closeSync(descriptor)
        const message = 'this process may open hardly any more files and sockets: raise its limit (ulimit -n)'
        return new TunnelError('limit-reached', message, { cause: error })
      }
    }
    for (const descriptor of opened.splice(1)) closeSync(descriptor)
    this.#kept.push(...opened)
    this.#wanted++
    return undefined
  }

  /** A socket comes: makes room for it. */
  spend(): void {
    const descriptor = this.#kept.pop()
    if (descriptor !== undefined) closeSync(descriptor)
  }

  /** A socket for which one was kept has come, or will not. */
  release(): void {
    this.#wanted--
    while (this.#kept.length > this.#wanted) this.spend()
  }
}
