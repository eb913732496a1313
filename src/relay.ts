import type { Duplex } from 'node:stream'
import { TunnelError } from './errors.js'
import { type Direction, Lane, type LaneOwner } from './lane.js'
import { hasFinished, reset } from './stream.js'

/** How long a relay lives on in silence once one side has finished sending, in milliseconds. */
export const HALF_CLOSE_TIMEOUT = 300_000

/** The same for all that have none. */
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

/** Two streams, and a lane in each direction. Most are idle and there are many, so those of plain sockets have no functions of their own. */
class Relay implements LaneOwner {
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
    const { in: inwards, out: outwards } = options.through ?? NO_STAGES
    this.#lanes = [
      new Lane(this, { source: first, sink: second, direction: 'in', stages: inwards }),
      new Lane(this, { source: second, sink: first, direction: 'out', stages: outwards }),
    ]
    this.#resolve = resolve
  }

  start(): void {
    // An error is not lost: `close` always follows, and finds it in `errored`.
    for (const { source } of this.#lanes) source.on('error', streamOnError)
    for (const lane of this.#lanes) lane.start()
    for (const lane of this.#lanes) lane.watchClose()
  }

  passed(direction: Direction, chunk: Buffer): void {
    this.#bytes[direction] += chunk.length
    this.#silence?.refresh()
    this.#options.tap?.bytes(direction, chunk)
  }

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

  closed({ source, sink }: Lane): void {
    if (!hasFinished(source)) {
      this.#error ??= source.errored ?? new TunnelError('closed', 'the connection was cut')
      reset(sink)
    }
    this.#open--
    if (this.#open > 0) return
    clearTimeout(this.#silence)
    const { through = NO_STAGES, tap } = this.#options
    for (const stage of [...through.in, ...through.out]) stage.destroy()
    tap?.close()
    const bytes = { bytesIn: this.#bytes.in, bytesOut: this.#bytes.out }
    this.#resolve({ ...bytes, ...(this.#error && { error: this.#error }) })
  }
}

function streamOnError() {}
