/** One connection for all. How it is laid out is the subject of docs/protocol.md, «One connection for all». */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { pEvent } from 'p-event'
import {
  createServer,
  forward,
  openTunnel,
  type Refusal,
  type Rejection,
  type ServerOptions,
  type TunnelError,
  type TunnelInfo,
  type TunnelOptions,
} from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { YamuxSession } from '../src/yamux/session.js'
import { pipe } from './helpers/command.js'
import { brokenLink } from './helpers/link.js'
import { fakeServer, frame, nonce, RawPeer } from './helpers/raw-peer.js'
import { echoTarget, readAll, silentTarget, tcpTarget } from './helpers/targets.js'
import { udpEchoTarget, udpVisitor } from './helpers/udp.js'
import { ask, ending, visit } from './helpers/visitor.js'

const secret = 'correct horse battery staple'
const soon = { timeout: 30_000 }

/** A server behind a link that counts its connections, and what tunnels are opened through it with. */
async function place(serverOptions: ServerOptions = {}) {
  const server = await createServer(serverOptions)
  const link = await brokenLink(server)
  return {
    server,
    link,
    through: (options: TunnelOptions = {}) => ({ server: link.address, mux: true, ...options }),
    async [Symbol.asyncDispose]() {
      await server.close()
      await link[Symbol.asyncDispose]()
    },
  }
}

const echoed = async (tunnel: { host: string; port: number }, text: string) => `${await ask(tunnel, text)}`

const hex32 = (value: number) => value.toString(16).padStart(8, '0')

/** A frame that opens a stream, in hex. */
const opening = (id: number) => `00010001${hex32(id)}00000000`

describe.each([
  ['without encryption', {}],
  ['encrypted by a secret', { secret }],
])('one connection, %s,', (_, options) => {
  test('carries the login, two tunnels and all their visitors', async () => {
    await using here = await place(options)
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, here.through())

    const texts = Array.from({ length: 200 }, (_, i) => `visitor ${i}`)
    expect(await Promise.all(texts.map((text) => echoed(tunnel, text)))).toEqual(texts)
    expect(here.link.count).toBe(1)
  })

  test('carries a large transfer each way, with half-close', async () => {
    await using here = await place(options)
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, here.through())
    const bytes = randomBytes(20_000_000)

    const visitor = await visit(tunnel)
    visitor.end(bytes)

    expect((await readAll(visitor)).equals(bytes)).toBe(true)
    expect(here.link.count).toBe(1)
  })

  test('carries datagrams', async () => {
    await using here = await place(options)
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(`udp://127.0.0.1:${target.port}`, here.through())
    await using visitor = await udpVisitor(tunnel)

    expect(`${await visitor.ask('hello')}`).toBe('hello')
    expect(here.link.count).toBe(1)
  })
})

describe('visitors on one connection', () => {
  test('are not held up by one that does not read', async () => {
    await using here = await place()
    await using target = await tcpTarget((socket) =>
      socket.once('data', () => socket.write(randomBytes(64_000_000))),
    )
    await using flood = await openTunnel(target.port, here.through())
    const stalled = await visit(flood)
    stalled.pause().write('send me all')
    await vi.waitFor(() => expect(here.server.stats.bytesOut).toBeGreaterThan(200_000), soon)

    const small = await Promise.all(Array.from({ length: 20 }, () => visit(flood)))
    for (const visitor of small) visitor.write('me too')
    for (const visitor of small) await once(visitor, 'data')
    expect(here.link.count).toBe(1)
    for (const visitor of [stalled, ...small]) visitor.destroy()
  })

  test('are each reset alone', async () => {
    await using here = await place()
    const resets = vi.fn()
    await using target = await tcpTarget((socket) => {
      socket.on('data', (chunk) => (`${chunk}` === 'break' ? socket.resetAndDestroy() : socket.write(chunk)))
      socket.on('error', resets)
    })
    await using tunnel = await openTunnel(target.port, here.through())
    const [broken, leaving, staying] = await Promise.all([visit(tunnel), visit(tunnel), visit(tunnel)])
    for (const visitor of [leaving, staying]) {
      visitor.write('hello')
      await once(visitor, 'data')
    }

    broken.write('break')
    expect(await ending(broken)).toBe('reset')
    leaving.resetAndDestroy()
    await vi.waitFor(() => expect(resets).toHaveBeenCalledOnce(), soon)

    staying.write('still here')
    expect(`${await once(staying, 'data')}`).toBe('still here')
    staying.destroy()
  })

  test('are turned away alone while the target is down', async () => {
    await using here = await place()
    const target = await silentTarget()
    await target[Symbol.asyncDispose]()
    await using tunnel = await openTunnel(target.port, here.through())
    const rejected = pEvent(tunnel, 'reject') as Promise<Rejection>

    expect(await ending(await visit(tunnel))).toBe('reset')
    expect((await rejected).error.code).toBe('target-unreachable')
    expect(here.server.tunnels).toHaveLength(1)
  })

  test('finish in the grace of a close, and the connection ends behind them', async () => {
    await using here = await place()
    await using target = await echoTarget()
    const tunnel = await openTunnel(target.port, here.through())
    const visitor = await visit(tunnel)
    visitor.write('before')
    await once(visitor, 'data')

    const closed = tunnel.close({ grace: 30_000 })
    visitor.end('after')
    expect(`${await readAll(visitor)}`).toBe('after')
    await closed

    expect(here.server.tunnels).toEqual([])
  })

  test('that stay behind the control connection are watched over by the system', async () => {
    await using here = await place()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, here.through())
    const visitor = await visit(tunnel)
    visitor.write('before')
    await once(visitor, 'data')
    const watched = vi.spyOn(net.Socket.prototype, 'setKeepAlive')
    const isWatched = (end: 'localPort' | 'remotePort', port: number) =>
      watched.mock.contexts.some((socket) => (socket as net.Socket)[end] === port)

    const closed = here.server.close({ grace: 30_000 })
    await vi.waitFor(() => expect(isWatched('localPort', here.server.port)).toBe(true), soon)
    await vi.waitFor(
      () => expect(isWatched('remotePort', Number(new URL(here.link.address).port))).toBe(true),
      soon,
    )
    visitor.end()
    await closed
    watched.mockRestore()
  })

  test('finish in the grace of a server that closes', async () => {
    const server = await createServer()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server, mux: true })
    const visitor = await visit(tunnel)
    visitor.write('before')
    await once(visitor, 'data')

    const closed = server.close({ grace: 30_000 })
    expect((await tunnel.closed)?.code).toBe('server-closed')
    visitor.end('after')
    expect(`${await readAll(visitor)}`).toBe('after')
    await closed
  })
})

describe('a connection that breaks', () => {
  test('cuts its visitors, and the tunnel comes back with the same address', async () => {
    await using here = await place()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, here.through())
    const { url } = tunnel
    const visitor = await visit(tunnel)
    visitor.write('before')
    await once(visitor, 'data')
    const back = pEvent(tunnel, 'reconnect', soon)

    here.link.cut(0)
    expect(await ending(visitor)).toBe('reset')
    await back

    expect(tunnel.url).toBe(url)
    expect(await echoed(tunnel, 'hello again')).toBe('hello again')
    expect(here.link.count).toBe(2)
  })

  test('lets visitors wait that come meanwhile', async () => {
    await using here = await place()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, here.through())
    const lost = pEvent(here.server, 'disconnect')
    here.link.breakDown()
    await lost

    const waiting = Array.from({ length: 20 }, (_, i) => echoed(tunnel, `visitor ${i}`))
    await vi.waitFor(() => expect(here.link.count).toBeGreaterThan(2), soon)
    here.link.heal()
    expect(await Promise.all(waiting)).toEqual(Array.from({ length: 20 }, (_, i) => `visitor ${i}`))
  })

  test('is noticed by silence too', async () => {
    await using here = await place({ heartbeatInterval: 200, heartbeatTimeout: 1_000 })
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, here.through())
    const visitor = await visit(tunnel)
    visitor.write('before')
    await once(visitor, 'data')
    const lost = pEvent(tunnel, 'disconnect', soon) as Promise<TunnelError>
    const back = pEvent(tunnel, 'reconnect', soon)

    here.link.stall()
    expect((await lost).code).toBe('connection-lost')
    expect(await ending(visitor)).toBe('reset')
    here.link.heal()
    await back

    expect(await echoed(tunnel, 'hello again')).toBe('hello again')
  })

  test('is not one on which bytes come, however long messages wait behind them', async () => {
    await using server = await createServer({ heartbeatInterval: 400, heartbeatTimeout: 1_000 })
    await using slow = await forward(0, server.port, { conditions: { out: { bandwidth: '150kb' } } })
    await using target = await tcpTarget(async (socket) => socket.end(`${(await readAll(socket)).length}`))
    await using tunnel = await openTunnel(target.port, { server: `pipe://127.0.0.1:${slow.port}`, mux: true })
    let losses = 0
    tunnel.on('disconnect', () => losses++)

    expect(await echoed(tunnel, 'x'.repeat(600_000))).toBe('600000')
    expect(losses).toBe(0)
  })

  test('by the end of a process closes its tunnels at once', async () => {
    await using server = await createServer({ resumeTimeout: 3_600_000 })
    await using target = await echoTarget()
    await using client = pipe(['expose', `${target.port}`, '--to', server.address, '--mux'])
    const info = (await pEvent(server, 'tunnel', soon)) as TunnelInfo

    // One that dies with bytes unread leaves a reset, which is a loss.
    await client.stdout.line(/./)
    client.signal('SIGKILL')

    expect((await info.closed)?.code).toBe('connection-lost')
    expect(server.tunnels).toEqual([])
  })
})

describe('a client is refused on one connection', () => {
  test.each([
    ['secret-wrong', { secret, tls: false } as const, 'pipe://another horse@'],
    ['secret-required', { secret }, 'pipe://'],
    ['limit-reached', { limits: { newcomersPerAddress: 1 } }, 'pipe://'],
  ])('with %s, and is told so', async (code, options, scheme) => {
    await using server = await createServer(options)
    const crowd = code === 'limit-reached' ? await RawPeer.connect(server) : undefined
    const opened = openTunnel(1, {
      server: `${scheme}${server.host}:${server.port}`,
      mux: true,
      ...(code === 'secret-wrong' && { tls: false }),
    })
    await expect(opened).rejects.toMatchObject({ code })
    await crowd?.close()
  })

  test('by a server that is none, and the sentence says so', async () => {
    await using target = await tcpTarget((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    const opened = openTunnel(1, { server: `127.0.0.1:${target.port}`, mux: true })
    await expect(opened).rejects.toThrow(/does not answer as a pipe-tunnel server does.*is this its port/)
  })

  test('by a server that says nothing, within its timeout', async () => {
    await using server = await fakeServer()
    const opened = openTunnel(1, { server: `127.0.0.1:${server.port}`, mux: true, timeout: 300 })
    await expect(opened).rejects.toMatchObject({ code: 'timeout' })
  })
})

describe('a server', () => {
  test('takes the frames that docs/protocol.md shows', async () => {
    await using server = await createServer()
    await using peer = await RawPeer.connect(server)
    const hello = frame({ type: 'hello', version: 1, nonce: nonce() })
    const opening = `0000000100000001${hex32(hello.length)}${hello.toString('hex')}`
    for (const byte of Buffer.from(opening, 'hex')) peer.write(Buffer.of(byte))

    // It accepts the stream as soon as it is open, and measures the round trip.
    const headers: string[] = []
    do headers.push((await peer.read(12)).toString('hex'))
    while (!headers.at(-1)?.startsWith('0000'))
    expect(headers).toContain(`00010002${hex32(1)}${hex32(0)}`)
    expect(headers.at(-1)).toMatch(/^0000000000000001/)
    expect(await peer.receive('challenge')).toBeDefined()
  })

  test('takes a connection that ends behind its first frame for one that only looked', async () => {
    await using server = await createServer()
    const refused = vi.fn()
    server.on('refuse', refused)
    await using peer = await RawPeer.connect(server)
    peer.write(opening(1)).end()
    expect(await peer.ended()).toBe('end')
    expect(refused).not.toHaveBeenCalled()
  })

  test.each([
    ['a data stream before the login', `${opening(1)}${opening(3)}`],
    [
      'a message where streams are due',
      `${opening(1)}${frame({ type: 'hello', version: 1, nonce: nonce() }).toString('hex')}`,
    ],
    ['a frame of another version', `${opening(1)}010000000000000100000000`],
  ])('ends the connection of a peer that sends %s, and tells of it', async (_, hex) => {
    await using server = await createServer()
    const refused = pEvent(server, 'refuse') as Promise<Refusal>
    await using peer = await RawPeer.connect(server)
    peer.write(hex)
    peer.socket.resume()
    await peer.ended()
    expect(['protocol-violation', 'connection-lost']).toContain((await refused).error.code)
  })

  test('ends the connection of a peer that opens a stream and says nothing on it', async () => {
    await using server = await createServer({ handshakeTimeout: 300 })
    const refused = pEvent(server, 'refuse') as Promise<Refusal>
    await using peer = await RawPeer.connect(server)
    peer.write(opening(1))
    expect((await refused).error.code).toBe('timeout')
    await peer.ended()
  })

  test('refuses a data stream that names no visitor, and keeps the others', async () => {
    await using server = await createServer({ handshakeTimeout: 1_000 })
    const link = await RawPeer.connect(server)
    const session = new YamuxSession(link.socket, { role: 'client' })
    const control = peerOn(session)
    await control.logIn()
    const address = await control.forward()
    const visitor = await visit(address)
    const { id } = await control.receive('exchange')

    expect(await peerOn(session).send({ type: 'heartbeat' }).refusal()).toMatchObject({
      code: 'protocol-violation',
    })
    expect(await peerOn(session).send({ type: 'exchange', id: crypto.randomUUID() }).refusal()).toMatchObject(
      {
        code: 'exchange-expired',
      },
    )
    expect(await peerOn(session).refusal()).toMatchObject({ code: 'timeout' })

    const stream = peerOn(session).send({ type: 'exchange', id })
    await stream.receive('joined')
    visitor.write('hello')
    expect(`${await stream.read(5)}`).toBe('hello')
    visitor.destroy()
    session.destroy()
    await link.close()
  })
})

/** A peer on a stream of its own. */
function peerOn(session: YamuxSession): RawPeer {
  const stream = Object.assign(session.open(), { setNoDelay() {} })
  return new RawPeer(stream as unknown as net.Socket)
}
