import { type DecodedBody, decodeBody, pictureType } from './inspector/decode.js'
import type { Header, RecordedBody, RecordedRequest } from './inspector/record.js'
import type { RecordedRejection } from './rejections.js'

/** Most bytes of what is no text that a page is given, other than of pictures. */
const MAX_HEX = 16_384
/** Most characters of a text. */
const MAX_TEXT = 1_048_576
/** Most characters of a url in the list. */
const MAX_URL = 1_024

/** A request in the list. */
export function summary(target: string, request: RecordedRequest) {
  const { id, method, url, state, duration, startedAt, replayOf = null, body, response } = request
  return {
    id,
    target,
    method,
    url: url.length > MAX_URL ? `${url.slice(0, MAX_URL)}…` : url,
    state,
    duration,
    startedAt: startedAt.getTime(),
    replayOf,
    status: response?.status ?? null,
    bytesIn: body.size,
    bytesOut: response?.body.size ?? 0,
  }
}

/** All of a request. `reason` is why its connection broke. */
export async function detail(target: string, request: RecordedRequest, reason: string | undefined) {
  const { url, httpVersion, visitor, headers, body, response } = request
  return {
    ...summary(target, request),
    url,
    reason: reason ?? null,
    httpVersion,
    visitor,
    headers,
    body: await shown(body, headers),
    response: response && { ...response, body: await shown(response.body, response.headers) },
  }
}

/** A visitor that was turned away, in the list and on its own. */
export function rejection(target: string, { id, at, visitor, error }: RecordedRejection) {
  const outcome = error.code === 'target-unreachable' ? 'not reached' : 'turned away'
  return { id, target, state: 'rejected', outcome, reason: error.message, startedAt: at.getTime(), visitor }
}

/** A body as a page shows it: text, a picture, or bytes; never what would run. */
async function shown(body: RecordedBody, headers: readonly Header[]) {
  const decoded: DecodedBody = await decodeBody(body, headers)
  const { bytes, text, type, coded = null } = decoded
  const picture = pictureType(decoded) ?? null
  const isDecoded = bytes.length !== body.bytes.length || !bytes.equals(body.bytes)
  const about = { size: body.size, isTruncated: decoded.isTruncated, isDecoded, type, coded, picture }
  if (text !== undefined && !picture) {
    const isCut = text.length > MAX_TEXT
    const given = isCut ? text.slice(0, MAX_TEXT) : text
    return {
      ...about,
      text: given,
      shownSize: isCut ? Buffer.byteLength(given) : bytes.length,
      isTruncated: about.isTruncated || isCut,
    }
  }
  const given = picture ? bytes : bytes.subarray(0, MAX_HEX)
  return {
    ...about,
    base64: given.toString('base64'),
    shownSize: given.length,
    isTruncated: about.isTruncated || given.length < bytes.length,
  }
}
