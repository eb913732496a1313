import type { Transform } from 'node:stream'
import { TextDecoder } from 'node:util'
import { type Header, type RecordedBody, valuesOf } from './record.js'

// An import would be hoisted out of this part of the bundle, and loaded by all who import the package.
const { createBrotliDecompress, createGunzip, createInflate, createInflateRaw } =
  process.getBuiltinModule('node:zlib')

/** Most bytes that a body is decoded to: a few thousand of them can become gigabytes. */
const MAX_DECODED = 4_194_304
/** Codings that are undone, one inside the other. */
const MAX_CODINGS = 3

/** A body as it was before it was coded for the wire. */
export interface DecodedBody {
  readonly bytes: Buffer
  /** Whether there was more of it. */
  readonly isTruncated: boolean
  /** The codings of Content-Encoding that could not be undone. */
  readonly coded: string | undefined
  /** Of `Content-Type`, without its parameters and in lower case. */
  readonly type: string
  /** It as text, where it is one. */
  readonly text: string | undefined
}

/** Undoes the Content-Encoding of what was kept of a body, up to so many bytes. Never rejects. */
export async function decodeBody(
  body: Pick<RecordedBody, 'size' | 'bytes' | 'isTruncated'>,
  headers: readonly Header[],
  limit = MAX_DECODED,
): Promise<DecodedBody> {
  const max = Math.min(limit, MAX_DECODED)
  let { bytes, isTruncated } = body
  const codings = valuesOf(headers, 'content-encoding')
    .flatMap((value) => value.toLowerCase().split(','))
    .map((coding) => coding.trim())
    .filter((coding) => coding !== '' && coding !== 'identity')
  while (codings.length > 0 && bytes.length > 0 && max > 0) {
    const decoder = codings.length <= MAX_CODINGS && decoderOf(codings.at(-1), bytes)
    const decoded = decoder && (await inflate(bytes, decoder, max))
    if (!decoded) break
    codings.pop()
    bytes = decoded.bytes
    isTruncated ||= decoded.isTruncated
  }
  const [contentType = ''] = valuesOf(headers, 'content-type')
  const [type = ''] = contentType.toLowerCase().split(';')
  const coded = bytes.length > 0 && codings.length > 0 ? codings.join(', ') : undefined
  const text = coded === undefined ? textOf(bytes, type.trim(), contentType) : undefined
  return { bytes, isTruncated, coded, type: type.trim(), text }
}

function decoderOf(coding: string | undefined, bytes: Buffer): Transform | undefined {
  if (coding === 'gzip' || coding === 'x-gzip') return createGunzip()
  if (coding === 'br') return createBrotliDecompress()
  // Some leave the head of zlib out.
  if (coding === 'deflate') return ((bytes[0] ?? 0) & 15) === 8 ? createInflate() : createInflateRaw()
  return undefined
}

/** What comes out, up to the bound, also where the bytes break off. Undefined where nothing does. */
function inflate(
  bytes: Buffer,
  decoder: Transform,
  max: number,
): Promise<Pick<DecodedBody, 'bytes' | 'isTruncated'> | undefined> {
  return new Promise((resolve) => {
    const pieces: Buffer[] = []
    let length = 0
    let hasEnded = false
    decoder.on('data', (piece: Buffer) => {
      pieces.push(piece)
      length += piece.length
      if (length > max) decoder.destroy()
    })
    decoder.on('end', () => {
      hasEnded = true
    })
    // Where bytes are missing, an error comes behind those that could be read.
    decoder.on('error', () => {})
    decoder.on('close', () => {
      const decoded = Buffer.concat(pieces).subarray(0, max)
      if (!hasEnded && length === 0) resolve(undefined)
      else resolve({ bytes: decoded, isTruncated: !hasEnded })
    })
    decoder.end(bytes)
  })
}

/** Types that are text, whatever is in them. */
const TEXT = /^text\/|[/+](json|xml|javascript|x-www-form-urlencoded|graphql|yaml)$/

function textOf(bytes: Buffer, type: string, contentType: string): string | undefined {
  if (bytes.length === 0) return ''
  const [, charset = 'utf-8'] = /;\s*charset="?([\w-]+)/i.exec(contentType) ?? []
  if (TEXT.test(type)) return decoderFor(charset).decode(bytes)
  if (/^(image|audio|video|font)\//.test(type)) return undefined
  try {
    // Cut within a character, it is still text.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: true })
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what tells bytes from text.
    return /[\0-\x08\x0e-\x1a\x1c-\x1f]/.test(text) ? undefined : text
  } catch {
    return undefined
  }
}

function decoderFor(charset: string): TextDecoder {
  try {
    return new TextDecoder(charset)
  } catch {
    return new TextDecoder()
  }
}

/** Pictures that a browser shows and that run nothing, by how they begin. */
const PICTURES: [type: string, beginning: RegExp][] = [
  ['image/png', /^\x89PNG\r\n/],
  ['image/jpeg', /^\xff\xd8\xff/],
  ['image/gif', /^GIF8[79]a/],
  ['image/webp', /^RIFF....WEBP/s],
]

/** The type of a picture that may be shown; what the sender says of it counts for nothing. */
export function pictureType({ bytes, coded }: DecodedBody): string | undefined {
  if (coded !== undefined) return undefined
  const beginning = bytes.toString('latin1', 0, 16)
  return PICTURES.find(([, pattern]) => pattern.test(beginning))?.[0]
}
