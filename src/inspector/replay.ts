import { randomUUID } from 'node:crypto'
import { duplexPair } from 'node:stream'
import type { Arrival } from '../arrival.js'
import { type WaitOptions, whenAborted, withDeadline } from '../deadline.js'
import { TunnelError, toTunnelError } from '../errors.js'
import { invalidOption } from '../options.js'
import { type Header, type RecordedRequest, valuesOf } from './record.js'
import type { Recorder } from './recorder.js'

// An import would be hoisted out of this part of the bundle, and loaded by all who import the package.
const { METHODS, validateHeaderName, validateHeaderValue } = process.getBuiltinModule('node:http')

/** Headers that say how the request was sent, and not what it is. */
const OF_TRANSFER =
  /^(connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|content-length|upgrade|expect)$/i

/** What is to differ from the request that is sent again, and how long the answer may take. */
export interface ReplayEdits extends WaitOptions {
  /** Default: that of the request. */
  method?: string
  /** As in the first line: `/path?query`. Default: that of the request. */
  url?: string
  /** Default: those of the request. Content-Length and the like are made anew. */
  headers?: readonly Header[]
  /** Default: that of the request. */
  body?: string | Uint8Array
  /** Milliseconds until the whole answer is there. Default 30,000. */
  timeout?: number
}

/** Joins a stream with the target in place of a visitor's. */
export type Join = (replay: Omit<Arrival, 'cameTo'>) => void

/** Sends a request to its target again, and resolves with the record of that when it was answered. */
export async function replay(
  request: RecordedRequest,
  { timeout = 30_000, signal, ...edits }: ReplayEdits,
  recorder: Recorder,
  join: Join,
): Promise<RecordedRequest> {
  const message = format(request, edits)
  return withDeadline(`sending request ${request.id} again`, { timeout, signal }, (aborted) => {
    const [ours, theirs] = duplexPair()
    for (const stream of [ours, theirs]) stream.on('error', () => {})
    const connection = randomUUID()
    join({
      id: connection,
      visitor: request.visitor,
      replayOf: request.id,
      open: async () => theirs,
      turnAway: (error) => theirs.destroy(error),
    })
    return new Promise<RecordedRequest>((resolve, reject) => {
      const forget = whenAborted(aborted, (reason) => end(reason))
      recorder.on('request', recorderOnRequest)
      theirs.once('close', theirsOnClose)
      ours.resume()
      ours.write(message)
      // Also where nothing that came was an answer.
      ours.once('end', () => ours.end())

      function recorderOnRequest(ended: RecordedRequest) {
        if (ended.connection === connection) end(ended)
      }

      function theirsOnClose() {
        const failure = 'the target closed it without an answer, or what went either way was not clear'
        if (theirs.errored) end(toTunnelError(theirs.errored, 'connection-lost', failure))
        else end(new TunnelError('connection-lost', failure))
      }

      function end(result: RecordedRequest | TunnelError) {
        forget()
        recorder.off('request', recorderOnRequest)
        theirs.off('close', theirsOnClose)
        ours.destroy()
        theirs.destroy()
        if (result instanceof TunnelError) reject(result)
        else resolve(result)
      }
    })
  })
}

/** The request as bytes. */
function format(
  request: RecordedRequest,
  { method = request.method, url = request.url, headers = request.headers, body }: ReplayEdits,
): Buffer {
  if (!METHODS.includes(method) || method === 'CONNECT')
    throw invalidOption('method', 'a method such as GET or POST', method)
  if (!/^[!-~\u0080-\u00ff]+$/.test(url)) throw invalidOption('url', 'a path such as /path?query', url)
  if (request.response?.status === 101)
    throw new TunnelError(
      'invalid-option',
      'a connection that speaks another protocol since a request cannot be replayed',
    )
  if (body === undefined && request.body.isTruncated) {
    throw new TunnelError(
      'invalid-option',
      `of the body of request ${request.id} the beginning alone was kept: give another, or raise inspect.maxBodySize`,
    )
  }
  const bytes = Buffer.from(body ?? request.body.bytes)
  const hadBody = ['content-length', 'transfer-encoding'].some((name) => valuesOf(headers, name).length > 0)
  const all: Header[] = headers.filter(([name]) => !OF_TRANSFER.test(name))
  if (bytes.length > 0 || hadBody) all.push(['Content-Length', String(bytes.length)])
  all.push(['Connection', 'close'])
  const lines = all.map(([name, value]) => {
    checkHeader(name, value)
    return `${name}: ${value}`
  })
  const head = [`${method} ${url} HTTP/${request.httpVersion}`, ...lines, '', ''].join('\r\n')
  return Buffer.concat([Buffer.from(head, 'latin1'), bytes])
}

function checkHeader(name: string, value: string): void {
  try {
    validateHeaderName(name)
    validateHeaderValue(name, value)
  } catch (error) {
    throw toTunnelError(error, 'invalid-option', 'a header cannot be sent')
  }
}
