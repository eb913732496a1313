import { type DecodedBody, decodeBody } from './decode.js'
import { maskHeaders, maskUrl } from './mask.js'
import { type Header, type RecordedRequest, valuesOf } from './record.js'

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
    cookies: never[]
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
    cookies: never[]
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
  for (const request of requests) entries.push(await toEntry(request, base, showSecrets))
  return { log: { version: '1.2', creator: CREATOR, entries } }
}

async function toEntry(request: RecordedRequest, base: string, showSecrets: boolean): Promise<HarEntry> {
  const { method, startedAt, duration, httpVersion, headers, body, connection, response } = request
  const url = showSecrets ? request.url : maskUrl(request.url)
  const shown = (all: readonly Header[]) =>
    (showSecrets ? all : maskHeaders(all)).map(([name, value]) => ({ name, value }))
  const sent = await decodeBody(body, headers)
  const answered = response && (await decodeBody(response.body, response.headers))
  const answerHeaders = shown(response?.headers ?? [])
  const wait = response?.after ?? duration
  const comment = commentOf(request, sent, answered)
  return {
    startedDateTime: startedAt.toISOString(),
    time: duration,
    request: {
      method,
      url: url.startsWith('/') ? base + url : url,
      httpVersion: `HTTP/${httpVersion}`,
      cookies: [],
      headers: shown(headers),
      queryString: queryOf(url),
      headersSize: -1,
      bodySize: body.size,
      ...(body.size > 0 && { postData: toPostData(sent) }),
    },
    response: {
      status: response?.status ?? 0,
      statusText: response?.statusText ?? '',
      httpVersion: `HTTP/${response?.httpVersion ?? httpVersion}`,
      cookies: [],
      headers: answerHeaders,
      content: toContent(answered),
      redirectURL: answerHeaders.find(({ name }) => name.toLowerCase() === 'location')?.value ?? '',
      headersSize: -1,
      bodySize: response?.body.size ?? -1,
    },
    cache: {},
    timings: { send: 0, wait, receive: duration - wait },
    connection,
    ...(comment && { comment }),
  }
}

function toPostData({ bytes, text, type }: DecodedBody) {
  if (text !== undefined) return { mimeType: type, text }
  // The format has no way to say so but a name of one's own.
  return { mimeType: type, text: bytes.toString('base64'), _encoding: 'base64' as const }
}

function toContent(decoded: DecodedBody | undefined) {
  if (!decoded) return { size: 0, mimeType: '', text: '' }
  const { bytes, text, type } = decoded
  const size = bytes.length
  if (text !== undefined) return { size, mimeType: type, text }
  return { size, mimeType: type, text: bytes.toString('base64'), encoding: 'base64' as const }
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
