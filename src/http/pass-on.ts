import type { IncomingMessage, RequestOptions, ServerResponse } from 'node:http'
import { whenTurned } from '../turn.js'
import { refusalOf, refuse } from './answers.js'
import { answerHeaders, type Origin, requestHeaders, trailersOf, valuesOf } from './headers.js'
import type { Way } from './way.js'

/** A request and who waits for its answer. */
export interface Exchange {
  request: IncomingMessage
  response: ServerResponse
  origin: Origin
  /** Another way to the target, where the connection turns out to be gone. */
  way(): Way
}

/** Longest head of an answer, in bytes. */
const MAX_ANSWER_HEAD = 65_536
/** May be sent again where nothing shows that it has arrived. */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE'])
/** Have no body, unless they say so. */
const BODILESS = new Set([...SAFE, 'DELETE', 'CONNECT'])

/** Passes a request on to the target, and its answer back. What breaks on one side is cut on the other. */
export function passOn(exchange: Exchange, way = exchange.way()): void {
  const { request, response } = exchange
  const expects = request.headers.expect !== undefined
  const upstream = way.isFor.http.request({ ...optionsFor(exchange, way), agent: way.agent })
  let hasContinued = !expects

  upstream.on('continue', () => {
    if (hasContinued) return
    hasContinued = true
    response.writeContinue()
  })
  upstream.on('information', ({ statusCode, rawHeaders }) => {
    if (statusCode === 103) passHints(response, valuesOf(rawHeaders, 'link'))
  })
  // Nobody has asked for another protocol. Without a listener, Node would cut the connection and not say so.
  upstream.on('upgrade', (_answer, target) => {
    target.destroy()
    fail(exchange, way, new Error('an upgrade that nobody has asked for'))
  })
  upstream.on('response', (answer) => {
    way.keepsFor(answer.headers['keep-alive'] as string | undefined)
    // What was announced need not be sent any more, and the next bytes could be either.
    if (!hasContinued) response.shouldKeepAlive = false
    passBack(answer, exchange, way)
  })
  upstream.on('error', (error) => {
    const isStale = upstream.reusedSocket && !response.headersSent && SAFE.has(request.method ?? '')
    if (isStale && !hasBody(request) && !response.destroyed) return passOn(exchange, exchange.way())
    fail(exchange, way, error)
  })
  response.once('close', () => {
    // Its visitor has left, or was answered before all that it sends has come.
    if (!response.writableFinished || !upstream.writableFinished) upstream.destroy()
  })
  if (expects) upstream.flushHeaders()
  if (!hasBody(request)) return void upstream.end()
  request.pipe(upstream, { end: false })
  request.once('end', () => {
    // Where the rest of it was thrown away, this is not its end.
    if (response.writableFinished || !request.complete) return
    upstream.addTrailers(trailersOf(request.rawTrailers))
    upstream.end()
  })
  request.once('error', () => upstream.destroy())
}

/** Tells early what an answer will link to. Where the visitor does not read, or Node takes no such link, it does without. */
function passHints(response: ServerResponse, link: string[]): void {
  if (link.length === 0 || response.writableNeedDrain) return
  try {
    response.writeEarlyHints({ link })
  } catch {
    // The answer has them again.
  }
}

/** What the request is sent on with, for http.request. */
export function optionsFor({ request, origin }: Exchange, way: Way, upgrades = false): RequestOptions {
  const hidesAuthorization = way.isFor.site.basicAuth !== undefined
  const headers = requestHeaders(request.rawHeaders, origin, { upgrades, hidesAuthorization })
  const isEmpty = !hasBody(request) && !BODILESS.has(request.method ?? '')
  if (isEmpty && valuesOf(headers, 'content-length').length === 0) headers.push('Content-Length', '0')
  return {
    method: request.method,
    path: request.url,
    // As it came: names and values in turn, which the types do not have.
    headers: headers as unknown as Record<string, string>,
    maxHeaderSize: MAX_ANSWER_HEAD,
    insecureHTTPParser: false,
  }
}

/** Passes an answer back to the visitor. */
export function passBack(answer: IncomingMessage, exchange: Exchange, way: Way): void {
  const { response } = exchange
  if (response.destroyed) return void answer.destroy()
  response.sendDate = false
  if (answer.statusCode === 101) {
    answer.destroy()
    fail(exchange, way, new Error('an upgrade without a protocol'))
    return
  }
  try {
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage, answerHeaders(answer.rawHeaders))
  } catch (error) {
    answer.destroy()
    fail(exchange, way, error)
    return
  }
  // The head goes together with what there is of a body, and in any case at once: the first event of a stream may be long in coming.
  response.cork()
  response.flushHeaders()
  whenTurned(() => response.uncork())
  answer.pipe(response, { end: false })
  answer.once('end', () => {
    if (!answer.complete) return
    response.addTrailers(trailersOf(answer.rawTrailers))
    response.end()
  })
  answer.once('error', () => response.destroy())
}

/** The target gave no answer, or broke off in the middle of it. */
export function fail({ request, response }: Exchange, { isFor }: Way, error: unknown): void {
  if (response.headersSent || response.destroyed) response.destroy()
  else refuse(request, response, { ...refusalOf(error, isFor.site.hostname), ends: !request.complete })
}

export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}
