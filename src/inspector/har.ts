import { cookiesIn, cookiesSetIn, type HarCookie } from './cookies.js'
import { type DecodedBody, decodeBody } from './decode.js'
import { maskHeaders, maskUrl } from './mask.js'
import { type Header, type RecordedBody, type RecordedRequest, valuesOf } from './record.js'

/** Bytes to which the bodies of one archive are decoded; the others stay coded. What is kept of all is bounded, and can become a thousand times as much. */
const MAX_DECODED = 67_108_864

const CREATOR = { name: 'pipe-tunnel', version: '0.1.0' }

/** What an export shows. */
export interface ExportOptions {
  /** Shows secrets in headers and queries. Default false: they are masked. */
  showSecrets?: boolean
}

/** An HTTP Archive, version 1.2, for browsers and other tools to read. */
export interface Har {
  log: { version: '1.2'; creator: { name: string; version: string }; entries: HarEntry[] }
}

/** One request of a {@link Har}, with its answer; where there was none, that has the status 0. */
export interface HarEntry {
  startedDateTime: string
  time: number
  request: {
    method: string
    url: string
    httpVersion: string
    cookies: HarCookie[]
    headers: HarPair[]
    queryString: HarPair[]
    headersSize: number
    bodySize: number
    postData?: { mimeType: string; text: string; _encoding?: 'base64' }
  }
  response: {
    status: number
    statusText: string
    httpVersion: string
    cookies: HarCookie[]
    headers: HarPair[]
    content: { size: number; mimeType: string; text: string; encoding?: 'base64' }
    redirectURL: string
    headersSize: number
    bodySize: number
  }
  cache: Record<string, never>
  timings: { send: number; wait: number; receive: number }
  connection: string
  comment?: string
}

interface HarPair {
  name: string
  value: string
}

/** Requests as an archive. `base` is the address that they came to. */
export async function toHar(
  requests: readonly RecordedRequest[],
  base: string,
  { showSecrets = false }: ExportOptions = {},
): Promise<Har> {
  const entries: HarEntry[] = []
  let left = MAX_DECODED
  const decode: Decode = async (body, headers) => {
    const decoded = await decodeBody(body, headers, left)
    left = Math.max(0, left - decoded.bytes.length)
    return decoded
  }
  for (const request of requests) entries.push(await toEntry(request, { base, showSecrets, decode }))
  return { log: { version: '1.2', creator: CREATOR, entries } }
}

type Decode = (body: RecordedBody, headers: readonly Header[]) => Promise<DecodedBody>

interface EntryOptions {
  base: string
  showSecrets: boolean
  decode: Decode
}

async function toEntry(
  request: RecordedRequest,
  { base, showSecrets, decode }: EntryOptions,
): Promise<HarEntry> {
  const { method, startedAt, duration, httpVersion, headers, body, connection, response } = request
  const url = showSecrets ? request.url : maskUrl(request.url)
  const shown = (all: readonly Header[]) => (showSecrets ? all : maskHeaders(all))
  const sentHeaders = shown(headers)
  const answerHeaders = shown(response?.headers ?? [])
  const sent = await decode(body, headers)
  const answered = response && (await decode(response.body, response.headers))
  const wait = response?.after ?? duration
  const comment = commentOf(request, sent, answered)
  return {
    startedDateTime: startedAt.toISOString(),
    time: duration,
    request: {
      method,
      url: toAbsolute(url, base),
      httpVersion: `HTTP/${httpVersion}`,
      cookies: cookiesIn(sentHeaders),
      headers: sentHeaders.map(toPair),
      queryString: queryOf(url),
      headersSize: -1,
      bodySize: body.size,
      ...(body.size > 0 && { postData: toPostData(sent, headers) }),
    },
    response: {
      status: response?.status ?? 0,
      statusText: response?.statusText ?? '',
      httpVersion: `HTTP/${response?.httpVersion ?? httpVersion}`,
      cookies: cookiesSetIn(answerHeaders),
      headers: answerHeaders.map(toPair),
      content: toContent(answered, response?.headers ?? []),
      redirectURL: valuesOf(answerHeaders, 'location')[0] ?? '',
      headersSize: -1,
      bodySize: response?.body.size ?? -1,
    },
    cache: {},
    timings: { send: 0, wait, receive: duration - wait },
    connection,
    ...(comment && { comment }),
  }
}

/** A path, or what CONNECT and OPTIONS have in its place, as a URL. */
function toAbsolute(url: string, base: string): string {
  if (/^https?:\/\//i.test(url)) return url
  return url.startsWith('/') ? base + url : `${base}/${url}`
}

function toPair([name, value]: Header): HarPair {
  return { name, value }
}

function toPostData({ bytes, text }: DecodedBody, headers: readonly Header[]) {
  const mimeType = typeOf(headers)
  if (text !== undefined) return { mimeType, text }
  // The format has no way to say so but a name of one's own.
  return { mimeType, text: bytes.toString('base64'), _encoding: 'base64' as const }
}

function toContent(decoded: DecodedBody | undefined, headers: readonly Header[]) {
  const [mimeType, size] = [typeOf(headers), decoded?.bytes.length ?? 0]
  if (!decoded || decoded.text !== undefined) return { size, mimeType, text: decoded?.text ?? '' }
  return { size, mimeType, text: decoded.bytes.toString('base64'), encoding: 'base64' as const }
}

/** With its parameters, such as the charset. */
function typeOf(headers: readonly Header[]): string {
  return valuesOf(headers, 'content-type')[0] ?? ''
}

function queryOf(url: string): HarPair[] {
  const [, query = ''] = /\?([^#]*)/.exec(url) ?? []
  return [...new URLSearchParams(query)].map(([name, value]) => ({ name, value }))
}

/** What a reader has to know who takes it for the whole. */
function commentOf({ state, response, headers }: RecordedRequest, sent: DecodedBody, answered?: DecodedBody) {
  const remarks = [
    state === 'aborted' && 'it broke off',
    state === 'open' && 'it goes on',
    response?.status === 101 && `upgraded to ${valuesOf(headers, 'upgrade').join() || 'another protocol'}`,
    sent.isTruncated && 'of its body the beginning alone was kept',
    answered?.isTruncated && 'of the answer the beginning alone was kept',
  ]
  return remarks.filter(Boolean).join('; ')
}
