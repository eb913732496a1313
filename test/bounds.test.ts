/** The bounds of a server: at each, who is one too many is told so, and nobody else notices. */
import { once } from 'node:events'
import net from 'node:net'
import { pEvent } from 'p-event'
import {
  createServer,
  openTunnel,
  type Refusal,
  type Rejection,
  type Server,
  type ServerLimits,
} from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { networkOf } from '../src/address.js'
import { LINGER } from '../src/channel.js'
import { Door } from '../src/door.js'
import { MessageRate } from '../src/message-rate.js'
import { nonce, RawPeer } from './helpers/raw-peer.js'
import { echoTarget } from './helpers/targets.js'
import { udpEchoTarget, udpVisitor } from './helpers/udp.js'
import { ask, ending, visit } from './helpers/visitor.js'

const secret = 'correct horse battery staple'

/** Only Linux has all of 127.0.0.0/8 without being told. */
const ofStrangers = test.skipIf(process.platform !== 'linux')

describe('newcomers', () => {
  ofStrangers('of strangers in all are so many, and a client has its data streams beside them', async () => {
    await using world = await withTunnel({ newcomers: 3 })
    await using strangers = await strangersAt(world.server, ['127.0.0.2', '127.0.0.3', '127.0.0.4'])
    await using late = strangers.add(await from('127.0.0.5', world.server))

    expect(await late.refusal()).toMatchObject({
      code: 'limit-reached',
      message:
        '3 connections are logging in already: try again later, or raise limits.newcomers of createServer',
    })
    for (let i = 0; i < 10; i++) expect(`${await ask(world.tunnel, 'hello')}`).toBe('hello')
    // Its control connection too: nobody at its address is a stranger.
    await using _more = await openTunnel(3000, { server: world.server })
  })

  ofStrangers('of one address are so many, and others have theirs', async () => {
    await using server = await createServer({ limits: { newcomersPerAddress: 2 } })
    await using strangers = await strangersAt(server, ['127.0.0.2', '127.0.0.2', '127.0.0.3'])
    await using late = strangers.add(await from('127.0.0.2', server))

    expect(await late.refusal()).toMatchObject({
      code: 'limit-reached',
      message:
        '2 connections of 127.0.0.2 are logging in already: try again later, or raise limits.newcomersPerAddress of createServer',
    })
    await using other = await from('127.0.0.3', server)
    await other.logIn()
  })

  test('make room when they leave or are let in', async () => {
    await using server = await createServer({ limits: { newcomers: 1, newcomersPerAddress: 1 } })
    for (const how of ['end', 'reset'] as const) {
      const peer = await RawPeer.connect(server)
      await peer.close(how)
      await expect
        .poll(
          async () => {
            await using next = await RawPeer.connect(server)
            return await next.logIn().then(({ type }) => type, String)
          },
          { timeout: 10_000 },
        )
        .toBe('welcome')
    }
  })

  test('of an address with a client are so many, beside the data streams of visitors that wait', async () => {
    await using server = await createServer({ limits: { newcomersPerAddress: 1 } })
    await using client = await RawPeer.connect(server)
    await client.logIn()
    const address = await client.forward()
    await using visitors = await group(5, () => RawPeer.connect(address))
    const ids: unknown[] = []
    for (const _ of visitors.members) ids.push((await client.receive('exchange')).id)

    await using silent = await group(6, () => RawPeer.connect(server))
    await using late = await RawPeer.connect(server)
    expect(await late.refusal()).toMatchObject({ code: 'limit-reached' })
    silent.members.map((peer, i) => peer.send({ type: 'exchange', id: ids[i] ?? crypto.randomUUID() }))
    for (const peer of silent.members.slice(0, 5)) await peer.receive('joined')
  })

  test('that are refused do not linger in numbers', async () => {
    await using server = await createServer({ limits: { newcomersPerAddress: 1 } })
    await using _first = await RawPeer.connect(server)
    const sockets = await Promise.all(
      Array.from({ length: 600 }, () => visit({ host: server.host, port: server.port })),
    )
    // They never end by themselves: the server does, and most of them at once behind why.
    for (const text of await Promise.all(sockets.map(firstText))) expect(text).toContain('limit-reached')
    await notLingering(sockets.length)
    for (const socket of sockets) socket.destroy()
  })

  test('that do not encrypt as they should do not linger in numbers either', async () => {
    await using server = await createServer({
      secret: 'correct horse battery staple',
      limits: { newcomersPerAddress: 1_000 },
    })
    const sockets = await Promise.all(
      Array.from({ length: 600 }, () => visit({ host: server.host, port: server.port })),
    )
    const texts = sockets.map(firstText)
    for (const socket of sockets) socket.write(Buffer.alloc(1))
    for (const text of await Promise.all(texts)) expect(text).toContain('secret-required')
    await notLingering(sockets.length)
    for (const socket of sockets) socket.destroy()
  })
})

describe('a door', () => {
  const door = () => new Door({ newcomers: 3, newcomersPerAddress: 2 })

  test('counts IPv6 by network', () => {
    expect(networkOf('2001:db8:1:2:3:4:5:6')).toBe(networkOf('2001:db8:1:2::1'))
    expect(networkOf('2001:db8:1:2::1')).not.toBe(networkOf('2001:db8:1:3::1'))
    expect(networkOf('fe80::1%eth0')).toBe(networkOf('fe80::2%eth1'))
    expect(networkOf('192.0.2.1')).not.toBe(networkOf('192.0.2.2'))
    const one = door()
    one.enter('2001:db8::1')
    one.enter('2001:db8::2')
    expect(() => one.enter('2001:db8::3')).toThrow(expect.objectContaining({ code: 'limit-reached' }))
    one.enter('2001:db8:0:1::1')
  })

  test('has a place again for each that leaves, once', () => {
    const one = door()
    const first = one.enter('192.0.2.1')
    one.enter('192.0.2.1')
    first.leave()
    first.leave()
    one.enter('192.0.2.1')
    expect(() => one.enter('192.0.2.1')).toThrow('newcomersPerAddress')
  })

  test('knows an address for as long as a client is logged in from there', () => {
    const one = door()
    const forget = one.addClient('192.0.2.1', { waiting: 0 })
    const also = one.addClient('192.0.2.1', { waiting: 3 })
    expect(one.enter('192.0.2.1').isKnown).toBe(true)
    forget()
    for (let i = 0; i < 4; i++) expect(one.enter('192.0.2.1').isKnown).toBe(true)
    expect(() => one.enter('192.0.2.1')).toThrow('newcomersPerAddress')
    also()
    for (const address of ['192.0.2.2', '192.0.2.3', '192.0.2.4']) {
      expect(one.enter(address).isKnown).toBe(false)
    }
    expect(() => one.enter('192.0.2.5')).toThrow('limits.newcomers')
  })

  test('remembers so many addresses of failed logins, the last ones', () => {
    const one = door()
    const addresses = Array.from({ length: 5_000 }, (_, i) => `10.0.${i >> 8}.${i & 255}`)
    for (const address of addresses) one.fail(address)

    expect(addresses.filter((address) => one.failures(address) > 0)).toEqual(addresses.slice(-4_096))
  })

  test('holds up an address more with each failure, and no longer than 2 seconds', () => {
    const one = door()
    const pauses = Array.from({ length: 10 }, () => {
      const newcomer = one.enter('192.0.2.1')
      newcomer.leave()
      one.fail('192.0.2.1')
      return newcomer.pause
    })

    expect(pauses).toEqual([0, 0, 0, 0, 250, 500, 1_000, 2_000, 2_000, 2_000])
    expect(one.enter('192.0.2.2').pause).toBe(0)
  })
})

describe('logins with a wrong secret', () => {
  test('are counted, and then held up, but not the data streams of a client at the same address', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ secret, tls: false })
    await using tunnel = await openTunnel(target.port, { server })
    const failures: number[] = []
    server.on('refuse', (refusal) => {
      failures.push(refusal.failures)
      expect(JSON.stringify(refusal)).not.toContain(secret)
    })
    const times: number[] = []
    for (let i = 0; i < 6; i++) {
      const start = performance.now()
      const opening = openTunnel(3000, { server, secret: 'not the secret' })
      await expect(opening).rejects.toMatchObject({ code: 'secret-wrong' })
      times.push(performance.now() - start)
    }

    expect(failures).toEqual([1, 2, 3, 4, 5, 6])
    expect(times[4]).toBeGreaterThan(240)
    expect(times[5]).toBeGreaterThan(490)
    // By now a login waits for a second: visitors do not.
    const start = performance.now()
    for (let i = 0; i < 5; i++) expect(`${await ask(tunnel, 'hello')}`).toBe('hello')
    expect(performance.now() - start).toBeLessThan(900)
    await using right = await openTunnel(3000, { server })
    expect(right.port).toBeGreaterThan(0)
  })

  ofStrangers(
    'hold up strangers before anything is read, and nobody at another address',
    async () => {
      await using server = await createServer({ secret, tls: false, handshakeTimeout: 500 })
      await failFrom('127.0.0.2', server, 7)
      const start = performance.now()
      await using held = (await from('127.0.0.2', server)).send({ type: 'hello', version: 1, nonce: nonce() })
      await using other = await from('127.0.0.3', server)
      await other.logIn(secret)
      expect(performance.now() - start).toBeLessThan(1_900)
      // Longer than the whole handshake may take.
      await held.receive('challenge')
      expect(performance.now() - start).toBeGreaterThan(1_900)
    },
    30_000,
  )

  ofStrangers(
    'do not keep a server from closing',
    async () => {
      const server = await createServer({ secret, tls: false })
      await failFrom('127.0.0.2', server, 7)
      await using held = await from('127.0.0.2', server)
      // Connections are accepted in their order.
      await using other = await from('127.0.0.3', server)
      await other.logIn(secret)
      const start = performance.now()
      const refused = held.refusal()
      await server.close()
      expect(performance.now() - start).toBeLessThan(1_500)
      expect(await refused).toMatchObject({ code: 'server-closed' })
    },
    30_000,
  )
})

describe('clients', () => {
  test('are so many, one more is told so, and there is room when one leaves', async () => {
    await using server = await createServer({ secret, limits: { clients: 1 } })
    const first = await openTunnel(3000, { server })
    await expect(openTunnel(3000, { server })).rejects.toMatchObject({
      code: 'limit-reached',
      message: '1 clients are logged in already: try again later, or raise limits.clients of createServer',
    })
    await first.close()
    await using _next = await openTunnel(3000, { server })
  })

  test('that sent too many messages are refused, and nobody else', async () => {
    await using world = await withTunnel({ messages: 50 })
    await using peer = await RawPeer.connect(world.server)
    await peer.logIn()
    const refused = pEvent<'refuse', Refusal>(world.server, 'refuse')
    for (let i = 0; i < 60; i++) peer.send({ type: 'close', tunnel: 1_000 + i })

    expect(await peer.refusal()).toMatchObject({
      code: 'limit-reached',
      message:
        'the client sent more than 50 messages a second: send fewer, or raise limits.messages of createServer',
    })
    expect((await refused).error.code).toBe('limit-reached')
    expect(`${await ask(world.tunnel, 'hello')}`).toBe('hello')
  })

  test('may reject every visitor, however many come', async () => {
    await using server = await createServer({ limits: { messages: 20 } })
    await using tunnel = await openTunnel('127.0.0.1:1', { server })
    const endings = await Promise.all(
      Array.from({ length: 100 }, () => visit(tunnel).then(ending, () => 'reset')),
    )

    expect(endings).toEqual(Array(100).fill('reset'))
    expect(await Promise.race([tunnel.closed, 'open'])).toBe('open')
    expect(tunnel.stats.rejections).toBeGreaterThan(50)
  })

  test('may open and close as many tunnels as they may have, at once', async () => {
    await using server = await createServer()
    await using peer = await RawPeer.connect(server)
    await peer.logIn()
    const numbers = Array.from({ length: 256 }, (_, i) => i + 1)
    peer.send(...numbers.map((tunnel) => ({ type: 'forward', tunnel, protocol: 'tcp', port: 0 })))
    for (const tunnel of numbers) expect(await peer.receive('forwarded')).toMatchObject({ tunnel })
    peer.send(...numbers.map((tunnel) => ({ type: 'close', tunnel })))
    for (const tunnel of numbers) expect(await peer.receive('closed')).toMatchObject({ tunnel })
  })
})

test('a rate lets through what was saved up, for no more than a second', async () => {
  const rate = new MessageRate(100)
  const taken = () => {
    for (let i = 0; ; i++) {
      try {
        rate.count('close')
      } catch {
        return i
      }
    }
  }
  expect(taken()).toBeGreaterThanOrEqual(100)
  await expect.poll(taken, { interval: 100, timeout: 5_000 }).toBeGreaterThan(1)
  expect(() => rate.count('reject')).toThrow('limits.messages')
  rate.expectAnswer()
  rate.count('reject')
})

describe('visitors', () => {
  test('of a tunnel are so many, inside and waiting', async () => {
    await using world = await withTunnel({ visitors: 2 })
    const inside = [await visit(world.tunnel), await visit(world.tunnel)]
    for (const visitor of inside) {
      visitor.write('ping')
      await once(visitor, 'data')
    }
    const rejected = pEvent<'reject', Rejection>(world.server, 'reject')

    expect(await visit(world.tunnel).then(ending, () => 'reset')).toBe('reset')
    expect((await rejected).error).toMatchObject({
      code: 'limit-reached',
      message: '2 visitors are at this tunnel already: raise limits.visitors of createServer for more',
    })
    inside[0]?.destroy()
    await expect
      .poll(() => ask(world.tunnel, 'hello').then(String, () => ''), { timeout: 10_000 })
      .toBe('hello')
    inside[1]?.destroy()
  })

  test('of a UDP tunnel are bounded as flows', async () => {
    await using target = await udpEchoTarget()
    await using server = await createServer({ limits: { visitors: 1 } })
    await using tunnel = await openTunnel(`udp://127.0.0.1:${target.port}`, { server })
    for (let i = 0; i < 3; i++) {
      await using visitor = await udpVisitor(tunnel)
      const answer = once(visitor.socket, 'message')
      visitor.send('hello')
      await answer
    }
  })

  test('that wait at a server are so many in all, and each tunnel has a few places of its own', async () => {
    await using server = await createServer({ limits: { waiting: 100, waitingTotal: 40 } })
    await using client = await RawPeer.connect(server)
    await client.logIn()
    const [crowded, quiet] = [await client.forward(1), await client.forward(2)]
    const rejected = pEvent<'reject', Rejection>(server, 'reject')
    await using _waiting = await group(40, () => RawPeer.connect(crowded))
    await using _late = await RawPeer.connect(crowded)

    expect((await rejected).error).toMatchObject({
      code: 'limit-reached',
      message: '40 visitors wait at this server already: raise limits.waitingTotal of createServer for more',
    })
    await using _quiet = await RawPeer.connect(quiet)
    let exchange = await client.receive('exchange')
    while (exchange.tunnel === 1) exchange = await client.receive('exchange')
    await using stream = await RawPeer.dataStream(server, exchange.id)
    stream.write(Buffer.from('welcome'))
    expect(`${await _quiet.read(7)}`).toBe('welcome')
  })
})

/** A server with these limits, and a tunnel to an echo. */
async function withTunnel(limits: ServerLimits) {
  const target = await echoTarget()
  const server = await createServer({ limits })
  const tunnel = await openTunnel(target.port, { server })
  return {
    server,
    tunnel,
    async [Symbol.asyncDispose]() {
      await tunnel.close()
      await server.close()
      await target[Symbol.asyncDispose]()
    },
  }
}

/** Connected from another address of this machine. */
async function from(localAddress: string, server: Server): Promise<RawPeer> {
  const socket = net.connect({ host: server.host, port: server.port, localAddress, allowHalfOpen: true })
  await once(socket, 'connect')
  return new RawPeer(socket)
}

/** Logs in with a wrong secret, again and again. */
async function failFrom(address: string, server: Server, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    await using peer = await from(address, server)
    await expect(peer.logIn('not the secret')).rejects.toThrow('secret-wrong')
  }
}

async function strangersAt(server: Server, addresses: string[]) {
  const peers: RawPeer[] = []
  for (const address of addresses) peers.push(await from(address, server))
  // A connection is counted when the server has accepted it, which it does in their order.
  return {
    add(peer: RawPeer) {
      peers.push(peer)
      return peer
    },
    async [Symbol.asyncDispose]() {
      for (const peer of peers) await peer.close()
    },
  }
}

async function group(count: number, open: (i: number) => Promise<RawPeer>) {
  const members = await Promise.all(Array.from({ length: count }, (_, i) => open(i)))
  return {
    members,
    async [Symbol.asyncDispose]() {
      for (const peer of members) await peer.close()
    },
  }
}

/** What comes first on a connection. */
async function firstText(socket: net.Socket): Promise<string> {
  const [chunk] = await once(socket, 'data')
  return `${chunk}`
}

/** Resolves when hardly more of this process's sockets are open than these visitors and those that may linger, well before the others would have ended by themselves. */
async function notLingering(visitors: number): Promise<void> {
  const open = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length
  // Both ends are in this process. Some more are those of the first, and of what is just being closed.
  await expect.poll(() => open() - visitors, { timeout: LINGER / 2 }).toBeLessThan(256 + 50)
}
