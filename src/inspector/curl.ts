import type { ExportOptions } from './har.js'
import { maskHeaders, maskUrl } from './mask.js'
import { type RecordedRequest, valuesOf } from './record.js'

/** Headers that curl makes itself. */
const OWN = new Set(['content-length', 'transfer-encoding', 'connection', 'accept-encoding', 'expect'])

/** Longest body in a command, in bytes: Linux takes 128 KiB in one argument. */
const MAX_ARGUMENT = 100_000

/** What a shell can't hold, or a terminal would act on where the command is pasted: an Escape may end the paste. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const CONTROL = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/

/** A path that curl does not take to pieces. */
const PLAIN_PATH = /^\/[\w.~%!$&'()*+,;=:@/?-]*$/

/** A command of a POSIX shell that sends the request again. `base` is the address that it is sent to. */
export function toCurl(
  request: RecordedRequest,
  base: string,
  { showSecrets = false }: ExportOptions = {},
): string {
  const { method, body } = request
  const url = showSecrets ? request.url : maskUrl(request.url)
  const headers = (showSecrets ? request.headers : maskHeaders(request.headers)).filter(
    ([name]) => !OWN.has(name.toLowerCase()),
  )
  const hasBody = body.size > 0
  const text = body.isTruncated || body.size > MAX_ARGUMENT ? undefined : textOf(body.bytes)
  const isPlain = PLAIN_PATH.test(url)
  const options = [
    method === 'HEAD' && !hasBody ? '--head' : `--request ${quote(method)}`,
    '--globoff --path-as-is',
    ...(isPlain ? [] : [`--request-target ${quoteBytes(url)}`]),
    // curl takes a header without a value for one to leave out.
    ...headers.map(
      ([name, value]) => `--header ${quoteBytes(value === '' ? `${name};` : `${name}: ${value}`)}`,
    ),
    ...(valuesOf(request.headers, 'accept-encoding').length > 0 ? ['--compressed'] : []),
    // It would name a type of its own.
    ...(hasBody && valuesOf(headers, 'content-type').length === 0 ? ["--header 'Content-Type:'"] : []),
    ...(hasBody ? [text === undefined ? '--data-binary @body' : `--data-raw ${quote(text)}`] : []),
  ]
  const lines = [`curl ${quote(isPlain ? base + url : base)}`, ...options].join(' \\\n  ')
  return hasBody && text === undefined
    ? `# Its body is no text, is long, or was not kept whole: put it into the file «body».\n${lines}`
    : lines
}

/** Bytes as the text that a shell makes the same bytes of; undefined where there is none. */
function textOf(bytes: Buffer): string | undefined {
  const text = bytes.toString()
  return !CONTROL.test(text) && Buffer.from(text).equals(bytes) ? text : undefined
}

function quote(text: string): string {
  return /^[\w./:=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

/** What stands in a head, in Latin-1: as text where it is UTF-8, otherwise byte by byte. */
function quoteBytes(line: string): string {
  const bytes = Buffer.from(line, 'latin1')
  const text = textOf(bytes)
  if (text !== undefined) return quote(text)
  const escaped = line.replace(/[^\w ./:=@+-]/g, (one) =>
    one === '%' ? '%%' : `\\${one.charCodeAt(0).toString(8).padStart(3, '0')}`,
  )
  return `"$(printf '${escaped}')"`
}
