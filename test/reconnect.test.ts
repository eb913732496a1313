/** Links that break and come back. What is lost, and what is not, is the subject of docs/protocol.md, «Losing each other». */
import dgram from 'node:dgram'
import { once } from 'node:events'
import type net from 'node:net'
import { pEvent } from 'p-event'
import {
  createServer,
  openTunnel,
  type Rejection,
  type Server,
  type ServerOptions,
  type Tunnel,
  TunnelError,
  type TunnelOptions,
} from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { brokenLink, type Link } from './helpers/link.js'
import { fakeServer, RawPeer } from './helpers/raw-peer.js'
import { echoTarget, type SampleTarget } from './helpers/targets.js'
import { udpEchoTarget, udpVisitor } from './helpers/udp.js'
import { ask, ending, visit } from './helpers/visitor.js'

const soon = { timeout: 30_000 }

/** A tunnel to an echo, through a link that can be broken. */
async function world(options: TunnelOptions = {}, serverOptions: ServerOptions = {}) {
  const stack = new AsyncDisposableStackLike()
  const server = stack.use(await createServer(serverOptions))
  const link = stack.use(await brokenLink(server))
  const target = stack.use(await echoTarget())
  const tunnel = stack.use(await openTunnel(target.port, { server: link.address, ...options }))
  return { server, link, target, tunnel, [Symbol.asyncDispose]: () => stack.dispose() } satisfies World
}

interface World extends AsyncDisposable {
  server: Server
  link: Link
  target: SampleTarget
  tunnel: Tunnel
}

/** Disposes of what it was given, the last first. */
class AsyncDisposableStackLike {
  readonly #all: AsyncDisposable[] = []
  use<T extends AsyncDisposable>(one: T): T {
    this.#all.unshift(one)
    return one
  }
  async dispose(): Promise<void> {
    for (const one of this.#all) await one[Symbol.asyncDispose]()
  }
}

const echo = async (tunnel: { host: string; port: number }, text: string) => `${await ask(tunnel, text)}`

describe('a tunnel whose control connection is reset', () => {
  test('comes back with the same address, and says so at both ends', async () => {
    await using place = await world()
    const { server, link, tunnel } = place
    const { url } = tunnel
    const [info] = server.tunnels
    const told: string[] = []
    tunnel.on('disconnect', ({ code }) => told.push(`tunnel ${code}`))
    tunnel.on('reconnect', () => told.push('tunnel is back'))
    server.on('disconnect', ({ error }) => told.push(`client ${error.code}`))
    server.on('reconnect', () => told.push('client is back'))
    const back = pEvent(tunnel, 'reconnect')

    link.cut(0)
    await back

    expect(told.filter((one) => one.startsWith('tunnel'))).toEqual([
      'tunnel connection-lost',
      'tunnel is back',
    ])
    expect(told.filter((one) => one.startsWith('client'))).toEqual([
      'client connection-lost',
      'client is back',
    ])
    expect(tunnel.url).toBe(url)
    expect(server.tunnels).toEqual([info])
    expect(await echo(tunnel, 'hello again')).toBe('hello again')
  })

  test('keeps the visitors that are inside', async () => {
    await using place = await world()
    const { link, tunnel } = place
    const visitor = await visit(tunnel)
    visitor.write('before')
    expect(`${await once(visitor, 'data')}`).toBe('before')
    const back = pEvent(tunnel, 'reconnect')

    link.cut(0)
    await back
    visitor.end('after')

    expect(`${await once(visitor, 'data')}`).toBe('after')
    expect(await ending(visitor)).toBe('end')
  })

  test('lets visitors wait that come meanwhile, and serves them once it is back', async () => {
    await using place = await world()
    const { server, link, tunnel } = place
    const lost = pEvent(server, 'disconnect')
    link.breakDown()
    await lost

    const waiting = Array.from({ length: 50 }, (_, i) => echo(tunnel, `visitor ${i}`))
    const refused = vi.fn()
    server.on('reject', refused)
    await vi.waitFor(() => expect(link.count).toBeGreaterThan(2), soon)
    link.heal()

    expect(await Promise.all(waiting)).toEqual(Array.from({ length: 50 }, (_, i) => `visitor ${i}`))
    expect(refused).not.toHaveBeenCalled()
  })

  test('has visitors refused that come meanwhile, where it says so', async () => {
    await using place = await world({ whileLost: 'refuse' })
    const { server, link, tunnel } = place
    const lost = pEvent(server, 'disconnect')
    link.breakDown()
    await lost

    const rejected = pEvent<'reject', Rejection>(server, 'reject')
    // So soon that it may not even see itself connected.
    expect(await visit(tunnel).then(ending, ({ code }) => code)).toMatch(/^(reset|ECONNRESET)$/)
    expect((await rejected).error.code).toBe('connection-lost')

    const back = pEvent(tunnel, 'reconnect')
    link.heal()
    await back
    expect(await echo(tunnel, 'hello')).toBe('hello')
  })

  test('bounds the visitors that wait meanwhile', async () => {
    await using place = await world({}, { limits: { waiting: 3 } })
    const { server, link, tunnel } = place
    const lost = pEvent(server, 'disconnect')
    link.breakDown()
    await lost

    const waiting = [0, 1, 2].map((i) => echo(tunnel, `visitor ${i}`))
    const parked = [0, 1, 2].map(() => pEvent(server, 'connection'))
    const rejected = pEvent<'reject', Rejection>(server, 'reject')
    const late: net.Socket[] = []
    // Who comes when is the system's to say: one of them is one too many.
    late.push(await visit(tunnel))
    expect((await rejected).error.code).toBe('limit-reached')
    link.heal()

    const outcomes = await Promise.allSettled(waiting)
    expect(outcomes.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThanOrEqual(2)
    for (const socket of late) socket.destroy()
    await Promise.race(parked)
  })

  test('many times over, loses nothing and leaves nothing behind', async () => {
    await using place = await world()
    const { server, link, tunnel } = place
    const visitor = await visit(tunnel)
    let echoed = ''
    visitor.on('data', (chunk) => {
      echoed += chunk
    })
    let sent = ''
    let index = 0
    for (let i = 0; i < 5; i++) {
      const back = pEvent(tunnel, 'reconnect')
      link.cut(index)
      await back
      index = link.count - 1
      sent += `round ${i}; `
      visitor.write(`round ${i}; `)
    }
    await vi.waitFor(() => expect(echoed).toBe(sent), soon)
    expect(server.tunnels).toHaveLength(1)
    visitor.destroy()
  })

  test('carries its flows on, and takes new ones meanwhile', async () => {
    await using server = await createServer()
    await using link = await brokenLink(server)
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { server: link.address })
    await using inside = await udpVisitor(tunnel)
    expect(`${await inside.ask('before')}`).toBe('before')
    const lost = pEvent(server, 'disconnect')
    const back = pEvent(tunnel, 'reconnect')

    link.cut(0)
    await lost
    await using late = await udpVisitor(tunnel)
    const answer = late.ask('late')
    await back

    expect(`${await answer}`).toBe('late')
    expect(`${await inside.ask('after')}`).toBe('after')
  })
})

describe('a link that falls silent', () => {
  const quick = { heartbeatInterval: 50, heartbeatTimeout: 400 }

  test('is noticed at both ends, and the tunnel is back once it heals', async () => {
    await using place = await world({}, quick)
    const { server, link, tunnel } = place
    const noticed = [
      pEvent<'disconnect', TunnelError>(tunnel, 'disconnect'),
      pEvent(server, 'disconnect'),
    ] as const
    link.stall()
    const [error] = await Promise.all(noticed)
    expect(error).toMatchObject({ code: 'connection-lost', message: expect.stringContaining('400 ms') })

    const waiting = echo(tunnel, 'hello')
    const back = pEvent(tunnel, 'reconnect')
    link.heal()
    await back
    expect(await waiting).toBe('hello')
  })

  test('has visitors inside cut who stay silent until the session has ended, and no others', async () => {
    await using place = await world({ reconnect: false }, { ...quick, resumeTimeout: 1_000 })
    const { server, link, tunnel } = place
    const [silent, speaking] = [await visit(tunnel), await visit(tunnel)]
    for (const visitor of [silent, speaking]) {
      visitor.write('hello')
      await once(visitor, 'data')
    }
    const [info] = server.tunnels
    const lost = pEvent(server, 'disconnect')
    // The control connection alone.
    link.cut(0)
    await lost
    const talk = setInterval(() => speaking.write('still here'), 50)

    expect(await ending(silent)).toBe('reset')
    expect(await info?.closed).toMatchObject({ code: 'connection-lost' })
    clearInterval(talk)
    speaking.end('bye')
    let heard = ''
    for await (const chunk of speaking) heard += chunk
    expect(heard.endsWith('bye')).toBe(true)
  })
})

describe('a session', () => {
  test('is taken over by its key although its control connection still stands', async () => {
    await using server = await createServer()
    await using first = await RawPeer.connect(server)
    const { resume } = await first.logIn()
    const { port, host } = await first.forward()
    await using visitor = await RawPeer.connect({ port, host })
    const { id } = await first.receive('exchange')

    await using second = await RawPeer.connect(server)
    const again = await second.logIn(undefined, resume)
    second.send({ type: 'forward', tunnel: 1, protocol: 'tcp', port })

    expect(again.resume).not.toBe(resume)
    expect(await second.receive('forwarded')).toMatchObject({ tunnel: 1, port })
    // Who waits is told of again.
    expect(await second.receive('exchange')).toMatchObject({ tunnel: 1, id, port: visitor.socket.localPort })
    await first.ended()
    expect(server.tunnels).toHaveLength(1)
    expect(server.tunnels[0]?.client.port).toBe(second.socket.localPort)
    await using stream = await RawPeer.dataStream(server, id)
    visitor.write(Buffer.from('hello'))
    expect(`${await stream.read(5)}`).toBe('hello')
  })

  test('has a key that works once, but for a client that never heard of the next', async () => {
    await using server = await createServer()
    const first = await RawPeer.connect(server)
    const { resume } = await first.logIn()
    const { port } = await first.forward()
    await first.close('reset')
    // These are lost before they have heard anything, as far as the server knows.
    for (let i = 0; i < 3; i++) {
      const second = await RawPeer.connect(server)
      await second.logIn(undefined, resume)
      await second.close('reset')
    }

    await using third = await RawPeer.connect(server)
    await third.logIn(undefined, resume)
    third.send({ type: 'forward', tunnel: 1, protocol: 'tcp', port })
    expect(await third.receive('forwarded')).toMatchObject({ port })

    await using fourth = await RawPeer.connect(server)
    await fourth.logIn(undefined, resume)
    fourth.send({ type: 'forward', tunnel: 1, protocol: 'tcp', port })
    expect(await fourth.receive('closed')).toMatchObject({ code: 'port-taken' })
  })

  test.each(['0'.repeat(64), 'f'.repeat(64)])(
    'is another one for a key that nobody has: %s',
    async (resume) => {
      await using server = await createServer()
      await using first = await RawPeer.connect(server)
      await first.logIn()
      await first.forward()
      await using second = await RawPeer.connect(server)
      await second.logIn(undefined, resume)
      await second.forward()

      expect(server.tunnels).toHaveLength(2)
    },
  )

  test('has a key that goes on for as long as its client never hears of the next', async () => {
    await using server = await createServer()
    const first = await RawPeer.connect(server)
    const { resume } = await first.logIn()
    const address = await first.forward()
    await first.close('reset')
    await using _visitor = await RawPeer.connect(address)
    for (let lost = 0; lost < 4; lost++) {
      const peer = await RawPeer.connect(server)
      await peer.logIn(undefined, resume)
      await peer.close('reset')
    }

    await using last = await RawPeer.connect(server)
    await last.logIn(undefined, resume)
    last.send({ type: 'forward', tunnel: 1, protocol: 'tcp', port: address.port })
    await last.receive('forwarded')
    // Another session would have the port by now, and not who waited there.
    await last.receive('exchange')
  })

  test('has a number free again once its client has given the tunnel back', async () => {
    await using server = await createServer({ heartbeatInterval: 100, heartbeatTimeout: 20_000 })
    const first = await RawPeer.connect(server)
    const { resume } = await first.logIn()
    await first.forward()
    await first.close('reset')
    await using second = await RawPeer.connect(server)
    await second.logIn(undefined, resume)
    second.send({ type: 'close', tunnel: 1 })
    await second.receive('closed')

    const { port } = await second.forward()
    second.send({ type: 'heartbeat' })
    second.send({ type: 'forward', tunnel: 2, protocol: 'tcp', port: 0 })
    await second.receive('forwarded')
    expect(server.tunnels.map((tunnel) => tunnel.port)).toContain(port)
  })

  test('tells its client of all who wait, however many they are', async () => {
    const secret = 'correct horse battery staple'
    await using server = await createServer({ secret })
    const first = await RawPeer.connect(server)
    const { resume } = await first.logIn(secret)
    // One socket is a visitor of each of them.
    const numbers = Array.from({ length: 200 }, (_, index) => index + 1)
    const ports: unknown[] = []
    for (const tunnel of numbers) {
      first.send({ type: 'forward', tunnel, protocol: 'udp', port: 0 })
      ports.push((await first.receive('forwarded')).port)
    }
    await first.close('reset')
    await once(server, 'disconnect')
    const sockets = Array.from({ length: 40 }, () => dgram.createSocket('udp4'))
    const told = vi.fn()
    server.on('reject', told).on('refuse', told)
    for (const socket of sockets) {
      await Promise.all(
        ports.map(
          (port) => new Promise((resolve) => socket.send('hello', Number(port), '127.0.0.1', resolve)),
        ),
      )
    }
    // All are in the server's sockets, which it reads before these turns are over.
    for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve))

    await using second = await RawPeer.connect(server)
    await second.logIn(secret, resume)
    second.send(
      ...numbers.map((tunnel) => ({ type: 'forward', tunnel, protocol: 'udp', port: ports[tunnel - 1] })),
    )
    let exchanges = 0
    while (exchanges < 8_000) {
      const { type } = await second.receiveAny()
      if (type === 'exchange') exchanges++
    }
    for (const socket of sockets) socket.close()
    expect(told).not.toHaveBeenCalled()
  })

  test('gives up what its client does not ask for before its first heartbeat', async () => {
    await using server = await createServer()
    const first = await RawPeer.connect(server)
    const { resume } = await first.logIn()
    const { port } = await first.forward(1)
    await first.forward(2)
    const [, info] = server.tunnels
    await first.close('reset')

    await using second = await RawPeer.connect(server)
    await second.logIn(undefined, resume)
    second.send({ type: 'forward', tunnel: 1, protocol: 'tcp', port }, { type: 'heartbeat' })

    expect(await second.receive('forwarded')).toMatchObject({ tunnel: 1, port })
    expect(await second.receive('closed')).toMatchObject({ tunnel: 2 })
    await info?.closed
    expect(server.tunnels).toHaveLength(1)
  })

  test.each([
    ['another port', { protocol: 'tcp', port: 1 }],
    ['another protocol', { protocol: 'udp' }],
  ])('is ended where its client comes back for %s', async (_, wanted) => {
    await using server = await createServer()
    const first = await RawPeer.connect(server)
    const { resume } = await first.logIn()
    const { port } = await first.forward()
    await first.close('reset')

    await using second = await RawPeer.connect(server)
    await second.logIn(undefined, resume)
    second.send({ type: 'forward', tunnel: 1, port, ...wanted })

    expect(await second.refusal()).toMatchObject({ code: 'protocol-violation' })
    expect(server.tunnels).toEqual([])
  })

  test('ends when its client does not come back in time, and its port is free', async () => {
    await using server = await createServer({ resumeTimeout: 100 })
    const client = await RawPeer.connect(server)
    const { resume } = await client.logIn()
    const { port } = await client.forward()
    await using waiting = await RawPeer.connect({ host: '127.0.0.1', port })
    const [info] = server.tunnels

    await client.close('reset')

    expect(await info?.closed).toMatchObject({ code: 'connection-lost' })
    expect(await waiting.ended()).toBe('reset')
    await using late = await RawPeer.connect(server)
    await late.logIn(undefined, resume)
    late.send({ type: 'forward', tunnel: 1, protocol: 'tcp', port })
    expect(await late.receive('forwarded')).toMatchObject({ port })
  })

  test('yields its address to another client of the same machine: the first was killed, and is back', async () => {
    await using server = await createServer()
    const killed = await RawPeer.connect(server)
    await killed.logIn()
    const { port } = await killed.forward()
    await using waiting = await RawPeer.connect({ host: '127.0.0.1', port })
    const [info] = server.tunnels
    const lost = pEvent(server, 'disconnect')
    await killed.close('reset')
    await lost
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server, port })

    expect(await info?.closed).toMatchObject({ code: 'connection-lost' })
    expect(await waiting.ended()).toBe('reset')
    expect(await echo(tunnel, 'who is there?')).toBe('who is there?')
  })

  test('yields its address to nobody while its client is there', async () => {
    await using server = await createServer()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server })

    await expect(openTunnel(target.port, { server, port: tunnel.port })).rejects.toMatchObject({
      code: 'port-taken',
    })
    expect(await echo(tunnel, 'still there?')).toBe('still there?')
  })

  test('ends at once when its client leaves by a FIN', async () => {
    await using server = await createServer()
    await using client = await RawPeer.connect(server)
    await client.logIn()
    await client.forward()
    const [info] = server.tunnels

    client.end()

    expect(await info?.closed).toMatchObject({ code: 'connection-lost' })
    expect(server.tunnels).toEqual([])
  })

  test('is not kept by a server that keeps nothing', async () => {
    await using server = await createServer({ resumeTimeout: 0 })
    await using client = await RawPeer.connect(server)
    expect(await client.logIn()).not.toHaveProperty('resume')
    await client.forward()
    const [info] = server.tunnels

    await client.close('reset')

    expect(await info?.closed).toMatchObject({ code: 'connection-lost' })
  })

  test('that is lost ends with its server', async () => {
    const server = await createServer()
    const client = await RawPeer.connect(server)
    await client.logIn()
    await client.forward()
    const [info] = server.tunnels
    const lost = pEvent(server, 'disconnect')
    await client.close('reset')
    await lost

    await server.close()

    expect(await info?.closed).toMatchObject({ code: 'server-closed' })
  })
})

describe('a server that is restarted on the same port', () => {
  test('gets its clients back, with their ports, by themselves', async () => {
    const first = await createServer()
    const { port } = first
    await using target = await echoTarget()
    const tunnels = await Promise.all(
      Array.from({ length: 5 }, () => openTunnel(target.port, { server: first.address })),
    )
    const urls = tunnels.map(({ url }) => url)
    const lost = tunnels.map((tunnel) => pEvent<'disconnect', TunnelError>(tunnel, 'disconnect'))
    const back = tunnels.map((tunnel) => pEvent(tunnel, 'reconnect'))
    await first.close()
    expect((await Promise.all(lost)).map(({ code }) => code)).toEqual(Array(5).fill('server-closed'))

    await using server = await createServer({ port })
    await Promise.all(back)

    expect(tunnels.map(({ url }) => url)).toEqual(urls)
    expect(server.tunnels.map((tunnel) => tunnel.port).sort()).toEqual(
      tunnels.map((tunnel) => tunnel.port).sort(),
    )
    expect(await Promise.all(tunnels.map((tunnel) => echo(tunnel, 'hello')))).toEqual(Array(5).fill('hello'))
    await Promise.all(tunnels.map((tunnel) => tunnel.close()))
  })

  test('with another secret is given up by its clients', async () => {
    const first = await createServer({ secret: 'the first secret' })
    await using tunnel = await openTunnel(3000, { server: first.address, secret: 'the first secret' })
    await first.close()
    await using _second = await createServer({ port: first.port, secret: 'the second secret' })

    expect(await tunnel.closed).toMatchObject({ code: 'secret-wrong' })
  })

  test('that does not allow a port any more ends its tunnel', async () => {
    const first = await createServer()
    await using tunnel = await openTunnel(3000, { server: first.address })
    await first.close()
    await using _second = await createServer({
      port: first.port,
      ports: tunnel.port === 50_000 ? 50_001 : 50_000,
    })

    expect(await tunnel.closed).toMatchObject({ code: 'port-not-allowed' })
  })

  test('is asked again for a port that is still taken', async () => {
    await using server = await fakeServer()
    const opening = openTunnel(3000, { server })
    const first = await (await server.accept()).admit()
    await first.receive('forward')
    first.send({ type: 'forwarded', tunnel: 1, host: null, port: 4_000 })
    await using tunnel = await opening
    const back = pEvent(tunnel, 'reconnect')
    await first.close('reset')

    const second = await (await server.accept()).admit()
    expect(await second.receive('forward')).toMatchObject({ tunnel: 1, port: 4_000 })
    second.send({ type: 'closed', tunnel: 1, code: 'port-taken', message: 'taken' })
    expect(await second.receive('forward')).toMatchObject({ tunnel: 1, port: 4_000 })
    second.send({ type: 'forwarded', tunnel: 1, host: null, port: 4_000 })
    await back
    second.end()
  })

  test('and given as an object is not waited for', async () => {
    const server = await createServer()
    await using tunnel = await openTunnel(3000, { server })
    await server.close()

    expect(await tunnel.closed).toMatchObject({ code: 'server-closed' })
  })
})

describe('a client', () => {
  test('does not reconnect where it is told not to', async () => {
    await using place = await world({ reconnect: false })
    const { link, tunnel } = place
    const lost = vi.fn()
    tunnel.on('disconnect', lost)
    link.cut(0)

    expect(await tunnel.closed).toMatchObject({ code: 'connection-lost' })
    expect(lost).not.toHaveBeenCalled()
    expect(link.count).toBe(1)
  })

  test('gives up after so many attempts, and says so', async () => {
    const server = await createServer()
    await using tunnel = await openTunnel(3000, { server: server.address, maxReconnects: 3 })
    await server.close()

    expect(await tunnel.closed).toMatchObject({
      code: 'server-unreachable',
      message: expect.stringMatching(/ECONNREFUSED.*gave up after 3 attempts/),
    })
  })

  test('closes at once while it is lost, and does not come back', async () => {
    await using place = await world()
    const { link, tunnel } = place
    const visitor = await visit(tunnel)
    visitor.write('hello')
    await once(visitor, 'data')
    const lost = pEvent(tunnel, 'disconnect')
    link.breakDown()
    await lost

    await tunnel.close()

    expect(await tunnel.closed).toBeUndefined()
    const { count } = link
    link.heal()
    await new Promise((resolve) => setImmediate(resolve))
    expect(link.count - count).toBeLessThanOrEqual(1)
  })

  test('has each of several tunnels back, and closes one meanwhile', async () => {
    await using server = await createServer()
    await using link = await brokenLink(server)
    await using target = await echoTarget()
    const { openTunnels } = await import('../src/open-tunnel.js')
    const tunnels = await openTunnels(
      Array.from({ length: 4 }, () => ({ target: target.port })),
      { server: link.address },
    )
    const [first, ...others] = tunnels as [Tunnel, ...Tunnel[]]
    const lost = tunnels.map((tunnel) => pEvent(tunnel, 'disconnect'))
    link.breakDown()
    await Promise.all(lost)
    await first.close()
    const back = others.map((tunnel) => pEvent(tunnel, 'reconnect'))
    link.heal()
    await Promise.all(back)

    await vi.waitFor(() => expect(server.tunnels).toHaveLength(3), soon)
    expect(await Promise.all(others.map((tunnel) => echo(tunnel, 'hello')))).toEqual(Array(3).fill('hello'))
    await Promise.all(others.map((tunnel) => tunnel.close()))
  })

  test.each([
    ['reconnect', 1],
    ['retry', 'yes'],
    ['maxReconnects', 0],
    ['maxReconnects', 1.5],
    ['whileLost', 'hold'],
  ])('is told that %s can not be %j', async (name, value) => {
    await expect(openTunnel(3000, { [name]: value })).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringContaining(name),
    })
  })
})

describe('openTunnel with retry', () => {
  test('waits for a server that starts later', async () => {
    const { port } = await closedServer()
    await using target = await echoTarget()
    const opening = openTunnel(target.port, { server: `127.0.0.1:${port}`, retry: true, timeout: 30_000 })
    await using server = await createServer({ port })
    await using tunnel = await opening

    expect(server.tunnels).toHaveLength(1)
    expect(await echo(tunnel, 'hello')).toBe('hello')
  })

  test('waits for a port that is still taken', async () => {
    await using server = await fakeServer()
    const opening = openTunnel(3000, { server, port: 4_000, retry: true, timeout: 30_000 })
    const first = await (await server.accept()).admit()
    await first.receive('forward')
    first.send({ type: 'closed', tunnel: 1, code: 'port-taken', message: 'taken' })
    const second = await (await server.accept()).admit()
    await second.receive('forward')
    second.send({ type: 'forwarded', tunnel: 1, host: null, port: 4_000 })
    await using tunnel = await opening

    expect(tunnel.port).toBe(4_000)
    second.end()
  })

  test('tries again where a connection is accepted, and then nothing is said', async () => {
    await using server = await fakeServer()
    const opening = openTunnel(3000, { server, port: 4_000, retry: true, timeout: 10_000 })
    await server.accept()
    const second = await (await server.accept()).admit()
    await second.receive('forward')
    second.send({ type: 'forwarded', tunnel: 1, host: null, port: 4_000 })
    await using tunnel = await opening

    expect(tunnel.port).toBe(4_000)
    second.end()
  })

  test('tells that nothing was said, once, when its time is over', async () => {
    await using server = await fakeServer()
    await expect(openTunnel(3000, { server, retry: true, timeout: 3_000 })).rejects.toMatchObject({
      code: 'timeout',
      message: expect.stringMatching(
        /^opening a tunnel .* took longer than 3000 ms \(logging in at .* took longer than 1500 ms\)$/,
      ),
    })
  })

  test('tells the last reason when its time is over', async () => {
    const { port } = await closedServer()
    await expect(
      openTunnel(3000, { server: `127.0.0.1:${port}`, retry: true, timeout: 400 }),
    ).rejects.toMatchObject({ code: 'timeout', message: expect.stringContaining('ECONNREFUSED') })
  })

  test('does not try again what will not change', async () => {
    await using server = await createServer({ secret: 'the right secret' })
    const refused = vi.fn()
    server.on('refuse', refused)
    await expect(
      openTunnel(3000, { server: server.address, secret: 'a wrong secret', retry: true }),
    ).rejects.toMatchObject({ code: 'secret-wrong' })
    expect(refused).toHaveBeenCalledOnce()
  })

  test('is not what openTunnel does by itself', async () => {
    const { port } = await closedServer()
    await expect(openTunnel(3000, { server: `127.0.0.1:${port}` })).rejects.toBeInstanceOf(TunnelError)
  })
})

/** A server that was there. */
async function closedServer(): Promise<Server> {
  const server = await createServer()
  await server.close()
  return server
}
