import { Duplex } from 'node:stream'

/**
 * Two streams, of which each gives what is written to the other. Each direction ends by itself, as with a socket, and one that is
 * destroyed before both have ended takes the other with it. `stream.duplexPair` does not: its other end would wait for ever.
 */
export function streamPair(): [StreamEnd, StreamEnd] {
  const ends = [new StreamEnd(), new StreamEnd()] as const
  ends[0].other = ends[1]
  ends[1].other = ends[0]
  return [...ends]
}

export class StreamEnd extends Duplex {
  other: StreamEnd | undefined
  /** Of the last write at the other end, until there is room for more. */
  #written: (() => void) | undefined

  constructor() {
    super({ allowHalfOpen: true })
    // Whoever owns it looks when it is closed.
    this.on('error', () => {})
  }

  /** What an agent of HTTP calls of a socket: whether the process may end is up to the sockets behind this. */
  ref(): this {
    return this
  }

  override _read(): void {
    const done = this.#written
    this.#written = undefined
    done?.()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (!this.other || this.other.#take(chunk)) done()
    else this.other.#written = done
  }

  override _final(done: () => void): void {
    this.other?.push(null)
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const hasFinished = this.readableEnded && this.writableFinished
    if (!hasFinished || error) this.other?.destroy(error ?? reset())
    done(error)
  }

  /** Whether there is room for more. */
  #take(chunk: Buffer): boolean {
    // Of nothing, a stream says that it can't take more.
    return chunk.length === 0 || this.push(chunk)
  }
}

/** As a socket has it. */
function reset(): Error {
  return Object.assign(new Error('the connection was cut'), { code: 'ECONNRESET' })
}
