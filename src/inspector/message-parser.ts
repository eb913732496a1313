import { MAX_HEAD, parseChunkSize, unclear } from '../http-framing.js'
import { NOTHING } from '../stream.js'

const EOL = '\r\n'

/** Most digits of a size that is read at once. */
const MAX_DIGITS = 7

/** What follows a head: so many bytes, which may be infinitely many, or chunks. */
export type Follows = number | 'chunked'

/** Who is told of the messages of one direction. What it throws ends the parsing. */
export interface MessageListener {
  /** The lines of a head. */
  head(lines: string[]): Follows
  /** A piece of the body, in memory that is used again. */
  body(piece: Buffer): void
  end(): void
}

/**
 * Finds the messages of HTTP/1 in the bytes of one direction. It keeps no more than a head or a line of chunks, and goes over a body
 * of a known length without looking at it.
 */
export class MessageParser {
  readonly #listener: MessageListener
  readonly #steps = this.#messages()
  /** What has come and was not dealt with yet. */
  #input: Buffer = NOTHING
  #isHeld = false

  constructor(listener: MessageListener) {
    this.#listener = listener
  }

  /** Throws where it is not clear how to go on. It is of no use then. */
  push(chunk: Buffer): void {
    this.#input = this.#input.length > 0 ? Buffer.concat([this.#input, chunk]) : chunk
    this.#steps.next()
    if (this.#isHeld && this.#input.length > MAX_HEAD) throw unclear('too much follows an upgrade')
    // The memory of the chunk is not ours.
    this.#input = this.#input.length > 0 ? Buffer.from(this.#input) : NOTHING
  }

  /** Takes the next bytes for no message yet, from within `end`. */
  hold(): void {
    this.#isHeld = true
  }

  /** They are none: gives them back, and takes no more of them. */
  drain(): Buffer {
    const rest = this.#input
    this.#isHeld = true
    this.#input = NOTHING
    return rest
  }

  /** They are messages. */
  release(): void {
    this.#isHeld = false
    this.#steps.next()
    this.#input = this.#input.length > 0 ? Buffer.from(this.#input) : NOTHING
  }

  *#messages(): Generator<void, never> {
    for (;;) {
      const follows = this.#listener.head(yield* this.#head())
      if (follows === 'chunked') yield* this.#chunks()
      else yield* this.#body(follows)
      this.#listener.end()
      while (this.#isHeld) yield
    }
  }

  /** The lines of a head. Empty lines in front of it are overlooked, as servers do. */
  *#head(): Generator<void, string[]> {
    for (;;) {
      while (this.#input[0] === 13 && this.#input[1] === 10) this.#take(2)
      const end = this.#input.indexOf('\r\n\r\n')
      if (end > MAX_HEAD || (end < 0 && this.#input.length > MAX_HEAD)) {
        throw unclear(`its head has more than ${MAX_HEAD} bytes`)
      }
      if (end >= 0)
        return this.#take(end + 4)
          .toString('latin1', 0, end)
          .split(EOL)
      yield
    }
  }

  *#chunks(): Generator<void, void> {
    for (;;) {
      this.#wholeChunks()
      const size = parseChunkSize(yield* this.#line())
      if (size === 0) break
      yield* this.#body(size)
      if ((yield* this.#line()) !== '') throw unclear('a chunk is longer than its size')
    }
    // Headers may follow, each of which is a line that is bounded; all of them are let go.
    while ((yield* this.#line()) !== '') {}
  }

  /**
   * Takes the chunks that are there whole, with nothing but a size in front. They may be as small as a byte each: line by line, who
   * sends such would keep us busy with a few megabytes a second.
   */
  #wholeChunks(): void {
    const input = this.#input
    let taken = 0
    for (;;) {
      let [size, at] = [0, taken]
      for (
        let digit = hexDigit(input[at]);
        digit >= 0 && at < taken + MAX_DIGITS;
        digit = hexDigit(input[at])
      ) {
        size = size * 16 + digit
        at++
      }
      const begin = at + EOL.length
      const end = begin + size
      // What is no whole chunk, or the last one, is dealt with by who reads lines.
      if (size === 0 || !isLineEnd(input, at) || !isLineEnd(input, end)) break
      this.#listener.body(input.subarray(begin, end))
      taken = end + EOL.length
    }
    this.#input = input.subarray(taken)
  }

  *#body(count: number): Generator<void, void> {
    for (let left = count; left > 0; ) {
      if (this.#input.length === 0) yield
      const piece = this.#take(Math.min(left, this.#input.length))
      left -= piece.length
      if (piece.length > 0) this.#listener.body(piece)
    }
  }

  *#line(): Generator<void, string> {
    for (;;) {
      const end = this.#input.indexOf(EOL)
      if (end > MAX_HEAD || (end < 0 && this.#input.length > MAX_HEAD)) {
        throw unclear(`it has a line of more than ${MAX_HEAD} bytes`)
      }
      if (end >= 0) return this.#take(end + EOL.length).toString('latin1', 0, end)
      yield
    }
  }

  #take(count: number): Buffer {
    const bytes = this.#input.subarray(0, count)
    this.#input = this.#input.subarray(count)
    return bytes
  }
}

function isLineEnd(bytes: Buffer, at: number): boolean {
  return bytes[at] === 13 && bytes[at + 1] === 10
}

/** What a letter stands for, or -1. */
function hexDigit(code = 0): number {
  if (code >= 48 && code <= 57) return code - 48
  // In either case.
  const letter = (code | 32) - 97
  return letter >= 0 && letter < 6 ? letter + 10 : -1
}
