/** Two sessions, or one and a peer that speaks in bytes, and the link between them. */
import { once } from 'node:events'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import { YamuxSession } from '../../src/yamux/session.js'
import type { YamuxStream } from '../../src/yamux/stream.js'

export type SessionOptions = ConstructorParameters<typeof YamuxSession>[1]

/** Both ends of a TCP connection over loopback. */
export async function socketPair(): Promise<[net.Socket, net.Socket]> {
  const listener = net.createServer({ allowHalfOpen: true, noDelay: true })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as net.AddressInfo
  const near = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  const [far] = (await once(listener, 'connection')) as [net.Socket]
  listener.close()
  return [near, far]
}

export interface Pair extends AsyncDisposable {
  readonly client: YamuxSession
  readonly server: YamuxSession
  /** Streams that the other side has opened, as they come. */
  readonly accepted: AsyncIterableIterator<YamuxStream>
}

/** Two sessions over TCP, or over the link that is given. The server's `onStream` defaults to `accepted`. */
export async function sessionPair(
  { client = {}, server = {} }: { client?: Partial<SessionOptions>; server?: Partial<SessionOptions> } = {},
  links?: [Duplex, Duplex],
): Promise<Pair> {
  const [near, far] = links ?? (await socketPair())
  const streams: YamuxStream[] = []
  let wake = () => {}
  const take = (stream: YamuxStream) => {
    streams.push(stream)
    wake()
  }
  const ends = {
    client: new YamuxSession(near, { role: 'client', onStream: take, ...client }),
    server: new YamuxSession(far, { role: 'server', onStream: take, ...server }),
  }
  return {
    ...ends,
    accepted: {
      async next() {
        while (streams.length === 0) {
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        }
        return { value: streams.shift() as YamuxStream, done: false }
      },
      [Symbol.asyncIterator]() {
        return this
      },
    },
    async [Symbol.asyncDispose]() {
      for (const end of [ends.client, ends.server]) end.destroy()
      await Promise.all([ends.client.closed, ends.server.closed])
    },
  }
}

/** All bytes until the end. Unlike `node:stream/consumers` it leaves the other direction open. */
export async function readAll(stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = []
  stream.on('data', (chunk) => chunks.push(chunk))
  await waitFor(stream, 'end')
  return Buffer.concat(chunks)
}

/** Resolves with the event. A stream that breaks has no `end`, and rejects; for `close` that makes no difference. */
export async function waitFor(stream: Duplex, event: 'end' | 'close' | 'drain' | 'finish'): Promise<void> {
  if (event === 'close' ? stream.closed : event === 'end' && stream.readableEnded) return
  await new Promise<void>((resolve, reject) => {
    stream.once(event, resolve)
    stream.once('close', () => reject(stream.errored ?? new Error(`closed before ${event}`)))
  })
}
