/**
 * The wire: a header of 12 bytes, and behind the header of a data frame as many bytes as it tells.
 *
 *     version 8 | type 8 | flags 16 | stream id 32 | length 32        big endian
 */

export const HEADER = 12

const VERSION = 0

/** What the length means depends on the type. */
export const Type = {
  /** Bytes of a stream. Length: how many follow. */
  data: 0,
  /** Lets the peer send more on a stream. Length: how many bytes more. */
  windowUpdate: 1,
  /** With SYN a question, with ACK the answer. Length: a number that the answer repeats. */
  ping: 2,
  /** No more streams, please. Length: why, one of {@link GoAway}. */
  goAway: 3,
} as const

/** On frames of a stream; SYN and ACK on pings too. */
export const Flag = {
  /** The first frame of a stream. */
  syn: 1,
  /** The first frame of a stream's other end. */
  ack: 2,
  /** No more bytes follow in this direction. */
  fin: 4,
  /** The stream is gone, in both directions. */
  rst: 8,
} as const

export const GoAway = { normal: 0, protocolError: 1, internalError: 2 } as const

/** What either end of a new stream may send before it is told more. */
export const INITIAL_WINDOW = 262_144

/** The highest number that a field of a header can hold, and so a window too. */
export const MAX_UINT32 = 0xffff_ffff

export interface Header {
  readonly type: number
  readonly flags: number
  /** 0 for frames of the session. */
  readonly id: number
  readonly length: number
}

export function writeHeader(target: Buffer, at: number, { type, flags, id, length }: Header): void {
  target[at] = VERSION
  target[at + 1] = type
  target[at + 2] = 0
  target[at + 3] = flags
  target.writeUInt32BE(id, at + 4)
  target.writeUInt32BE(length, at + 8)
}

/** Whom the decoder tells. */
export interface FrameHandler {
  /** A frame has come; of a data frame that is not empty, the header. */
  onFrame(frame: Header): void
  /** Bytes of the data frame that came last: a part of the chunk, not a copy. */
  onPayload(bytes: Buffer, isLast: boolean): void
  /** These bytes are no frames. */
  onViolation(reason: string): void
}

/** Takes chunks that are split anywhere, and keeps no more of them than a part of a header. */
export class FrameDecoder {
  readonly #handler: FrameHandler
  readonly #partial = Buffer.alloc(HEADER)
  #filled = 0
  #payloadLeft = 0
  #isStopped = false

  constructor(handler: FrameHandler) {
    this.#handler = handler
  }

  /** Whether no frame is under way. */
  get isBetween(): boolean {
    return this.#filled === 0 && this.#payloadLeft === 0
  }

  decode(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length && !this.#isStopped) {
      at = this.#payloadLeft > 0 ? this.#takePayload(chunk, at) : this.#takeHeader(chunk, at)
    }
  }

  /** The handler wants no more of it, not even of the chunk that is being decoded. */
  stop(): void {
    this.#isStopped = true
  }

  #takeHeader(chunk: Buffer, at: number): number {
    if (this.#filled === 0 && chunk.length - at >= HEADER) {
      this.#begin(chunk, at)
      return at + HEADER
    }
    const copied = chunk.copy(this.#partial, this.#filled, at, at + HEADER - this.#filled)
    this.#filled += copied
    if (this.#filled === HEADER) {
      this.#filled = 0
      this.#begin(this.#partial, 0)
    }
    return at + copied
  }

  #takePayload(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#payloadLeft)
    this.#payloadLeft -= end - at
    this.#handler.onPayload(chunk.subarray(at, end), this.#payloadLeft === 0)
    return end
  }

  #begin(header: Buffer, at: number): void {
    const version = header[at]
    const type = header.readUInt8(at + 1)
    if (version !== VERSION) {
      this.#handler.onViolation(`a frame of version ${version}, where ${VERSION} is known`)
    } else if (type > Type.goAway) {
      this.#handler.onViolation(`a frame of the unknown type ${type}`)
    } else {
      const flags = header.readUInt16BE(at + 2)
      const length = header.readUInt32BE(at + 8)
      if (type === Type.data) this.#payloadLeft = length
      this.#handler.onFrame({ type, flags, id: header.readUInt32BE(at + 4), length })
    }
  }
}
