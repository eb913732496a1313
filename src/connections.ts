import type { Duplex } from 'node:stream'
import type { Connection } from './connection.js'
import { whenAborted } from './deadline.js'
import { checkInteger, checkSignal, MAX_TIMEOUT } from './options.js'
import { watchOver } from './socket.js'
import { reset } from './stream.js'

/**
 * Even without grace, milliseconds for what is about to end by itself: the FIN of a visitor that has just
 * finished may still be on its way, and a target that is reset instead might crash over it.
 */
const LEAST_GRACE = 20

/** Bytes that a kernel may take for a peer that is not there. More than that has reached it, although nothing came back. */
const MAX_UNHEARD = 16_777_216

/** Milliseconds between two looks for connections that stay, over which the system is to watch. Most have left by then. */
const WATCH_INTERVAL = 5_000

/** What a server or a tunnel has counted since it was opened. */
export interface Stats {
  /** Visitors that were joined. */
  readonly connections: number
  /** Visitors that were turned away. */
  readonly rejections: number
  /** Bytes from visitors to targets. */
  readonly bytesIn: number
  /** Bytes from targets to visitors. */
  readonly bytesOut: number
  /** Datagrams that were dropped. */
  readonly drops: number
}

/** Options of every `close`. */
export interface CloseOptions {
  /** Milliseconds that visitors inside get to finish before they are cut. Default 0. */
  grace?: number
  /** Ends the grace: when it aborts, who is still inside is cut. */
  signal?: AbortSignal
}

/** The joined connections of a server or a tunnel, each with both its streams, and what is counted of them. */
export class Connections {
  /** Visitors turned away, and datagrams dropped. */
  rejections = 0
  drops = 0
  readonly #streams = new Map<Connection, Duplex[]>()
  /** Of those that have ended. */
  readonly #past = { connections: 0, bytesIn: 0, bytesOut: 0 }
  #closing: { promise: Promise<void>; hasGrace: boolean } | undefined
  #isCut = false
  #watch: NodeJS.Timeout | undefined

  get closing(): boolean {
    return this.#closing !== undefined
  }

  get size(): number {
    return this.#streams.size
  }

  add(connection: Connection, ...streams: Duplex[]): void {
    this.#streams.set(connection, streams)
    this.#watchOver()
    // One that was being made while the others were cut.
    if (this.#isCut) for (const stream of streams) reset(stream)
    connection.closed.then(({ bytesIn, bytesOut }) => {
      this.#streams.delete(connection)
      this.#past.connections++
      this.#past.bytesIn += bytesIn
      this.#past.bytesOut += bytesOut
    })
  }

  get stats(): Stats {
    let { connections, bytesIn, bytesOut } = this.#past
    for (const inside of this.#streams.keys()) {
      connections++
      bytesIn += inside.bytesIn
      bytesOut += inside.bytesOut
    }
    return { connections, rejections: this.rejections, bytesIn, bytesOut, drops: this.drops }
  }

  /**
   * What a `close` does: runs `shut` once and gives every call its promise. A call without grace after one
   * that had some cuts at once.
   */
  close({ grace = 0, signal }: CloseOptions, shut: (grace: number) => Promise<void>): Promise<void> {
    try {
      checkInteger('grace', grace, 0, MAX_TIMEOUT)
      checkSignal('signal', signal)
    } catch (error) {
      return Promise.reject(error)
    }
    if (this.#closing?.hasGrace && grace === 0) this.#cutForGood()
    this.#closing ??= { promise: shut(grace), hasGrace: grace > 0 }
    const { promise } = this.#closing
    if (signal) {
      const forget = whenAborted(signal, () => this.#cutForGood())
      promise.finally(forget)
    }
    return promise
  }

  /**
   * Cuts those of these from which the other end of the link sends no byte for so many milliseconds: where the
   * client and the server have lost each other, nobody may be at that end any more, and nothing else would tell.
   * Gives back what calls it off.
   */
  cutSilent(connections: Iterable<Connection>, timeout: number, heard: 'bytesIn' | 'bytesOut'): () => void {
    const said = heard === 'bytesIn' ? 'bytesOut' : 'bytesIn'
    const before = new Map([...connections].map((one) => [one, { heard: one[heard], said: one[said] }]))
    const timer = setTimeout(() => {
      for (const [one, bytes] of before) {
        if (one[heard] === bytes.heard && one[said] - bytes.said < MAX_UNHEARD)
          for (const stream of this.#streams.get(one) ?? []) reset(stream)
      }
    }, timeout).unref()
    return () => clearTimeout(timer)
  }

  /** Those that are inside now. */
  get inside(): Iterable<Connection> {
    return this.#streams.keys()
  }

  /** Cuts all that are inside now. */
  cut(): void {
    for (const stream of [...this.#streams.values()].flat()) reset(stream)
  }

  /** Resolves when all have ended; those that have not after `grace` milliseconds are cut. */
  async finish(grace: number): Promise<void> {
    const timer = setTimeout(() => this.#cutForGood(), Math.max(grace, LEAST_GRACE))
    while (this.#streams.size > 0) {
      await Promise.all([...this.#streams.keys()].map((connection) => connection.closed))
    }
    clearTimeout(timer)
  }

  /** Has the system watch over those that stay, for as long as there are any. */
  #watchOver(): void {
    this.#watch ??= setTimeout(() => {
      this.#watch = undefined
      for (const stream of [...this.#streams.values()].flat()) watchOver(stream)
      if (this.#streams.size > 0) this.#watchOver()
    }, WATCH_INTERVAL).unref()
  }

  /** Those that are being made meanwhile are cut as well. */
  #cutForGood(): void {
    this.#isCut = true
    this.cut()
  }
}
