/** Sample targets: servers on a free loopback port that are closed with everything inside. */
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import type { Readable } from 'node:stream'

export interface SampleTarget extends AsyncDisposable {
  readonly port: number
  /** `localhost:PORT`. */
  readonly address: string
  /** Sockets that are open now. */
  readonly sockets: ReadonlySet<net.Socket>
  readonly server: net.Server
}

/** A TCP server that hands each connection to `serve`. */
export async function tcpTarget(serve: (socket: net.Socket) => void): Promise<SampleTarget> {
  return track(
    net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {})
      serve(socket)
    }),
  )
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

async function track(server: net.Server): Promise<SampleTarget> {
  const sockets = new Set<net.Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  return {
    port,
    address: `localhost:${port}`,
    sockets,
    server,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
