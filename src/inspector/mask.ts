import type { Header } from './record.js'

/** What stands in place of a secret. */
const MASK = '***'

/** Headers that hold a secret, by their names. */
const SECRET_HEADER =
  /^((proxy-)?authorization|(set-)?cookie|.*(api-?key|token|secret|password|signature).*)$/i

/** Keys of a query that do. */
const SECRET_KEY = /(token|secret|api-?key|passw(or)?d|signature)$|(^|[-_.])(key|sig|pwd|auth|code)$/i

/** Headers without the secrets in them. Of cookies the names stay, and of an authorization its scheme. */
export function maskHeaders(headers: readonly Header[]): Header[] {
  return headers.map(([name, value]) => [name, maskHeader(name.toLowerCase(), value)])
}

/** The value of a header, named in lower case, without the secrets in it. */
function maskHeader(name: string, value: string): string {
  // Many are URLs: Referer, Location, Link, X-Original-URL.
  if (!SECRET_HEADER.test(name)) return maskUrl(value)
  if (name === 'cookie') return value.split(';').map(maskCookie).join(';')
  if (name === 'set-cookie') return value.replace(/^[^;]*/, maskCookie)
  const [, scheme = ''] = /^([A-Za-z]+ )./.exec(name.endsWith('authorization') ? value : '') ?? []
  return scheme + MASK
}

/** `name=value`; one without a name is all secret. */
function maskCookie(cookie: string): string {
  const [, name = '', value] = /^(\s*(?:[^=]*=)?)(.*)$/s.exec(cookie) ?? []
  return value === '' ? cookie : name + MASK
}

/** A URL, or a path with its query, without the password in front of a host and the secrets in what stands behind `?` and `#`. */
export function maskUrl(url: string): string {
  const [, path = '', rest = ''] = /^([^?#]*)(.*)$/s.exec(url) ?? []
  return path.replace(/:\/\/[^/@]*@/g, `://${MASK}@`) + rest.replace(/[^?&#][^&#]*/g, maskPair)
}

function maskPair(pair: string): string {
  const end = pair.indexOf('=')
  const key = pair.slice(0, Math.max(0, end))
  return SECRET_KEY.test(decoded(key)) ? `${key}=${MASK}` : pair
}

function decoded(key: string): string {
  try {
    return decodeURIComponent(key)
  } catch {
    return key
  }
}
