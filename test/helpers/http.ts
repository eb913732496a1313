/** HTTP as visitors and targets speak it, byte by byte where that matters. */
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import {
  createServer,
  openTunnel,
  type Server,
  type ServerOptions,
  type Tunnel,
  type TunnelOptions,
} from 'pipe-tunnel'
import { ask } from './visitor.js'

/** An HTTP server that a tunnel leads to. */
export interface HttpTarget extends AsyncDisposable {
  readonly port: number
  readonly server: http.Server
  /** Connections that it has accepted. */
  readonly connections: Duplex[]
}

export async function serveHttp(
  handler: http.RequestListener,
  options: http.ServerOptions = {},
): Promise<HttpTarget> {
  const server = http.createServer(options, handler)
  const connections: Duplex[] = []
  server.on('connection', (socket) => connections.push(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    server,
    connections,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      for (const socket of connections) socket.destroy()
      server.close()
    },
  }
}

/** A server with an HTTP port, and a tunnel to what the handler serves. */
export interface HttpWorld extends AsyncDisposable {
  server: Server
  target: HttpTarget
  tunnel: Tunnel
  /** Sends these bytes and a FIN to the HTTP port, and gives back all that comes. */
  raw(text: string): Promise<string>
}

export async function httpWorld(
  handler: http.RequestListener,
  options: TunnelOptions = {},
  serverOptions: ServerOptions = {},
): Promise<HttpWorld> {
  const server = await createServer({ http: { port: 0 }, ...serverOptions })
  const target = await serveHttp(handler)
  const tunnel = await openTunnel(target.port, { server, hostname: 'shop', ...options })
  return {
    server,
    target,
    tunnel,
    raw: async (text) => `${await ask({ port: server.httpPort }, text)}`,
    async [Symbol.asyncDispose]() {
      await tunnel.close()
      await server.close()
      await target[Symbol.asyncDispose]()
    },
  }
}

/** A request over an agent of its own choice; resolves with the answer, whose body is still to come. */
export async function request(
  url: string | URL,
  options: http.RequestOptions = {},
  body?: string | Buffer,
): Promise<http.IncomingMessage> {
  const sent = http.request(url, options)
  sent.end(body)
  const [answer] = await once(sent, 'response')
  return answer
}

export async function textOf(answer: http.IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of answer.setEncoding('utf8')) text += chunk
  return text
}
