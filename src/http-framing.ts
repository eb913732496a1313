import { TunnelError } from './errors.js'

/** Longest head of a request, in bytes: most servers take less, 16 KiB in Node and 32 KiB in nginx. */
export const MAX_HEAD = 65_536

/** The head of a request, as far as the relay has to understand it. */
export interface Head {
  method: string
  /** The request line. */
  first: string
  fields: Field[]
  /** Bytes that follow, where no chunks do. */
  body: number | 'chunked'
  /** Whether the connection is to speak something else from then on. */
  asksUpgrade: boolean
}

export interface Field {
  name: string
  value: string
  /** Both, as they came. */
  line: string
}

/** What a name is made of (RFC 9110, 5.6.2). */
const TOKEN = /^[!#$%&'*+.^_`|~\w-]+$/
const REQUEST_LINE = /^([!#$%&'*+.^_`|~\w-]+) [!-~\u0080-\u00ff]+ HTTP\/1\.([01])$/
const CHUNK_SIZE = /^([\da-f]{1,13})(?:;[\t -~\u0080-\u00ff]*)?$/i
/** What a value may not have: all that could look like the end of a line to somebody. */
const FORBIDDEN = /[^\t -~\u0080-\u00ff]/

/**
 * Understands the lines of a head, given in Latin-1. Throws where two readers could disagree about where the request
 * ends (RFC 9112, 6.3 and 11.2): what one of them takes for a body would be a request to the other.
 */
export function parseHead(lines: string[]): Head {
  const [first = '', ...rest] = lines
  const [method = '', minor = ''] = parseFirstLine(first)
  const fields = rest.map(parseField)
  const values = (name: string) => fields.filter((field) => isNamed(field, name)).map(({ value }) => value)
  const [coding, length] = [values('transfer-encoding'), values('content-length')]

  if (values('host').length > 1) throw unclear('it has more than one Host header')
  if (coding.length + length.length > 1) throw unclear('more than one header tells where it ends')
  return {
    method,
    first,
    fields,
    body: coding[0] !== undefined ? readCoding(coding[0], minor) : readLength(length[0] ?? '0'),
    asksUpgrade: values('upgrade').length > 0 && /\bupgrade\b/i.test(values('connection').join()),
  }
}

/** Its method, and behind HTTP/1 the minor version. */
export function parseFirstLine(line: string): string[] {
  const [, ...parts] = REQUEST_LINE.exec(line) ?? []
  if (parts.length === 0) throw unclear('it does not begin as requests do')
  return parts
}

/** Whether this begins with the first line of a request; undefined while that is not sure. */
export function beginsRequest(text: string, methods: readonly string[]): boolean | undefined {
  const end = text.indexOf('\r\n')
  const [method = '', ...behind] = text.split(' ', 2)
  if (behind.length === 0) return methods.some((one) => one.startsWith(text)) ? undefined : false
  if (!methods.includes(method)) return false
  if (end >= 0) return REQUEST_LINE.test(text.slice(0, end))
  return text.includes('\n') || text.length > MAX_HEAD ? false : undefined
}

/** A line of a head behind the first. */
export function parseField(line: string): Field {
  const colon = line.indexOf(':')
  const name = line.slice(0, Math.max(0, colon))
  if (!TOKEN.test(name) || FORBIDDEN.test(line)) throw unclear('one of its headers is malformed')
  return { name, value: withoutBlanks(line.slice(colon + 1)), line }
}

/** Without the spaces and tabs around it. `trim` takes NBSP for one of them, which in Latin-1 is the last byte of many a letter. */
function withoutBlanks(text: string): string {
  let [start, end] = [0, text.length]
  while (text[start] === ' ' || text[start] === '\t') start++
  while (end > start && (text[end - 1] === ' ' || text[end - 1] === '\t')) end--
  return text.slice(start, end)
}

export function isNamed(field: Field, name: string): boolean {
  return field.name.toLowerCase() === name
}

/** Bytes of the chunk that this line announces. */
export function parseChunkSize(line: string): number {
  const [, digits] = CHUNK_SIZE.exec(line) ?? []
  if (digits === undefined) throw unclear('the size of a chunk is malformed')
  return Number.parseInt(digits, 16)
}

/** Why a request can't be passed on. */
export function unclear(reason: string): TunnelError {
  const next = 'leave hostHeader out if the target is to see it'
  return new TunnelError('protocol-violation', `a request of the visitor is not clear, as ${reason}: ${next}`)
}

function readCoding(value: string, minor: string): 'chunked' {
  if (value.toLowerCase() === 'chunked' && minor === '1') return 'chunked'
  throw unclear('its Transfer-Encoding is another than chunked')
}

function readLength(value: string): number {
  if (/^\d{1,15}$/.test(value)) return Number(value)
  throw unclear('its Content-Length is no number')
}
