import { Socket } from 'node:net'
import type { Duplex, Readable, Writable } from 'node:stream'
import { TunnelError } from './errors.js'
import { readReused, type Verdict } from './socket-reader.js'
import {
  hasFinished,
  isPlainSocket,
  keepReading,
  NOTHING,
  probeEnd,
  reset,
  type WriteFailure,
  whenClosed,
} from './stream.js'
import type { Borrower } from './yamux/inbox.js'
import { YamuxStream } from './yamux/stream.js'

/** How long a relay lives on in silence once one side has finished sending, in milliseconds. */
export const HALF_CLOSE_TIMEOUT = 300_000

const NO_STAGES = { in: [], out: [] }

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
  const {
    halfCloseTimeout = HALF_CLOSE_TIMEOUT,
    through = NO_STAGES,
    bytes = { in: 0, out: 0 },
    tap,
  } = options
  return new Promise((resolve) => {
    let error: Error | undefined
    let silence: NodeJS.Timeout | undefined
    let open = 2

    // An error is not lost: `close` always follows, and finds it in `errored`.
    for (const stream of [first, second]) stream.on('error', streamOnError)
    const failures = [keepReading(first), keepReading(second)] as const
    copy(first, second, { direction: 'in', stages: through.in, failure: failures[0] })
    copy(second, first, { direction: 'out', stages: through.out, failure: failures[1] })
    whenClosed(first, () => onClosed(first, second))
    whenClosed(second, () => onClosed(second, first))

    /** One direction. */
    function copy(source: Duplex, sink: Duplex, { direction, stages, failure }: CopyOptions) {
      let last: Readable = source
      for (const stage of stages) {
        pass(last, stage)
        if (last !== source) last.on('end', () => stage.end())
        stage.on('error', cut)
        last = stage
      }
      pass(last, sink, lastOnBytes)
      if (last !== source) {
        last.on('end', () => {
          // A stage may end before its source does.
          watchSilence()
          sink.end()
          tap?.end(direction)
        })
      }
      // A FIN behind nothing may have been seen already, while the stream waited to be joined.
      if (source.readableEnded) sourceOnEnd()
      else source.on('end', sourceOnEnd)

      function lastOnBytes(chunk: Buffer) {
        bytes[direction] += chunk.length
        silence?.refresh()
        tap?.bytes(direction, chunk)
      }

      function sourceOnEnd() {
        watchSilence()
        probeEnd(source, (error) => {
          // Told here, before the source is closed over it: an end that was passed on meanwhile could not be taken back.
          const failed = error ?? failure.error
          if (failed) source.destroy(failed)
          else (stages[0] ?? sink).end()
          if (!failed && last === source) tap?.end(direction)
        })
      }
    }

    function watchSilence() {
      silence ??= setTimeout(() => {
        cut(new TunnelError('timeout', `half-closed and silent for ${halfCloseTimeout} ms`))
      }, halfCloseTimeout).unref()
    }

    function cut(reason: Error) {
      error ??= reason
      reset(first)
      reset(second)
    }

    function onClosed(closed: Duplex, other: Duplex) {
      if (!hasFinished(closed)) {
        error ??= closed.errored ?? new TunnelError('closed', 'the connection was cut')
        reset(other)
      }
      open--
      if (open > 0) return
      clearTimeout(silence)
      for (const stage of [...through.in, ...through.out]) stage.destroy()
      tap?.close()
      resolve({ bytesIn: bytes.in, bytesOut: bytes.out, ...(error && { error }) })
    }
  })
}

interface CopyOptions {
  direction: Direction
  stages: Duplex[]
  /** Why the source, as a sink of the other direction, takes no more bytes. */
  failure: WriteFailure
}

function streamOnError() {}

/** Hands on what comes, and stops the source while the sink is full. */
function pass(source: Readable, sink: Writable, onBytes?: (chunk: Buffer) => void): void {
  /** Writes that must be over before more is read. */
  let awaited = 0
  if (readsReused(source, sink, sourceOnChunks)) return
  source.on('data', (chunk: Buffer) => {
    if (!sink.write(chunk)) source.pause()
    onBytes?.(chunk)
  })
  sink.on('drain', () => source.resume())
  source.resume()

  function sourceOnChunks(chunks: Buffer[], isReused: boolean): Verdict {
    if (chunks.length > 1) sink.cork()
    for (const chunk of chunks) {
      sink.write(chunk)
      onBytes?.(chunk)
    }
    if (chunks.length > 1) sink.uncork()
    if (isReused ? sink.writableLength === 0 : !sink.writableNeedDrain) return 'done'
    awaited++
    // What is written behind it is written when nobody needs its memory any more.
    sink.write(NOTHING, () => {
      awaited--
      if (awaited === 0) source.resume()
    })
    return 'wait'
  }
}

/** Reads the source into memory that is used again, where both can do so. */
function readsReused(source: Readable, sink: Writable, take: Borrower): boolean {
  if (source instanceof YamuxStream) {
    // All that does not write at once would make it keep the memory of its session's link.
    if (!isPlainSocket(sink)) return false
    source.readReused(take)
    return true
  }
  return freesMemory(sink) && readReused(source, (chunk, isReused) => take([chunk], isReused))
}

/** Whether what was written to it is needed no more once that is done: what passes a chunk on does not know when others are done with it. */
function freesMemory(sink: Writable): boolean {
  return sink instanceof Socket || sink instanceof YamuxStream
}
