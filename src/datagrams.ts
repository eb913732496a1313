/**
 * Datagrams in a byte stream: each is its length, as two bytes (big endian), then its bytes. `docs/protocol.md`
 * describes it.
 */
import { violation } from './protocol.js'

/** Largest datagram, in bytes: 65,535 less the header of UDP. Over IPv4 its own header takes 20 more. */
const MAX_DATAGRAM = 65_527

/** Bytes of a datagram's length. */
const LENGTH = 2

/** Datagrams as bytes of the stream. */
export function encodeDatagrams(datagrams: readonly Buffer[]): Buffer {
  let size = 0
  for (const { length } of datagrams) size += LENGTH + length
  const bytes = Buffer.allocUnsafe(size)
  let at = 0
  for (const datagram of datagrams) {
    at = bytes.writeUInt16BE(datagram.length, at)
    bytes.set(datagram, at)
    at += datagram.length
  }
  return bytes
}

/** Takes a stream apart, however it is cut into chunks. Holds one unfinished datagram at the most. */
export class DatagramDecoder {
  /** The beginning of a datagram, of which `#filled` bytes have come. */
  #partial: Buffer | undefined
  #filled = 0

  /** Whether the stream may end here. */
  get isBetween(): boolean {
    return this.#partial === undefined
  }

  /** The datagrams that end in this chunk, which they share memory with. Throws a `protocol-violation`. */
  decode(chunk: Buffer): Buffer[] {
    const datagrams: Buffer[] = []
    let at = 0
    while (at < chunk.length) {
      if (!this.#partial) {
        const end = at + LENGTH + (chunk.length - at < LENGTH ? 0 : lengthIn(chunk, at))
        if (end <= chunk.length) {
          datagrams.push(chunk.subarray(at + LENGTH, end))
          at = end
          continue
        }
        this.#partial = Buffer.allocUnsafe(end - at)
        this.#filled = 0
      }
      const taken = chunk.copy(this.#partial, this.#filled, at)
      at += taken
      this.#filled += taken
      if (this.#filled < this.#partial.length) break
      const whole = this.#finish(this.#partial)
      if (whole) datagrams.push(whole)
    }
    return datagrams
  }

  /** The partial is full: a whole datagram, or a length behind which the bytes are still to come. */
  #finish(full: Buffer): Buffer | undefined {
    const size = LENGTH + lengthIn(full, 0)
    if (full.length < size) {
      this.#partial = Buffer.allocUnsafe(size)
      full.copy(this.#partial)
      return undefined
    }
    this.#partial = undefined
    return full.subarray(LENGTH)
  }
}

function lengthIn(bytes: Buffer, at: number): number {
  const length = bytes.readUInt16BE(at)
  if (length <= MAX_DATAGRAM) return length
  throw violation(`announced a datagram of ${length} bytes, where ${MAX_DATAGRAM} are the most`)
}
