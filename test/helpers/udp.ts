/** Sample UDP targets and visitors, and peers of a UDP tunnel that speak the wire by hand. */
import dgram from 'node:dgram'
import { once } from 'node:events'
import { isIPv6 } from 'node:net'
import { pEvent } from 'p-event'
import { openTunnel, type Tunnel, type TunnelOptions } from 'pipe-tunnel'
import { expect, vi } from 'vitest'
import { type FakeServer, RawPeer, type Wire } from './raw-peer.js'

/** Longest wait for a datagram, in milliseconds. */
const DEADLINE = 20_000

/** Bytes that the kernel is asked to keep, so that a burst is not lost in front of a busy process. */
const BUFFER_SIZE = 1_048_576

interface Place {
  host: string
  port: number
}

export interface UdpTarget extends AsyncDisposable, Place {
  /** `udp://HOST:PORT`. */
  readonly url: string
  readonly socket: dgram.Socket
  /** Where datagrams came from, each once, in the order of the first. */
  readonly senders: Place[]
  /** How many datagrams came. */
  readonly count: number
}

type Serve = (datagram: Buffer, reply: (answer: Buffer | string) => void, from: Place) => void

/** Receives on a loopback address, and hands each datagram to `serve`. */
export async function udpTarget(serve: Serve, at: Partial<Place> = {}): Promise<UdpTarget> {
  const { host = '127.0.0.1', port = 0 } = at
  const socket = await bound(host, port)
  const senders = new Map<number, Place>()
  let count = 0
  socket.on('message', (datagram, from) => {
    count++
    const sender = { host: from.address, port: from.port }
    senders.set(from.port, sender)
    serve(datagram, (answer) => socket.send(answer, from.port, from.address), sender)
  })
  return {
    host,
    port: socket.address().port,
    url: `udp://${isIPv6(host) ? `[${host}]` : host}:${socket.address().port}`,
    socket,
    get senders() {
      return [...senders.values()]
    },
    get count() {
      return count
    },
    [Symbol.asyncDispose]: () => closed(socket),
  }
}

/** Sends back what it gets. */
export function udpEchoTarget(at?: Partial<Place>): Promise<UdpTarget> {
  return udpTarget((datagram, reply) => reply(datagram), at)
}

/** A port that nobody receives at. */
export async function udpPortOfNobody(host = '127.0.0.1'): Promise<number> {
  const socket = await bound(host, 0)
  const { port } = socket.address()
  await closed(socket)
  return port
}

/** Whoever sends datagrams to one address, from one port. */
export class UdpVisitor implements AsyncDisposable {
  readonly socket: dgram.Socket
  /** Those that came and that nobody has taken. */
  readonly replies: Buffer[] = []
  readonly #to: Place

  constructor(socket: dgram.Socket, to: Place) {
    this.socket = socket
    this.#to = to
    socket.on('message', (datagram) => this.replies.push(datagram))
  }

  get port(): number {
    return this.socket.address().port
  }

  /** Resolves when the kernel has it. */
  send(datagram: Buffer | string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.socket.send(datagram, this.#to.port, this.#to.host, (error) => (error ? reject(error) : resolve()))
    })
  }

  /** The next that comes. */
  async reply(): Promise<Buffer> {
    for (;;) {
      const reply = this.replies.shift()
      if (reply) return reply
      await pEvent(this.socket, 'message', { timeout: DEADLINE })
    }
  }

  async ask(datagram: Buffer | string): Promise<Buffer> {
    await this.send(datagram)
    return this.reply()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return closed(this.socket)
  }
}

/** A visitor of this address, on a port of its own. */
export async function udpVisitor(to: Place): Promise<UdpVisitor> {
  return new UdpVisitor(await bound(isIPv6(to.host) ? '::1' : '127.0.0.1', 0), to)
}

/** Whether this machine has the loopback address of IPv6. */
export async function hasIPv6(): Promise<boolean> {
  try {
    await closed(await bound('::1', 0))
    return true
  } catch {
    return false
  }
}

/** A client of one UDP tunnel, by hand. */
export interface UdpClient extends AsyncDisposable, Place {
  readonly control: RawPeer
  /** What the server has sent, but for heartbeats and the exchanges that were asked for. */
  readonly messages: readonly Wire[]
  /** The id of the next exchange for the visitor at this port. */
  exchange(port: number): Promise<string>
  /** The data stream of the visitor at this port, joined. */
  join(port: number): Promise<RawPeer>
  /** Resolves when the server has taken all that was sent to the public port so far. */
  caughtUp(): Promise<void>
  /** How many datagrams the server has said to have dropped. */
  dropped(): number
}

export async function udpClient(server: Place): Promise<UdpClient> {
  const control = await RawPeer.connect(server)
  await control.logIn()
  control.send({ type: 'forward', tunnel: 1, protocol: 'udp', port: 0 })
  const { host, port } = await control.receive('forwarded')
  const place = { host: String(host), port: Number(port) }
  const messages: Wire[] = []
  const streams: RawPeer[] = []
  const markers: UdpVisitor[] = []
  listen().catch(() => {})

  return {
    ...place,
    control,
    messages,
    exchange,
    async join(visitorPort) {
      const stream = await RawPeer.dataStream(server, await exchange(visitorPort))
      streams.push(stream)
      return stream
    },
    async caughtUp() {
      // The server takes datagrams in their order, so all before this one have been taken when it shows.
      const last = await udpVisitor(place)
      // It keeps its port, which would be that of an old flow for the next.
      markers.push(last)
      await last.send('last')
      await exchange(last.port)
    },
    dropped: () =>
      messages.reduce((sum, { type, count }) => (type === 'dropped' ? sum + Number(count) : sum), 0),
    async [Symbol.asyncDispose]() {
      for (const one of [control, ...streams]) await one.close()
      for (const one of markers) await one[Symbol.asyncDispose]()
    },
  }

  async function listen() {
    for (;;) {
      const size = (await control.read(4)).readUInt32BE()
      const message: Wire = JSON.parse(`${await control.read(size)}`)
      if (message.type === 'heartbeat') control.send({ type: 'heartbeat' })
      else messages.push(message)
    }
  }

  function exchange(visitorPort: number): Promise<string> {
    return vi.waitFor(
      () => {
        const at = messages.findIndex((one) => one.type === 'exchange' && one.port === visitorPort)
        expect(at).not.toBe(-1)
        return String(messages.splice(at, 1)[0]?.id)
      },
      { timeout: DEADLINE, interval: 5 },
    )
  }
}

/** A real client's tunnel at a server that says what a test wants. */
export interface FakeUdpTunnel {
  readonly tunnel: Tunnel
  readonly control: RawPeer
  /** Says that a visitor has come, and gives back the data stream that the client opens for it, joined. */
  visit(): Promise<RawPeer>
}

export async function openAtFake(
  fake: FakeServer,
  target: string,
  options: TunnelOptions = {},
): Promise<FakeUdpTunnel> {
  const opening = openTunnel(target, { server: fake, ...options })
  const control = await (await fake.accept()).admit()
  await control.receive('forward')
  control.send({ type: 'forwarded', tunnel: 1, host: '127.0.0.1', port: 4_000 })
  return {
    tunnel: await opening,
    control,
    async visit() {
      const here = { localAddress: '127.0.0.1', localPort: 4_000 }
      const id = crypto.randomUUID()
      control.send({ type: 'exchange', tunnel: 1, id, address: '127.0.0.1', port: 1, ...here })
      const stream = await fake.accept()
      await stream.receive('exchange')
      return stream.send({ type: 'joined' })
    },
  }
}

/** Datagrams as the bytes of a data stream. */
export function framed(...datagrams: (Buffer | string)[]): Buffer {
  return Buffer.concat(
    datagrams.flatMap((one) => {
      const bytes = Buffer.from(one)
      return [Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]
    }),
  )
}

/** The next datagram of a data stream. */
export async function readDatagram(stream: RawPeer): Promise<Buffer> {
  return stream.read((await stream.read(2)).readUInt16BE())
}

async function bound(host: string, port: number): Promise<dgram.Socket> {
  const socket = dgram.createSocket(isIPv6(host) ? 'udp6' : 'udp4')
  socket.bind(port, host)
  await once(socket, 'listening')
  try {
    socket.setRecvBufferSize(BUFFER_SIZE)
  } catch {
    // Some systems refuse more than they have; theirs then.
  }
  return socket.on('error', () => {})
}

async function closed(socket: dgram.Socket): Promise<void> {
  const whenClosed = once(socket, 'close')
  try {
    socket.close()
  } catch {
    // A test has closed it.
    return
  }
  await whenClosed
}
