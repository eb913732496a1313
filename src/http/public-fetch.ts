/** `fetch` for public URLs, names in `localhost` among them, which Node's own does not find. */
import type { Agent, IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { ReadableStream as WebStream } from 'node:stream/web'
import { lookupForConnect } from '../lookup.js'
import { invalidOption } from '../options.js'
import { responseTo } from './response.js'

const MAX_REDIRECTS = 20
const REDIRECTS = [301, 302, 303, 307, 308]
/** Statuses whose answers have no body, not even an empty one. */
const BODILESS = [204, 205, 304]

/** What the tunnel has that is asked, and its `agent` where it has a name. */
interface PublicSite {
  url: string
  agent: Agent | undefined
}

/**
 * As the platform's `fetch`, with paths that are of the tunnel. Where the URL is one in `localhost`, we dial it by ourselves, and ask for no
 * compression.
 */
export async function publicFetch(
  input: string | URL | Request,
  init: RequestInit,
  { url: base, agent }: PublicSite,
): Promise<Response> {
  if (typeof input !== 'string' && !('href' in Object(input) || input instanceof Request))
    throw invalidOption('path', 'a path, a URL or a Request', input)
  if (!(input instanceof Request)) return follow(new URL(input, base), init, agent)
  return isLocalName(new URL(input.url)) ? follow(...(await partsOf(input, init)), agent) : fetch(input, init)
}

/** A request as who follows redirects needs it: with a body that can be sent twice. */
async function partsOf(request: Request, init: RequestInit): Promise<[URL, RequestInit]> {
  const { url, method, headers, redirect, signal } = request
  const body = request.body && init.body === undefined ? await request.arrayBuffer() : null
  return [new URL(url), { method, headers, redirect, signal, body, ...init }]
}

/** Asks, and where that is answered by a redirect, asks there. */
async function follow(first: URL, init: RequestInit, agent: Agent | undefined): Promise<Response> {
  let [url, options] = [first, init]
  const { redirect = 'follow' } = init
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    if (!isLocalName(url)) return fetch(url, options)
    const request = new Request(url, { duplex: 'half', ...options } as RequestInit)
    const answer = await send(request, options.body instanceof ReadableStream, agent)
    const location = answer.headers.get('location')
    if (redirect === 'manual' || location === null || !REDIRECTS.includes(answer.status)) return answer
    await answer.body?.cancel()
    if (redirect === 'error') throw new TypeError(`fetch failed: ${url.href} redirects to ${location}`)
    const next = new URL(location, url)
    options = redirected(options, answer.status, next.origin === url.origin)
    url = next
  }
  throw new TypeError(`fetch failed: ${first.href} redirects more than ${MAX_REDIRECTS} times`)
}

function isLocalName({ protocol, hostname }: URL): boolean {
  return /^https?:$/.test(protocol) && hostname.endsWith('.localhost')
}

/** Sends one request and gives its answer, whose body may still be on its way. */
async function send(request: Request, isStreamed: boolean, agent: Agent | undefined): Promise<Response> {
  const [http, https] = [await import('node:http'), await import('node:https')]
  const { url, method, signal, body } = request
  const isSecure = url.startsWith('https:')
  // That of the tunnel is for its own scheme alone.
  const isFitting = agent && agent instanceof https.Agent === isSecure
  const dialled = isFitting ? { agent } : { lookup: lookupForConnect, autoSelectFamily: true }
  const headers: Record<string, string> = Object.fromEntries(request.headers)
  const whole = body && !isStreamed ? Buffer.from(await request.arrayBuffer()) : undefined
  if (whole) headers['content-length'] = `${whole.length}`
  signal.throwIfAborted()
  const client = isSecure ? https : http
  const sent = client.request(url, { method, headers, signal, ...dialled })
  if (!body || whole) {
    sent.end(whole)
  } else {
    const source = Readable.fromWeb(body as WebStream).on('error', (error) => sent.destroy(error))
    sent.on('close', () => source.destroy())
    source.pipe(sent)
  }
  const answer = await responseTo(sent).catch((error) => {
    throw signal.aborted ? signal.reason : new TypeError('fetch failed', { cause: error })
  })
  const { statusCode: status = 0, statusMessage: statusText = '' } = answer
  const hasBody = method !== 'HEAD' && !BODILESS.includes(status)
  if (!hasBody) answer.resume()
  const stream = hasBody ? (Readable.toWeb(answer) as unknown as ReadableStream) : null
  const response = new Response(stream, { status, statusText, headers: headersOf(answer) })
  return Object.defineProperty(response, 'url', { value: url })
}

function headersOf({ rawHeaders }: IncomingMessage): Headers {
  const headers = new Headers()
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    headers.append(rawHeaders[i] as string, rawHeaders[i + 1] as string)
  }
  return headers
}

/** The request that follows (Fetch standard, HTTP-redirect fetch). */
function redirected(options: RequestInit, status: number, isSameOrigin: boolean): RequestInit {
  const method = (options.method ?? 'GET').toUpperCase()
  const headers = new Headers(options.headers)
  if (!isSameOrigin) for (const name of ['authorization', 'cookie']) headers.delete(name)
  const becomesGet = (status === 303 && method !== 'HEAD') || (status < 303 && method === 'POST')
  if (!becomesGet) return { ...options, headers }
  for (const name of ['content-type', 'content-length', 'content-encoding']) headers.delete(name)
  return { ...options, headers, method: 'GET', body: null }
}
