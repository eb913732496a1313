/** Sample targets: servers on a free loopback port, or elsewhere, that are closed with everything inside. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { Target } from 'pipe-tunnel'

export interface SampleTarget extends AsyncDisposable {
  readonly port: number
  /** `localhost:PORT`, or `unix:/path`. */
  readonly address: string
  /** What to give to `openTunnel`: the address, or the server where that does not listen. */
  readonly target: Target
  /** Sockets that are open now. */
  readonly sockets: ReadonlySet<net.Socket>
  readonly server: net.Server
  /** Lets nobody in any more. */
  stop(): Promise<void>
  /** Listens where it did, or somewhere if it never did. */
  restart(): Promise<void>
}

/** What a sample target does with a connection. */
export type Serve = (socket: net.Socket) => void

/** A TCP server that hands each connection to `serve`. */
export async function tcpTarget(serve: Serve): Promise<SampleTarget> {
  return track(socketServer(serve))
}

/** The same on a unix socket. */
export async function unixTarget(serve: Serve): Promise<SampleTarget> {
  return track(socketServer(serve), { path: unixPath() })
}

/** The same without an address: a server that does not listen. */
export async function unlistenedTarget(serve: Serve): Promise<SampleTarget> {
  return track(socketServer(serve), 'nowhere')
}

/** A path at which no file is. */
export function unixPath(): string {
  return join(tmpdir(), `pipe-tunnel-${randomBytes(6).toString('hex')}.sock`)
}

/** Sends back what it gets, and ends when the visitor does. */
export function echoTarget(): Promise<SampleTarget> {
  return tcpTarget((socket) => socket.pipe(socket))
}

/** Speaks only after the visitor has finished: the request-then-EOF protocols. */
export function answerAtEndTarget(answer: (request: Buffer) => Buffer | string): Promise<SampleTarget> {
  return tcpTarget(async (socket) => socket.end(answer(await readAll(socket))))
}

/** Accepts and says nothing, ever; does not read either. */
export function silentTarget(): Promise<SampleTarget> {
  return tcpTarget((socket) => socket.pause())
}

export function httpTarget(handler: http.RequestListener): Promise<SampleTarget> {
  return track(http.createServer(handler))
}

/** All bytes of a stream until its end. */
export function readAll(stream: Readable): Promise<Buffer> {
  // Not `for await`, which destroys the stream at its end, and with it the half that still writes.
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    stream.on('data', (chunk) => chunks.push(chunk))
    stream.on('end', () => resolve(Buffer.concat(chunks)))
    stream.on('error', reject)
    stream.on('close', () => reject(new Error(`closed early, after ${Buffer.concat(chunks).length} bytes`)))
  })
}

function socketServer(serve: Serve): net.Server {
  return net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
}

/** Lets the server listen there, or not at all, and closes it with everything inside at the end. */
export async function track(
  server: net.Server,
  where: net.ListenOptions | 'nowhere' = { host: '127.0.0.1', port: 0 },
): Promise<SampleTarget> {
  const sockets = new Set<net.Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const listen = async (options: net.ListenOptions) => {
    server.listen(options)
    await once(server, 'listening')
  }
  if (where !== 'nowhere') await listen(where)
  const bound = server.address()
  const port = typeof bound === 'object' ? (bound?.port ?? 0) : 0
  const address = typeof bound === 'string' ? `unix:${bound}` : `localhost:${port}`
  return {
    port,
    address,
    target: bound ? address : server,
    sockets,
    server,
    async stop() {
      const closed = once(server, 'close')
      server.close()
      await closed
    },
    restart: () =>
      listen(typeof bound === 'string' ? { path: bound } : { host: bound?.address ?? '127.0.0.1', port }),
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
