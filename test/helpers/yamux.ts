/** Sessions for tests, and links to put between them. */
import { once } from 'node:events'
import net from 'node:net'
import { Duplex } from 'node:stream'
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

export interface LinkOptions {
  /** Cuts what is sent into the pieces that arrive. Default: as it was sent. */
  cut?(chunk: Buffer): Buffer[]
  /** Milliseconds that bytes are on their way. Default: they arrive at once. */
  delay?: number
}

/** A link within this process, which does as it is told. It holds what is on its way, and no more while its reader does not read. */
export function memoryLink({ cut = (chunk) => [chunk], delay }: LinkOptions = {}): [MemoryEnd, MemoryEnd] {
  const near = new MemoryEnd(cut, delay)
  const far = new MemoryEnd(cut, delay)
  near.other = far
  far.other = near
  return [near, far]
}

class MemoryEnd extends Duplex {
  other: MemoryEnd | undefined
  /** Bytes that were sent and have not arrived, and how many that were at most. */
  underway = 0
  mostUnderway = 0
  readonly #cut: (chunk: Buffer) => Buffer[]
  readonly #delay: number | undefined
  #onRead: (() => void) | undefined

  constructor(cut: (chunk: Buffer) => Buffer[], delay: number | undefined) {
    super({ allowHalfOpen: true })
    this.#cut = cut
    this.#delay = delay
  }

  override _read(): void {
    const onRead = this.#onRead
    this.#onRead = undefined
    onRead?.()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (this.#delay === undefined) {
      this.#arrive(chunk, done)
      return
    }
    this.underway += chunk.length
    this.mostUnderway = Math.max(this.mostUnderway, this.underway)
    setTimeout(() => {
      this.underway -= chunk.length
      this.#arrive(chunk, () => {})
    }, this.#delay)
    done()
  }

  override _final(done: () => void): void {
    setTimeout(() => this.other?.push(null), this.#delay)
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.other?.destroy()
    done(error)
  }

  #arrive(chunk: Buffer, done: () => void): void {
    const { other } = this
    let mayGoOn = true
    if (other && !other.destroyed) {
      for (const piece of this.#cut(chunk)) mayGoOn = other.push(piece)
    }
    if (mayGoOn || !other) done()
    else other.#onRead = done
  }
}

export interface Pair extends AsyncDisposable {
  readonly client: YamuxSession
  readonly server: YamuxSession
  /** The next stream that either side has opened, as the other has it. */
  accept(): Promise<YamuxStream>
}

/** Two sessions over TCP, or over the link that is given. */
export async function sessionPair(
  { client = {}, server = {} }: { client?: Partial<SessionOptions>; server?: Partial<SessionOptions> } = {},
  links?: [Duplex, Duplex],
): Promise<Pair> {
  const [near, far] = links ?? (await socketPair())
  const streams: YamuxStream[] = []
  const waiting: ((stream: YamuxStream) => void)[] = []
  const onStream = (stream: YamuxStream) => {
    const take = waiting.shift()
    if (take) take(stream)
    else streams.push(stream)
  }
  const ends = {
    client: new YamuxSession(near, { role: 'client', onStream, ...client }),
    server: new YamuxSession(far, { role: 'server', onStream, ...server }),
  }
  return {
    ...ends,
    accept() {
      const stream = streams.shift()
      return stream ? Promise.resolve(stream) : new Promise((resolve) => waiting.push(resolve))
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
    const streamOnClose = () => reject(stream.errored ?? new Error(`closed before ${event}`))
    stream.once(event, () => {
      stream.off('close', streamOnClose)
      resolve()
    })
    stream.once('close', streamOnClose)
  })
}
