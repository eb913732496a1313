import { randomBytes } from 'node:crypto'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { reasonOf, TunnelError } from '../errors.js'
import { listening } from '../listener.js'
import { EventStreams } from './events.js'
import { readPage } from './files.js'
import { type Allowed, HEADERS, judge } from './guard.js'

/** Most bytes of what a page sends. */
const MAX_BODY = 16_777_216
/** Connections of browsers, of which each has six or so. */
const MAX_CONNECTIONS = 128

/** What a page can ask for, and which of its views have something to show. What is given back is sent as JSON. */
export interface WebApi {
  /** In the heading of the page. */
  title: string
  /** Each is a script of the page of that name. */
  views: readonly string[]
  get: Readonly<Record<string, (query: URLSearchParams) => unknown>>
  post: Readonly<Record<string, (body: Record<string, unknown>) => unknown>>
  /** Tells of what changes. Gives back what ends that. */
  subscribe(send: (event: string, data: unknown) => void): () => void
}

/** A page that is served. */
export interface WebPage {
  /** With the token, without which nothing is answered. */
  readonly url: string
  close(): Promise<void>
}

/** Serves the page on 127.0.0.1; resolves when it listens. Rejects with `port-taken`. */
export async function serveWeb(api: WebApi, port = 0): Promise<WebPage> {
  const token = randomBytes(24).toString('base64url')
  const files = await readPage()
  const streams = new EventStreams()
  const server = http.createServer((request, response) => {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value)
    // One that breaks is closed by itself.
    response.on('error', () => {})
    answer(request, response).catch((error) => fail(response, error))
  })
  server.maxConnections = MAX_CONNECTIONS
  server.listen(port, '127.0.0.1')
  await listening(server, `127.0.0.1:${port}`)
  const bound = (server.address() as AddressInfo).port
  const unsubscribe = api.subscribe((event, data) => streams.send(event, data))
  return {
    url: `http://127.0.0.1:${bound}/${token}/`,
    async close() {
      unsubscribe()
      streams.close()
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const judged = judge(request, bound, token)
    if ('status' in judged) {
      response.writeHead(judged.status, { 'Content-Type': 'text/plain' }).end(`${judged.reason}\n`)
      return
    }
    const { path } = judged
    if (path === 'api/events') {
      if (!streams.add(response)) throw new TunnelError('limit-reached', 'too many pages are open')
    } else if (path.startsWith('api/')) {
      const value = await ask(path.slice('api/'.length), judged, request)
      // It may be more than a text can hold, which is told as long as no head was sent.
      const json = JSON.stringify(value ?? null)
      response.writeHead(200, { 'Content-Type': 'application/json' }).end(json)
    } else {
      const file = files.get(path || 'index.html')
      if (!file) throw notThere()
      response.writeHead(200, { 'Content-Type': file.type }).end(file.bytes)
    }
  }

  async function ask(name: string, { query }: Allowed, request: IncomingMessage): Promise<unknown> {
    if (name === 'about') return { title: api.title, views: api.views }
    const has = (routes: object) => Object.hasOwn(routes, name)
    if (request.method === 'GET' && has(api.get)) return api.get[name]?.(query)
    if (request.method === 'POST' && has(api.post)) return api.post[name]?.(await readJson(request))
    throw notThere()
  }
}

async function readJson(request: IncomingMessage): Promise<Record<string, unknown>> {
  const pieces: Buffer[] = []
  let length = 0
  // Left early, it would be destroyed, and the answer that tells why with it.
  for await (const piece of request.iterator({ destroyOnReturn: false })) {
    length += piece.length
    if (length > MAX_BODY) break
    pieces.push(piece)
  }
  if (length > MAX_BODY) {
    // Some hear no answer before they have sent all.
    request.resume()
    throw new TunnelError('limit-reached', `more than ${MAX_BODY} bytes were sent`)
  }
  try {
    const value: unknown = JSON.parse(Buffer.concat(pieces).toString())
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>
  } catch {
    // It is told below.
  }
  throw new TunnelError('invalid-option', 'what was sent is no JSON object')
}

function notThere(): TunnelError {
  return new TunnelError('invalid-option', 'there is nothing of that name')
}

function fail(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  const status = error instanceof TunnelError ? 400 : 500
  response
    .writeHead(status, { 'Content-Type': 'application/json' })
    .end(JSON.stringify({ error: reasonOf(error) }))
}
