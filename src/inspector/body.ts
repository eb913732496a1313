import { TunnelError } from '../errors.js'
import { NOTHING } from '../stream.js'
import type { DecodedBody } from './decode.js'
import type { Header, RecordedBody } from './record.js'

/** Where many small pieces come, they share memory of at least so many bytes. */
const LEAST = 1_024

/** A body that is coming. Of what is kept, it knows the cost; who lets it keep more is asked first. */
export class Body implements RecordedBody {
  size = 0
  #kept = NOTHING
  #length = 0
  /** Most bytes to keep. */
  #limit: number

  /** Those of its message. */
  readonly #headers: () => readonly Header[]

  constructor(limit: number, headers: () => readonly Header[]) {
    this.#limit = limit
    this.#headers = headers
  }

  get bytes(): Buffer {
    return this.#kept.subarray(0, this.#length)
  }

  get isTruncated(): boolean {
    return this.size > this.#length
  }

  async text(): Promise<string> {
    return textOf(await this.#decode())
  }

  async json(): Promise<unknown> {
    const decoded = await this.#decode()
    if (!decoded.isTruncated) return JSON.parse(textOf(decoded))
    const message = `of the body of ${this.size} bytes the beginning alone is kept: open the tunnel with a higher inspect.maxBodySize`
    throw new TunnelError('limit-reached', message)
  }

  async #decode(): Promise<DecodedBody> {
    const { decodeBody } = await import('./decode.js')
    return decodeBody(this, this.#headers())
  }

  /** Memory that it takes. */
  get cost(): number {
    return this.#kept.length
  }

  /** Takes a copy of what there is room for. */
  append(piece: Buffer): void {
    // What comes behind a gap is not kept, though there may be room for it.
    const count = this.isTruncated ? 0 : Math.min(piece.length, this.#limit - this.#length)
    this.size += piece.length
    if (count <= 0) return
    const needed = this.#length + count
    if (needed > this.#kept.length) {
      const grown = Buffer.allocUnsafeSlow(Math.min(this.#limit, Math.max(LEAST, needed, this.#length * 2)))
      this.#kept.copy(grown)
      this.#kept = grown
    }
    piece.copy(this.#kept, this.#length, 0, count)
    this.#length = needed
  }

  /** Forgets all, and keeps nothing any more. */
  drop(): void {
    this.#limit = 0
    this.#length = 0
    this.#kept = NOTHING
  }
}

/** Also of what its type says is no text, as it is asked for. */
function textOf({ bytes, text, coded }: DecodedBody): string {
  if (coded !== undefined) throw new TypeError(`the body is in the coding ${coded}, which can't be undone`)
  return text ?? bytes.toString()
}
