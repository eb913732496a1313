import { decodeBody } from './decode.js'
import type { ExportOptions } from './har.js'
import { maskHeaders, maskUrl } from './mask.js'
import { type RecordedRequest, valuesOf } from './record.js'

/** Headers that curl makes itself. */
const OWN = new Set(['content-length', 'transfer-encoding', 'connection', 'accept-encoding', 'expect'])

/** A command of a POSIX shell that sends the request again. `base` is the address that it is sent to. */
export async function toCurl(
  request: RecordedRequest,
  base: string,
  { showSecrets = false }: ExportOptions = {},
): Promise<string> {
  const { method, body } = request
  const url = showSecrets ? request.url : maskUrl(request.url)
  const headers = (showSecrets ? request.headers : maskHeaders(request.headers)).filter(
    ([name]) => !OWN.has(name.toLowerCase()),
  )
  const { text } = await decodeBody(body, request.headers)
  const isCoded = valuesOf(request.headers, 'content-encoding').length > 0
  const hasText = text !== undefined && !body.isTruncated && !isCoded
  const isPath = url.startsWith('/')
  const options = [
    method === 'HEAD' ? '--head' : `--request ${quote(method)}`,
    '--globoff --path-as-is',
    ...(isPath ? [] : [`--request-target ${quote(url)}`]),
    // curl takes a header without a value for one to leave out.
    ...headers.map(([name, value]) => `--header ${quote(value === '' ? `${name};` : `${name}: ${value}`)}`),
    ...(valuesOf(request.headers, 'accept-encoding').length > 0 ? ['--compressed'] : []),
    // It would name a type of its own.
    ...(body.size > 0 && valuesOf(headers, 'content-type').length === 0 ? ["--header 'Content-Type:'"] : []),
    ...(body.size > 0 ? [hasText ? `--data-raw ${quote(text)}` : '--data-binary @body'] : []),
  ]
  const lines = [`curl ${quote(isPath ? base + url : base)}`, ...options].join(' \\\n  ')
  return body.size > 0 && !hasText
    ? `# Its body is no text, or was not kept whole: put it into the file «body».\n${lines}`
    : lines
}

function quote(text: string): string {
  // A shell can't hold it.
  const safe = text.replaceAll('\0', '')
  return /^[\w./:=@%+-]+$/.test(safe) ? safe : `'${safe.replaceAll("'", `'\\''`)}'`
}
