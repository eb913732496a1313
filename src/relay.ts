import { Socket } from 'node:net'
import type { Duplex, Readable, Writable } from 'node:stream'
import { TunnelError } from './errors.js'
import { readReused, type Taker, type Verdict } from './socket-reader.js'
import {
  hasFinished,
  isPlainSocket,
  keepReading,
  NOTHING,
  probeEnd,
  reset,
  type WriteFailure,
} from './stream.js'
import { YamuxStream } from './yamux/stream.js'

/** How long a relay lives on in silence once one side has finished sending, in milliseconds. */
export const HALF_CLOSE_TIMEOUT = 300_000

export interface RelayOptions {
  /** Milliseconds of silence after which a pair of which one direction has ended is cut. Default 300,000. */
  halfCloseTimeout?: number
  /** What the bytes of each direction pass through on their way, one after the other. The relay owns them. */
  through?: { in: Duplex[]; out: Duplex[] }
  /** Counts the bytes of each direction as they are handed on, for who wants to know meanwhile. */
  bytes?: ByteCounts
  /** Looks at what is handed on. */
  tap?: Tap | undefined
}

/**
 * Sees what a relay does, and can't change it: it is told of bytes when they are on their way. Their memory is used again, so it keeps
 * none of it, and it never throws.
 */
export interface Tap {
  bytes(direction: Direction, chunk: Buffer): void
  /** A direction has ended by a FIN. */
  end(direction: Direction): void
  /** Both streams are closed. */
  close(): void
}

/** Bytes by direction. */
interface ByteCounts {
  in: number
  out: number
}

/** `in` is from the first stream to the second, from a visitor to a target. */
export type Direction = 'in' | 'out'

/** How a relay went. */
export interface RelayEnd {
  /** Bytes from the first stream to the second, as handed on. */
  bytesIn: number
  /** Bytes from the second stream to the first. */
  bytesOut: number
  /** Why it was cut, where it did not simply finish. */
  error?: Error
}

/**
 * Copies both ways between two byte streams and owns them from now on. Each direction ends by itself: a FIN
 * on one side becomes a FIN on the other while the reply goes on. A stream that can't keep up stops the one
 * that feeds it. A stream that breaks resets the other, and a stage that fails resets both. Resolves when both are
 * closed, and never rejects.
 *
 * A pair of which one direction has ended is cut after a time of silence, because nothing else would end it where the
 * peer never answers.
 */
export function relay(first: Duplex, second: Duplex, options: RelayOptions = {}): Promise<RelayEnd> {
  return new Promise((resolve) => new Relay([first, second], options, resolve).start())
}

/** Two streams, and a lane in each direction. Most are idle and there are many, so none has functions of its own. */
class Relay {
  readonly #options: RelayOptions
  readonly #bytes: ByteCounts
  readonly #lanes: [Lane, Lane]
  readonly #resolve: (end: RelayEnd) => void
  #open = 2
  #silence: NodeJS.Timeout | undefined
  #error: Error | undefined

  constructor([first, second]: [Duplex, Duplex], options: RelayOptions, resolve: (end: RelayEnd) => void) {
    this.#options = options
    this.#bytes = options.bytes ?? { in: 0, out: 0 }
    this.#lanes = [new Lane(this, first, second, 'in'), new Lane(this, second, first, 'out')]
    this.#resolve = resolve
  }

  start(): void {
    const { through } = this.#options
    // An error is not lost: `close` always follows, and finds it in `errored`.
    for (const { source } of this.#lanes) source.on('error', streamOnError)
    for (const lane of this.#lanes) lane.start(through?.[lane.direction] ?? [])
    for (const lane of this.#lanes) {
      if (lane.source.closed) this.closed(lane)
      // It comes but once, and what `once` keeps for it would be there as long as the stream.
      else lane.source.on('close', sourceOnClose)
    }
  }

  /** Bytes were handed on. */
  passed(direction: Direction, chunk: Buffer): void {
    this.#bytes[direction] += chunk.length
    this.#silence?.refresh()
    this.#options.tap?.bytes(direction, chunk)
  }

  /** All that there will be was handed on. */
  ended(direction: Direction): void {
    this.#options.tap?.end(direction)
  }

  watchSilence(): void {
    const { halfCloseTimeout = HALF_CLOSE_TIMEOUT } = this.#options
    this.#silence ??= setTimeout(() => {
      this.cut(new TunnelError('timeout', `half-closed and silent for ${halfCloseTimeout} ms`))
    }, halfCloseTimeout).unref()
  }

  cut(reason: Error): void {
    this.#error ??= reason
    for (const { source } of this.#lanes) reset(source)
  }

  /** The source of a lane is closed. */
  closed({ source, sink }: Lane): void {
    if (!hasFinished(source)) {
      this.#error ??= source.errored ?? new TunnelError('closed', 'the connection was cut')
      reset(sink)
    }
    this.#open--
    if (this.#open > 0) return
    clearTimeout(this.#silence)
    const { through, tap } = this.#options
    for (const stage of [...(through?.in ?? []), ...(through?.out ?? [])]) stage.destroy()
    tap?.close()
    const bytes = { bytesIn: this.#bytes.in, bytesOut: this.#bytes.out }
    this.#resolve({ ...bytes, ...(this.#error && { error: this.#error }) })
  }
}

/** One direction: what comes from the source goes on to the sink, through stages where there are some. */
class Lane implements Taker {
  readonly relay: Relay
  readonly source: Duplex
  readonly sink: Duplex
  readonly direction: Direction
  /** Why the source takes no more bytes of the other direction. */
  readonly #failure: WriteFailure
  /** Writes that must be over before more is read. */
  #awaited = 0

  constructor(relay: Relay, source: Duplex, sink: Duplex, direction: Direction) {
    this.relay = relay
    this.source = source
    this.sink = sink
    this.direction = direction
    this.#failure = keepReading(source)
    Object.assign(source, { [LANE]: this })
  }

  start(stages: Duplex[]): void {
    let last: Readable = this.source
    for (const stage of stages) {
      pass(last, stage)
      if (last !== this.source) last.on('end', () => stage.end())
      stage.on('error', (error) => this.relay.cut(error))
      last = stage
    }
    if (!readsReused(last, this.sink, this)) {
      pass(last, this.sink, (chunk) => this.relay.passed(this.direction, chunk))
    }
    if (last !== this.source) last.on('end', () => this.#lastOnEnd())
    // A FIN behind nothing may have been seen already, while the stream waited to be joined.
    if (this.source.readableEnded) this.sourceOnEnd(stages[0])
    else if (stages[0]) this.source.on('end', () => this.sourceOnEnd(stages[0]))
    else this.source.on('end', sourceOnEnd)
  }

  /** Hands on what was read into memory that may be used again. */
  take(chunks: Buffer[], isReused: boolean): Verdict {
    const { sink } = this
    if (chunks.length > 1) sink.cork()
    for (const chunk of chunks) {
      sink.write(chunk)
      this.relay.passed(this.direction, chunk)
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

  sourceOnEnd(stage?: Duplex): void {
    const { source, sink, relay, direction } = this
    relay.watchSilence()
    probeEnd(source, (error) => {
      // Told here, before the source is closed over it: an end that was passed on meanwhile could not be taken back.
      const failed = error ?? this.#failure.error
      if (failed) source.destroy(failed)
      else (stage ?? sink).end()
      if (!failed && !stage) relay.ended(direction)
    })
  }

  #lastOnEnd(): void {
    // A stage may end before its source does.
    this.relay.watchSilence()
    this.sink.end()
    this.relay.ended(this.direction)
  }
}

/** Where a stream keeps the lane whose source it is. */
const LANE = Symbol('lane')

function sourceOnEnd(this: Duplex & { [LANE]: Lane }) {
  this[LANE].sourceOnEnd()
}

function sourceOnClose(this: Duplex & { [LANE]: Lane }) {
  this[LANE].relay.closed(this[LANE])
}

function streamOnError() {}

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
function readsReused(source: Readable, sink: Writable, taker: Taker): boolean {
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
