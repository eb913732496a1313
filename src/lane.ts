import { Socket } from 'node:net'
import type { Duplex, Readable, Writable } from 'node:stream'
import { isPlainSocket, readReused, type Taker, type Verdict } from './socket-reader.js'
import { keepReading, NOTHING, probeEnd, type WriteFailure } from './stream.js'
import { YamuxStream } from './yamux/stream.js'

/** `in` is from the first stream to the second, from a visitor to a target. */
export type Direction = 'in' | 'out'

/** Who joins two lanes, and is told what happens on them. */
export interface LaneOwner {
  /** Bytes were handed on. */
  passed(direction: Direction, chunk: Buffer): void
  /** All that there will be was handed on. */
  ended(direction: Direction): void
  /** A direction is at its end: silence means something from now on. */
  watchSilence(): void
  /** A stage has failed. */
  cut(reason: Error): void
  /** The source is closed. */
  closed(lane: Lane): void
}

interface LaneOptions {
  source: Duplex
  sink: Duplex
  direction: Direction
  stages: Duplex[]
}

/** One direction: what comes from the source goes on to the sink, through stages where there are some. */
export class Lane implements Taker {
  readonly source: Duplex
  readonly sink: Duplex
  readonly #direction: Direction
  readonly #owner: LaneOwner
  /** Why the source takes no more bytes of the other direction. */
  readonly #failure: WriteFailure
  readonly #stages: Duplex[]
  /** Writes that must be over before more is read. */
  #awaited = 0

  constructor(owner: LaneOwner, { source, sink, direction, stages }: LaneOptions) {
    this.source = source
    this.sink = sink
    this.#direction = direction
    this.#owner = owner
    this.#stages = stages
    this.#failure = keepReading(source)
    Object.assign(source, { [LANE]: this })
  }

  start(): void {
    let last: Readable = this.source
    for (const stage of this.#stages) {
      pass(last, stage)
      if (last !== this.source) last.on('end', () => stage.end())
      stage.on('error', (error) => this.#owner.cut(error))
      last = stage
    }
    if (!tryReadReused(last, this.sink, this)) {
      pass(last, this.sink, (chunk) => this.#owner.passed(this.#direction, chunk))
    }
    if (last !== this.source) last.on('end', () => this.#lastOnEnd())
    // A FIN behind nothing may have been seen already, while the stream waited to be joined.
    if (this.source.readableEnded) this.sourceOnEnd()
    else this.source.on('end', sourceOnEnd)
  }

  /** As `whenClosed`, with no function of its own. */
  watchClose(): void {
    if (this.source.closed) this.sourceOnClose()
    else this.source.on('close', sourceOnClose)
  }

  /** Hands on what was read into memory that may be used again. */
  take(chunks: Buffer[], isReused: boolean): Verdict {
    const { sink } = this
    if (chunks.length > 1) sink.cork()
    for (const chunk of chunks) {
      sink.write(chunk)
      this.#owner.passed(this.#direction, chunk)
    }
    if (chunks.length > 1) sink.uncork()
    if (isReused ? sink.writableLength === 0 : !sink.writableNeedDrain) return 'done'
    this.#awaited++
    // What is written behind it is written when nobody needs its memory any more.
    sink.write(NOTHING, () => {
      this.#awaited--
      if (this.#awaited === 0) this.source.resume()
    })
    return 'wait'
  }

  sourceOnEnd(): void {
    this.#owner.watchSilence()
    probeEnd(this.source, (error) => {
      // Told here, before the source is closed over it: an end that was passed on meanwhile could not be taken back.
      const failed = error ?? this.#failure.error
      if (failed) this.source.destroy(failed)
      else (this.#stages[0] ?? this.sink).end()
      if (!failed && this.#stages.length === 0) this.#owner.ended(this.#direction)
    })
  }

  sourceOnClose(): void {
    this.#owner.closed(this)
  }

  #lastOnEnd(): void {
    // A stage may end before its source does.
    this.#owner.watchSilence()
    this.sink.end()
    this.#owner.ended(this.#direction)
  }
}

/** Where a stream keeps the lane whose source it is. */
const LANE = Symbol('lane')

function sourceOnEnd(this: Duplex & { [LANE]: Lane }) {
  this[LANE].sourceOnEnd()
}

function sourceOnClose(this: Duplex & { [LANE]: Lane }) {
  this[LANE].sourceOnClose()
}

/** Hands on what comes, and stops the source while the sink is full. */
function pass(source: Readable, sink: Writable, onBytes?: (chunk: Buffer) => void): void {
  source.on('data', (chunk: Buffer) => {
    if (!sink.write(chunk)) source.pause()
    onBytes?.(chunk)
  })
  sink.on('drain', () => source.resume())
  source.resume()
}

/** Reads the source into memory that is used again, where both can do so. */
function tryReadReused(source: Readable, sink: Writable, taker: Taker): boolean {
  if (source instanceof YamuxStream) {
    // All that does not write at once would make it keep the memory of its session's link.
    if (!isPlainSocket(sink)) return false
    source.readReused(taker)
    return true
  }
  return freesMemory(sink) && readReused(source, taker)
}

/** Whether what was written to it is needed no more once that is done: what passes a chunk on does not know when others are done with it. */
function freesMemory(sink: Writable): boolean {
  return sink instanceof Socket || sink instanceof YamuxStream
}
