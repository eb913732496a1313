/**
 * A server that is attacked in every way we know of, while a neighbour's tunnel goes on: each of its bytes arrives, each of
 * its visitors gets in, and none of them waits for long. The attacks come from other addresses of this machine
 * and from a client that has logged in; each is bounded in number, and ends by itself.
 */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import tls from 'node:tls'
import { type ConnectionEnd, createServer, openTunnel, type Refusal, type Server } from 'pipe-tunnel'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { frame, nonce, prove, RawPeer, type Wire } from './helpers/raw-peer.js'
import { tcpTarget } from './helpers/targets.js'

const secret = 'correct horse battery staple'
const guest = 'something for our guests'

/** Longest that the neighbour may wait for a block or for an answer, in milliseconds: far above what was seen. */
const PATIENCE = 10_000
/** How long an attack goes on at the most, and how many connections it makes. */
const DURATION = 2_000
const CONNECTIONS = 1_500
/** Bytes of a block of the steady transfer. */
const BLOCK = 16_384

const id = () => crypto.randomUUID()
const hello = (mine = nonce()): Wire => ({ type: 'hello', version: 1, nonce: mine })

type Attack = [name: string, attack: (server: Server) => Promise<void>, codes: string[]]

/** Attacks that need no word of the protocol, with the codes that they have to be refused with. Strangers come from 127.0.0.2 and on. */
const wordless: Attack[] = [
  [
    'connects and says nothing, from one address and from many',
    async (server) => {
      const sockets = [...(await flood(server, CONNECTIONS, 1)), ...(await flood(server, CONNECTIONS))]
      await pause(DURATION / 4)
      destroy(sockets)
    },
    ['limit-reached'],
  ],
  [
    'connects and leaves, again and again',
    async (server) => {
      for (let i = 0; i < CONNECTIONS / 100; i++) destroy(await flood(server, 100))
    },
    [],
  ],
]

/** Attacks on a server that encrypts. */
const onTls: Attack[] = [
  [
    'drips a TLS handshake in, byte by byte, from many addresses',
    async (server) => {
      const sockets = await flood(server, 300)
      for (let at = 0; at < CLIENT_HELLO.length; at++) {
        for (const socket of sockets) write(socket, CLIENT_HELLO.subarray(at, at + 1))
        await pause(DURATION / CLIENT_HELLO.length)
      }
      destroy(sockets)
    },
    ['timeout'],
  ],
  [
    'guesses secrets, each by a whole handshake',
    async (server) => {
      for (let i = 0; i < 5; i++) {
        const sockets = await flood(server, 40, 5)
        await Promise.all(sockets.map((socket) => guess(socket)))
        destroy(sockets)
      }
    },
    ['secret-wrong'],
  ],
  [
    'leaves its sockets half-open in mid-handshake, or talks without one',
    async (server) => {
      for (const bytes of [Buffer.alloc(0), CLIENT_HELLO, frame(hello()), randomBytes(50)]) {
        const sockets = await flood(server, 150)
        for (const socket of sockets) {
          write(socket, bytes)
          socket.end()
        }
        await pause(DURATION / 8)
        destroy(sockets)
      }
    },
    ['connection-lost', 'secret-required'],
  ],
]

/** Attacks in the words of the protocol, on a server that does not encrypt. */
const inWords: Attack[] = [
  [
    'drips its first message in, byte by byte, from many addresses',
    async (server) => {
      const bytes = frame(hello())
      const sockets = await flood(server, 300)
      for (let at = 0; at < bytes.length - 1; at += 4) {
        for (const socket of sockets) write(socket, bytes.subarray(at, at + 4))
        await pause(DURATION / (bytes.length / 4))
      }
      destroy(sockets)
    },
    ['timeout'],
  ],
  [
    'asks for exchanges with ids that it made up',
    async (server) => {
      for (let i = 0; i < CONNECTIONS / 100; i++) {
        const sockets = await flood(server, 100)
        for (const socket of sockets) write(socket, frame({ type: 'exchange', id: id() }))
        await Promise.all(sockets.slice(0, 10).map(answered))
        destroy(sockets)
      }
    },
    [],
  ],
  [
    'guesses secrets, and plays a login again that it recorded',
    async (server) => {
      const recorded = await recordedLogin(server)
      for (let i = 0; i < 5; i++) {
        const sockets = await flood(server, 20, 5)
        for (const socket of sockets) write(socket, recorded)
        await Promise.all(sockets.slice(0, 2).map(answered))
        destroy(sockets)
      }
    },
    ['secret-wrong'],
  ],
  [
    'sends messages in another order, or twice',
    async (server) => {
      const login: Wire = { type: 'login', proof: nonce() }
      const swapped: Wire[][] = [
        [login, hello()],
        [{ type: 'challenge', nonce: nonce(), secret: true }, hello()],
        [hello(), hello()],
        [hello(), login, login],
        [hello(), { type: 'exchange', id: id() }],
        [{ type: 'exchange', id: id() }, hello()],
        [{ type: 'forward', tunnel: 1, protocol: 'tcp', port: 0 }],
        [{ type: 'welcome', proof: null, heartbeatTimeout: 1, exchangeTimeout: 1 }],
      ]
      const sockets = await flood(server, 25 * swapped.length)
      for (const [i, socket] of sockets.entries()) {
        write(socket, Buffer.concat((swapped[i % swapped.length] ?? []).map(frame)))
      }
      await Promise.all(sockets.map(answered))
      destroy(sockets)
    },
    ['protocol-violation', 'secret-wrong'],
  ],
  [
    'leaves its sockets half-open, in the middle of everything',
    async (server) => {
      for (const bytes of [
        Buffer.alloc(0),
        frame(hello()).subarray(0, 20),
        frame(hello()),
        Buffer.alloc(4),
      ]) {
        const sockets = await flood(server, 150)
        for (const socket of sockets) {
          write(socket, bytes)
          socket.end()
        }
        await pause(DURATION / 8)
        destroy(sockets)
      }
    },
    ['connection-lost', 'protocol-violation'],
  ],
  [
    'logs in, asks for answers and never reads them',
    async (server) => {
      await using peer = await RawPeer.connect(server)
      await peer.logIn(guest)
      peer.socket.pause()
      const question = frame({ type: 'forward', tunnel: 2, protocol: 'tcp', port: 1 })
      const asking = setInterval(() => write(peer.socket, Buffer.concat(Array(45).fill(question))), 50)
      await pause(DURATION)
      clearInterval(asking)
    },
    [],
  ],
  [
    'logs in and sends more than it may',
    async (server) => {
      for (let i = 0; i < 5; i++) {
        await using peer = await RawPeer.connect(server)
        await peer.logIn(guest)
        const junk = { type: 'reject', tunnel: 1, id: id(), code: 'x', message: 'x'.repeat(1_000) }
        for (let n = 0; n < 3_000; n++) peer.send(junk)
        expect(await peer.receive('refuse')).toMatchObject({ code: 'limit-reached' })
      }
    },
    ['limit-reached'],
  ],
  [
    'logs in and has a tunnel that visitors flood, and opens no data stream',
    async (server) => {
      await using peer = await RawPeer.connect(server)
      await peer.logIn(guest)
      const address = await peer.forward()
      const visitors = await flood(address, CONNECTIONS, 20)
      await pause(DURATION / 2)
      destroy(visitors)
    },
    [],
  ],
]

/** The record of a handshake (RFC 8446, 5.1) that announces 512 bytes of ClientHello, and the first few of them. */
const CLIENT_HELLO = Buffer.from('1603010200010001fc0303', 'hex')

describe.skipIf(process.platform !== 'linux').each([
  { how: 'encrypts', tls: undefined, attacks: [...wordless, ...onTls] },
  { how: 'does not encrypt', tls: false as const, attacks: [...wordless, ...inWords] },
])('a server that $how, while somebody', ({ tls, attacks }) => {
  let world: Awaited<ReturnType<typeof neighbourhood>>
  beforeAll(async () => {
    world = await neighbourhood(tls)
  })
  afterAll(() => world[Symbol.asyncDispose]())

  test.each(attacks)(
    '%s, a neighbour loses nothing and hardly waits',
    async (name, attack, codes) => {
      const { server } = world
      const refusals: Refusal[] = []
      const serverOnRefuse = (refusal: Refusal) => refusals.push(refusal)
      server.on('refuse', serverOnRefuse)
      world.startMeasuring()

      await attack(server)

      const { blocks, requests, worst } = await world.measured()
      server.off('refuse', serverOnRefuse)
      const seen = new Set(refusals.map(({ error }) => error.code))
      const told = [...seen].map(
        (code) => `${refusals.filter(({ error }) => error.code === code).length} ${code}`,
      )
      const figures = `${blocks} blocks, ${requests} requests, the worst took ${Math.round(worst)} ms`
      process.stdout.write(`${name}: ${[figures, ...told].join(', ')}\n`)
      expect(blocks).toBeGreaterThan(0)
      expect(requests).toBeGreaterThan(0)
      expect(worst).toBeLessThan(PATIENCE)
      expect([...seen]).toEqual(expect.arrayContaining(codes))
      expect(JSON.stringify(refusals)).not.toContain(secret)
      // Nothing of the attacker stays behind.
      await expect.poll(() => server.tunnels.length, { timeout: 20_000 }).toBe(1)
    },
    60_000,
  )
})

/** A server as it would face the internet, with all its defaults but for shorter times, and a neighbour's tunnel. */
async function neighbourhood(encrypts: false | undefined) {
  const server = await createServer({
    secret,
    tls: encrypts,
    secrets: { guest: { secret: guest } },
    handshakeTimeout: 1_000,
    exchangeTimeout: 5_000,
    resumeTimeout: 1_000,
  })
  const target = await tcpTarget((socket) => {
    socket.on('data', (chunk) => socket.write(chunk))
    socket.on('end', () => socket.end())
  })
  const tunnel = await openTunnel(target.port, { server })
  let worst = 0
  let blocks = 0
  let requests = 0
  let isGoing = true
  const sent = createHash('sha256')
  const got = createHash('sha256')
  const ended = new Promise<ConnectionEnd>((resolve) =>
    tunnel.once('connection', ({ closed }) => resolve(closed)),
  )
  const steady = await RawPeer.connect(tunnel)
  const lost: unknown[] = []

  async function transfer() {
    while (isGoing) {
      const block = randomBytes(BLOCK)
      sent.update(block)
      const start = performance.now()
      got.update(await steady.write(block).read(BLOCK))
      note(start)
      blocks++
      await pause(5)
    }
  }

  async function visitAgainAndAgain() {
    while (isGoing) {
      const request = randomBytes(100)
      const start = performance.now()
      await using visitor = await RawPeer.connect(tunnel)
      if (!(await visitor.write(request).read(100)).equals(request)) throw new Error('another answer')
      note(start)
      requests++
      await pause(50)
    }
  }

  function note(start: number) {
    worst = Math.max(worst, performance.now() - start)
  }

  const running = Promise.all([transfer(), visitAgainAndAgain()]).catch((error) => lost.push(error))

  return {
    server,
    startMeasuring() {
      worst = 0
      blocks = 0
      requests = 0
    },
    /** What was measured since, once one more of each is through. */
    async measured() {
      const [block, request] = [blocks, requests]
      await expect
        .poll(() => lost.length > 0 || (blocks > block && requests > request), { timeout: 2 * PATIENCE })
        .toBe(true)
      expect(lost).toEqual([])
      return { blocks, requests, worst }
    },
    async [Symbol.asyncDispose]() {
      isGoing = false
      await running
      steady.end()
      expect(await steady.ended()).toBe('end')
      const end = await ended
      expect(end.error).toBeUndefined()
      expect(end.bytesIn).toBe(end.bytesOut)
      expect(got.digest('hex')).toBe(sent.digest('hex'))
      expect(lost).toEqual([])
      expect(await Promise.race([tunnel.closed, 'open'])).toBe('open')
      await tunnel.close()
      await server.close()
      await target[Symbol.asyncDispose]()
    },
  }
}

/** So many connections from so many addresses, from 127.0.0.2 on. Those that are refused at once are among them. */
async function flood(
  { host, port }: { host: string; port: number },
  count: number,
  addresses = 50,
): Promise<net.Socket[]> {
  const sockets = Array.from({ length: count }, (_, i) => {
    const localAddress = `127.0.0.${2 + (i % addresses)}`
    return net.connect({ host, port, localAddress, allowHalfOpen: true }).on('error', () => {})
  })
  await Promise.all(
    sockets.map((socket) => Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => {})),
  )
  return sockets
}

function write(socket: net.Socket, bytes: Buffer): void {
  if (socket.writable) socket.write(bytes)
}

function destroy(sockets: net.Socket[]): void {
  for (const socket of sockets) socket.destroy()
}

/** Resolves when the server has ended the connection, or after a moment. */
async function answered(socket: net.Socket): Promise<void> {
  const closed = new Promise((resolve) => {
    for (const event of ['end', 'close']) socket.once(event, resolve)
  })
  socket.resume()
  await Promise.race([closed, pause(DURATION, undefined, { ref: false })])
}

/** Tries a wrong key; resolves when the server has refused it, or after a moment. */
async function guess(socket: net.Socket): Promise<void> {
  const stream = tls.connect({
    socket,
    minVersion: 'TLSv1.3',
    ciphers: 'TLS_AES_128_GCM_SHA256',
    pskCallback: () => ({ psk: randomBytes(32), identity: nonce() }),
    checkServerIdentity: () => new Error('it shows a certificate'),
  })
  stream.on('error', () => {})
  await answered(stream)
}

/** All that a client says when it logs in and asks for a tunnel. */
async function recordedLogin(server: Server): Promise<Buffer> {
  await using peer = await RawPeer.connect(server)
  const mine = nonce()
  peer.send(hello(mine))
  const challenge = await peer.receive('challenge')
  const login = { type: 'login', proof: prove('client', guest, mine, challenge.nonce) }
  peer.send(login)
  await peer.receive('welcome')
  const forward = { type: 'forward', tunnel: 1, protocol: 'tcp', port: 0 }
  return Buffer.concat([hello(mine), login, forward].map(frame))
}
