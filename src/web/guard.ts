import { timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

/** Sent with every answer. Nothing may run, be shown or be asked for but what the page brings, and nobody may frame it. */
export const HEADERS = {
  'Content-Security-Policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    'img-src blob:',
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join('; '),
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Cache-Control': 'no-store',
}

/** The HTTP status of a refusal, and why. */
export interface Refused {
  status: number
  reason: string
}

/** What is asked for, behind the token: `api/requests?id=3`. */
export interface Allowed {
  path: string
  query: URLSearchParams
}

/**
 * Lets in who was given the URL of the page, and the page itself. A name of somebody else's that leads to this machine (DNS rebinding)
 * shows in Host, another site in Origin or Sec-Fetch-Site; and neither knows the token.
 */
export function judge(request: IncomingMessage, port: number, token: string): Allowed | Refused {
  const { host = '', origin, 'sec-fetch-site': site = 'none', 'content-type': type = '' } = request.headers
  const hosts = ['127.0.0.1', 'localhost', '[::1]'].map((name) => `${name}:${port}`)
  if (!hosts.includes(host)) return { status: 421, reason: 'this page is not known by that name' }
  if (origin !== undefined && origin !== `http://${host}`) return { status: 403, reason: 'another site asks' }
  // A link in another program, or a bookmark, is `none`.
  if (site !== 'same-origin' && site !== 'none') return { status: 403, reason: 'another site asks' }
  const [, given = '', path = '', query = ''] = /^\/([^/?]*)\/([^?]*)\??(.*)$/.exec(request.url ?? '') ?? []
  if (!isSame(given, token))
    return { status: 404, reason: 'the URL is not whole: take the one that was printed' }
  if (request.method !== 'GET' && request.method !== 'POST')
    return { status: 405, reason: 'GET and POST alone' }
  // A form of another site can't send this type.
  if (request.method === 'POST' && type !== 'application/json') return { status: 415, reason: 'JSON alone' }
  return { path, query: new URLSearchParams(query) }
}

/** Takes the same time wherever they differ. */
function isSame(given: string, wanted: string): boolean {
  const [one, other] = [Buffer.from(given), Buffer.from(wanted)]
  return one.length === other.length && timingSafeEqual(one, other)
}
