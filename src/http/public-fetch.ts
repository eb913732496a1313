/** `fetch` for public URLs, names in `localhost` among them, which Node's own does not find. */

const MAX_REDIRECTS = 20
const REDIRECTS = [301, 302, 303, 307, 308]

export async function publicFetch(first: URL, init: RequestInit = {}): Promise<Response> {
  let [url, request] = [first, init]
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    if (!isLocalName(url)) return fetch(url, request)
    const headers = new Headers(request.headers)
    headers.set('host', url.host)
    const { redirect = 'follow' } = init
    const mode = redirect === 'follow' ? 'manual' : redirect
    const answer = await fetch(dialled(url), { ...request, headers, redirect: mode })
    const location = answer.headers.get('location')
    if (redirect !== 'follow' || location === null || !REDIRECTS.includes(answer.status)) {
      return Object.defineProperty(answer, 'url', { value: url.href })
    }
    await answer.body?.cancel()
    const next = new URL(location, url)
    request = redirected(request, answer.status, next.origin === url.origin)
    url = next
  }
  throw new TypeError(`fetch failed: ${first.href} redirects more than ${MAX_REDIRECTS} times`)
}

function isLocalName({ protocol, hostname }: URL): boolean {
  return protocol === 'http:' && hostname.endsWith('.localhost')
}

function dialled(url: URL): URL {
  const target = new URL(url)
  target.hostname = 'localhost'
  return target
}

/** The request that follows (Fetch standard, HTTP-redirect fetch). */
function redirected(request: RequestInit, status: number, isSameOrigin: boolean): RequestInit {
  const method = (request.method ?? 'GET').toUpperCase()
  const headers = new Headers(request.headers)
  if (!isSameOrigin) for (const name of ['authorization', 'cookie', 'host']) headers.delete(name)
  const becomesGet = (status === 303 && method !== 'HEAD') || (status < 303 && method === 'POST')
  if (!becomesGet) return { ...request, headers }
  for (const name of ['content-type', 'content-length', 'content-encoding']) headers.delete(name)
  return { ...request, headers, method: 'GET', body: null }
}
