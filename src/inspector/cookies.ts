import { type Header, valuesOf } from './record.js'

/** A cookie, as an HTTP Archive has it. */
export interface HarCookie {
  name: string
  value: string
  path?: string
  domain?: string
  /** In ISO 8601. */
  expires?: string
  httpOnly?: boolean
  secure?: boolean
}

/** Those that a request brings. */
export function cookiesIn(headers: readonly Header[]): HarCookie[] {
  return valuesOf(headers, 'cookie')
    .flatMap((value) => value.split(';'))
    .filter((pair) => pair.trim() !== '')
    .map(parsePair)
}

/** Those that an answer sets. */
export function cookiesSetIn(headers: readonly Header[]): HarCookie[] {
  return valuesOf(headers, 'set-cookie').map((value) => {
    const [first = '', ...rest] = value.split(';')
    const attributes = new Map(
      rest
        .map(parsePair)
        .map(({ name, value: of }) => (name === '' ? [of.toLowerCase(), ''] : [name.toLowerCase(), of])),
    )
    const [path, domain] = [attributes.get('path'), attributes.get('domain')]
    const expires = new Date(attributes.get('expires') ?? Number.NaN)
    return {
      ...parsePair(first),
      ...(path !== undefined && { path }),
      ...(domain !== undefined && { domain }),
      ...(!Number.isNaN(expires.getTime()) && { expires: expires.toISOString() }),
      httpOnly: attributes.has('httponly'),
      secure: attributes.has('secure'),
    }
  })
}

/** What has no `=` is a value without a name, to browsers. */
function parsePair(pair: string): HarCookie {
  const end = pair.indexOf('=')
  return { name: pair.slice(0, Math.max(0, end)).trim(), value: pair.slice(end + 1).trim() }
}
