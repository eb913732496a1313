import type { Writable } from 'node:stream'
import { Batch } from './batch.js'
import type { Header } from './frame.js'

/** The real ones, also where a test puts the timers of its process under its own control. */
const { setImmediate, clearImmediate } = globalThis

/** Bytes after which no more go into a batch; what waits for the link in this process is hardly more. */
const BATCH = 262_144

/** The longest frame of one of several streams. Longer ones would hold up the others, shorter ones cost more. */
const TURN = 65_536

/** Frames of the session that may wait while the link is full. */
const MAX_WAITING = 16_384

/** A stream, as the sender sees it. */
export interface Sendable {
  /** Adds its next frames, with so many bytes of payload at the most; tells whether it could go on. */
  send(batch: Batch, turn: number): boolean
}

/**
 * Who may write to the link, and when. Streams stand in a line, and whoever has more to say after its turn goes to the
 * end of it. Nothing is handed to the link while that is full: what waits there can't be overtaken.
 */
export class Sender {
  readonly #link: Writable
  readonly #batch: Batch
  readonly #onOverflow: () => void
  readonly #line = new Set<Sendable>()
  /** Frames of the session, and resets of streams that are gone. They go first. */
  #frames: Header[] = []
  #soon: NodeJS.Immediate | undefined
  #isStopped = false

  /** `onOverflow` is told when the peer asks for more answers than it reads. */
  constructor(link: Writable, onOverflow: () => void) {
    this.#link = link
    this.#batch = new Batch(link)
    this.#onOverflow = onOverflow
    link.on('drain', this.#linkOnDrain)
  }

  /** A stream has something to say. */
  schedule(stream: Sendable): void {
    this.#line.add(stream)
    this.#flushSoon()
  }

  /** A stream has nothing to say any more. */
  forget(stream: Sendable): void {
    this.#line.delete(stream)
  }

  send(frame: Header): void {
    if (this.#isStopped) return
    this.#frames.push(frame)
    // Any number of streams may be reset at once, which is nobody's fault.
    if (this.#frames.length > MAX_WAITING && this.#link.writableNeedDrain) this.#onOverflow()
    else this.#flushSoon()
  }

  /** Sends these frames behind all others of the session, and nothing more. */
  finish(last: Header[]): void {
    if (this.#isStopped) return
    this.#isStopped = true
    clearImmediate(this.#soon)
    this.#link.off('drain', this.#linkOnDrain)
    this.#line.clear()
    this.#frames.push(...last)
    if (this.#link.writable && this.#frames.length > 0) this.#fill()
  }

  /** All that is said until all other events of this turn were seen goes into one batch. */
  #flushSoon(): void {
    if (this.#isStopped || this.#soon || this.#link.writableNeedDrain) return
    this.#soon = setImmediate(() => {
      this.#soon = undefined
      this.#flush()
    })
  }

  readonly #linkOnDrain = () => this.#flush()

  #flush(): void {
    while (this.#hasWork && this.#link.writable && !this.#link.writableNeedDrain) this.#fill()
  }

  get #hasWork(): boolean {
    return this.#frames.length > 0 || this.#line.size > 0
  }

  #fill(): void {
    const batch = this.#batch
    batch.begin()
    for (const frame of this.#frames) batch.addHeader(frame)
    this.#frames = []
    // Whoever is added during this walk is visited by it, too.
    for (const stream of this.#line) {
      if (batch.bytes >= BATCH) break
      this.#line.delete(stream)
      const isAlone = this.#line.size === 0 && batch.bytes <= TURN
      if (stream.send(batch, isAlone ? BATCH : TURN)) this.#line.add(stream)
    }
    batch.finish()
  }
}
