import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import fc from 'fast-check'
import { pEvent } from 'p-event'
import {
  type Connection,
  createServer,
  openTunnel,
  type Refusal,
  type Rejection,
  type Server,
  type ServerOptions,
  type TunnelError,
} from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { fakeServer, frame, nonce, RawPeer, type Wire } from './helpers/raw-peer.js'
import { echoTarget, readAll, tcpTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

/** Where the visitor of an `exchange` comes from, and where it came to. */
const came = { address: '127.0.0.1', port: 1, localAddress: '127.0.0.1', localPort: 4_000 }

const secret = 'correct horse battery staple'
const id = '6fa459ea-ee8a-4ca4-894e-db77e160355e'

/** What no peer may send at any time, and what it is refused with everywhere. */
const rubbish: [string, Buffer][] = [
  ['random bytes', Buffer.concat([Buffer.from('80', 'hex'), randomBytes(5_000)])],
  ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')],
  ['a TLS handshake', Buffer.concat([Buffer.from('16030100c8010000c40303', 'hex'), randomBytes(195)])],
  ['a message of no bytes', Buffer.from('00000000', 'hex')],
  ['a message longer by two than allowed', Buffer.from('00010002', 'hex')],
  ['a message of 4 GiB', Buffer.from('ffffffff', 'hex')],
  ['what is no JSON', text('{"type":"heartbeat"')],
  ['what is no text', text(Buffer.from('fffe00d8', 'hex'))],
  ['null', text('null')],
  ['an array', text('[{"type":"heartbeat"}]')],
  ['the type constructor', text('{"type":"constructor"}')],
  ['the type __proto__', text('{"type":"__proto__"}')],
  ['a prototype', text('{"__proto__":{"type":"heartbeat"}}')],
  ['a prototype at the constructor', text('{"constructor":{"prototype":{"type":"heartbeat"}}}')],
  ['an unknown type', text('{"type":"teleport"}')],
  ['deep arrays', text('['.repeat(32_000) + ']'.repeat(32_000))],
  ['deep objects', text(`${'{"type":'.repeat(7_000)}1${'}'.repeat(7_000)}`)],
  ['a field of another kind', text('{"type":"close","tunnel":{"valueOf":1}}')],
  ['a field out of bounds', text('{"type":"forward","tunnel":0,"protocol":"tcp","port":70000}')],
]

/** What nobody may send either, but is how a connection begins that carries streams: it is rubbish everywhere else. */
const beginnings: [string, Buffer][] = [
  ['a message of one byte', Buffer.from('0000000131', 'hex')],
  ['a message longer by one than allowed', Buffer.from('00010001', 'hex')],
]

/** How far a client has come, and which messages of a client are out of order then. */
const phases: [string, (peer: RawPeer) => Promise<unknown>, Wire[]][] = [
  [
    'a connection that is new',
    async () => {},
    [
      { type: 'login', proof: null },
      { type: 'forward', tunnel: 1, protocol: 'tcp', port: 0 },
      { type: 'close', tunnel: 1 },
      { type: 'reject', tunnel: 1, id, code: 'x', message: 'x' },
      { type: 'heartbeat' },
      { type: 'welcome', proof: null, heartbeatTimeout: 1, exchangeTimeout: 1 },
    ],
  ],
  [
    'a client in the middle of its login',
    async (peer) => {
      peer.send({ type: 'hello', version: 1, nonce: nonce() })
      await peer.receive('challenge')
    },
    [
      { type: 'hello', version: 1, nonce: nonce() },
      { type: 'forward', tunnel: 1, protocol: 'tcp', port: 0 },
      { type: 'exchange', id },
      { type: 'heartbeat' },
    ],
  ],
  [
    'a client that is logged in',
    async (peer) => {
      await peer.logIn(secret)
      await peer.forward()
    },
    [
      { type: 'hello', version: 1, nonce: nonce() },
      { type: 'login', proof: nonce() },
      { type: 'exchange', id },
      { type: 'challenge', nonce: nonce(), secret: false },
      { type: 'forward', tunnel: 1, protocol: 'tcp', port: 0 },
    ],
  ],
]

describe.each(phases)('%s', (phase, reach, outOfOrder) => {
  const outOfTurn = outOfOrder.map((message): [string, Buffer] => [
    `${message.type} out of turn`,
    frame(message),
  ])

  const elsewhere = phase === 'a connection that is new' ? [] : beginnings

  test.each([...rubbish, ...elsewhere, ...outOfTurn])('is refused for %s', async (_, bytes) => {
    await using world = await bystanderAt({ secret })
    const refused = pEvent<'refuse', Refusal>(world.server, 'refuse')
    await using peer = await RawPeer.connect(world.server)
    await reach(peer)

    peer.write(bytes)

    expect(await peer.refusal()).toMatchObject({ code: 'protocol-violation' })
    expect((await refused).error.code).toBe('protocol-violation')
    await world.alone()
    await world.undisturbed()
  })

  test('is refused for rubbish of which it sends more and more', async () => {
    await using world = await bystanderAt({ secret })
    await using peer = await RawPeer.connect(world.server)
    await reach(peer)
    const flood = setInterval(() => peer.write(Buffer.alloc(100_000, 0xff)), 1)

    expect(await peer.receive('refuse')).toMatchObject({ code: 'protocol-violation' })
    await pEvent(peer.socket, 'close', { rejectionEvents: [] })
    clearInterval(flood)
    await world.undisturbed()
  })

  test.concurrent.each([
    ['between two messages', 0],
    ['in the length of a message', 3],
    ['behind the length of a message', 4],
    ['in a message', 20],
  ])('is refused when it falls silent %s', async (_, length) => {
    await using world = await bystanderAt({
      secret,
      handshakeTimeout: 1_000,
      heartbeatInterval: 500,
      heartbeatTimeout: 1_000,
    })
    await using peer = await RawPeer.connect(world.server)
    await reach(peer)
    peer.write(frame({ type: 'hello', version: 1, nonce: nonce() }).subarray(0, length))

    expect(await peer.refusal()).toMatchObject({
      code: expect.stringMatching(/^(timeout|connection-lost)$/),
      message: expect.stringMatching(/(log in within|not heard for) 1000 ms$/),
    })
    await world.alone()
    await world.undisturbed()
  })

  test.each(['end', 'reset'] as const)('may leave in the middle of a message, by %s', async (how) => {
    await using world = await bystanderAt({ secret })
    const told = (['refuse', 'disconnect'] as const).map((event) =>
      pEvent<typeof event, Refusal>(world.server, event),
    )
    await using peer = await RawPeer.connect(world.server)
    await reach(peer)
    peer.write(frame({ type: 'heartbeat' }).subarray(0, 9))
    if (how === 'end') peer.end()
    else await peer.close(how)

    expect((await Promise.race(told)).error.code).toBe('connection-lost')
    await world.alone()
    await world.undisturbed()
  })

  test.each(['end', 'reset'] as const)('may leave between two messages, by %s', async (how) => {
    await using world = await bystanderAt({ secret })
    await using peer = await RawPeer.connect(world.server)
    await reach(peer)
    if (how === 'end') await peer.end().ended()
    else await peer.close(how)

    await world.alone()
    await world.undisturbed()
  })
})

describe('a new connection', () => {
  test('is ended, whatever bytes it sends', async () => {
    await using world = await bystanderAt({ secret })
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 2_000 }), async (bytes) => {
        await using peer = await RawPeer.connect(world.server)
        await peer.write(Buffer.from(bytes)).end().ended()
      }),
    )
    await world.undisturbed()
  })

  test('is refused when it sends its first message too slowly', async () => {
    await using world = await bystanderAt({ secret, handshakeTimeout: 1_000 })
    await using peer = await RawPeer.connect(world.server)
    const bytes = frame({ type: 'hello', version: 1, nonce: nonce() })
    let at = 0
    const drip = setInterval(() => at < bytes.length - 1 && peer.write(bytes.subarray(at, ++at)), 100)

    expect(await peer.refusal()).toMatchObject({ code: 'timeout' })
    clearInterval(drip)
    await world.undisturbed()
  })

  test('is refused at once where too many others have not said what they are', async () => {
    await using world = await bystanderAt({ secret, tls: false, limits: { newcomersPerAddress: 5 } })
    const silent = await Promise.all(Array.from({ length: 5 }, () => RawPeer.connect(world.server)))
    await using peer = await RawPeer.connect(world.server)

    expect(await peer.refusal()).toMatchObject({ code: 'limit-reached' })
    await world.goesOn()
    await Promise.all(silent.map((one) => one.close()))
    await world.undisturbed()
  })
})

describe('a data stream', () => {
  test('for an id that was made up is refused', async () => {
    await using world = await bystanderAt({ secret })
    await using stream = await RawPeer.exchange(world.server, crypto.randomUUID())

    expect(await stream.refusal()).toMatchObject({ code: 'exchange-expired' })
    await world.undisturbed()
  })

  test('for an id that has had its data stream is refused, and the visitor keeps the first', async () => {
    await using world = await bystanderAt({ secret })
    await using client = await tunnelByHand(world.server)
    await using visitor = await RawPeer.connect(client)
    const { id } = await client.peer.receive('exchange')
    await using first = await RawPeer.dataStream(world.server, id)
    visitor.write(Buffer.from('ping'))
    expect((await first.read(4)).toString()).toBe('ping')

    await using second = await RawPeer.exchange(world.server, id)

    expect(await second.refusal()).toMatchObject({ code: 'exchange-expired' })
    first.write(Buffer.from('pong'))
    expect((await visitor.read(4)).toString()).toBe('pong')
    await world.undisturbed()
  })

  test('that comes twice at the same time gets the visitor once', async () => {
    await using world = await bystanderAt({ secret })
    await using client = await tunnelByHand(world.server)
    await using visitor = await RawPeer.connect(client)
    const { id } = await client.peer.receive('exchange')
    const streams = await Promise.all(Array.from({ length: 10 }, () => RawPeer.exchange(world.server, id)))

    const answers = streams.map((stream) =>
      stream.receive('joined').then(
        () => stream,
        () => undefined,
      ),
    )
    const joined = (await Promise.all(answers)).filter((stream) => stream !== undefined)

    expect(joined).toHaveLength(1)
    visitor.write(Buffer.from('ping'))
    expect((await joined[0]?.read(4))?.toString()).toBe('ping')
    await Promise.all(streams.map((stream) => stream.close()))
    await world.undisturbed()
  })

  test('that comes too late is refused, and the visitor was reset in time', async () => {
    await using world = await bystanderAt({ secret, exchangeTimeout: 1_000 })
    await using client = await tunnelByHand(world.server)
    const rejected = pEvent<'reject', Rejection>(world.server, 'reject')
    await using visitor = await RawPeer.connect(client)
    const { id } = await client.peer.receive('exchange')

    expect(await visitor.ended()).toBe('reset')
    expect(await rejected).toMatchObject({ id, error: { code: 'exchange-expired' } })
    await using stream = await RawPeer.exchange(world.server, id)
    expect(await stream.refusal()).toMatchObject({ code: 'exchange-expired' })
    await world.undisturbed()
  })

  test('for a visitor that has left is refused', async () => {
    await using world = await bystanderAt({ secret })
    await using client = await tunnelByHand(world.server)
    const rejected = pEvent<'reject', Rejection>(world.server, 'reject')
    const visitor = await RawPeer.connect(client)
    const { id } = await client.peer.receive('exchange')
    await visitor.close('reset')

    expect(await rejected).toMatchObject({ id, error: { code: 'visitor-left' } })
    await using stream = await RawPeer.exchange(world.server, id)
    expect(await stream.refusal()).toMatchObject({ code: 'exchange-expired' })
    await world.undisturbed()
  })

  test('for a visitor that was turned away is refused', async () => {
    await using world = await bystanderAt({ secret })
    await using client = await tunnelByHand(world.server)
    const rejected = pEvent<'reject', Rejection>(world.server, 'reject')
    await using visitor = await RawPeer.connect(client)
    const { id } = await client.peer.receive('exchange')
    client.peer.send({ type: 'reject', tunnel: 1, id, code: 'target-unreachable', message: 'down' })

    expect(await visitor.ended()).toBe('reset')
    expect(await rejected).toMatchObject({ id, error: { code: 'target-unreachable', message: 'down' } })
    await using stream = await RawPeer.exchange(world.server, id)
    expect(await stream.refusal()).toMatchObject({ code: 'exchange-expired' })
    await world.undisturbed()
  })

  test('that breaks resets its visitor and nobody else', async () => {
    await using world = await bystanderAt({ secret })
    await using client = await tunnelByHand(world.server)
    const joined = pEvent<'connection', Connection>(world.server, 'connection')
    await using visitor = await RawPeer.connect(client)
    const { id } = await client.peer.receive('exchange')
    const stream = await RawPeer.dataStream(world.server, id)
    const { closed } = await joined
    await stream.close('reset')

    expect(await visitor.ended()).toBe('reset')
    expect((await closed).error?.code).toBe('connection-lost')
    await world.undisturbed()
  })
})

describe('a client', () => {
  test.each([
    ['the tunnel number of its own', 1],
    ['the tunnel number of the other', 7],
    ['a tunnel number of nobody', 99],
  ])("cannot turn another client's visitor away by %s", async (_, tunnel) => {
    await using world = await bystanderAt({ secret })
    await using victim = await tunnelByHand(world.server, 7)
    await using attacker = await tunnelByHand(world.server, 1)
    await using visitor = await RawPeer.connect(victim)
    const { id } = await victim.peer.receive('exchange')

    attacker.peer.send({ type: 'reject', tunnel, id, code: 'target-unreachable', message: 'gotcha' })
    await attacker.peer.forward(2)

    await using stream = await RawPeer.dataStream(world.server, id)
    stream.write(Buffer.from('still here'))
    expect((await visitor.read(10)).toString()).toBe('still here')
    await world.undisturbed()
  })

  test("cannot close another client's tunnel", async () => {
    await using world = await bystanderAt({ secret })
    await using victim = await tunnelByHand(world.server, 7)
    await using attacker = await tunnelByHand(world.server, 1)

    attacker.peer.send({ type: 'close', tunnel: 7 })
    await attacker.peer.forward(2)

    await using _visitor = await RawPeer.connect(victim)
    expect(await victim.peer.receive('exchange')).toMatchObject({ tunnel: 7 })
    await world.undisturbed()
  })

  test('may use a number again once its tunnel is closed', async () => {
    await using world = await bystanderAt({ secret })
    await using client = await tunnelByHand(world.server)
    client.peer.send({ type: 'close', tunnel: 1 })
    expect(await client.peer.receive('closed')).toMatchObject({ tunnel: 1, code: 'closed' })

    expect((await client.peer.forward(1)).port).toBeGreaterThan(0)
    await world.undisturbed()
  })

  test('that never opens a data stream loses its visitors one by one, and nothing else', async () => {
    await using world = await bystanderAt({ secret, exchangeTimeout: 1_000 })
    await using client = await tunnelByHand(world.server)
    const visitors = await Promise.all(Array.from({ length: 20 }, () => visit(client)))

    for (const _ of visitors) await client.peer.receive('exchange')
    expect(await Promise.all(visitors.map(ending))).toEqual(Array(20).fill('reset'))
    await client.peer.forward(2)
    await world.undisturbed()
  })

  test('that never opens a data stream has a bounded number of visitors waiting', async () => {
    await using world = await bystanderAt({ secret, limits: { waiting: 3 } })
    await using client = await tunnelByHand(world.server)
    const waiting = await Promise.all(Array.from({ length: 3 }, () => RawPeer.connect(client)))
    for (const _ of waiting) await client.peer.receive('exchange')
    const rejected = pEvent<'reject', Rejection>(world.server, 'reject')

    await expect(ask(client, 'one too many')).rejects.toThrow()
    expect((await rejected).error.code).toBe('limit-reached')
    await Promise.all(waiting.map((one) => one.close()))
    await world.undisturbed()
  })

  test('may send thousands of messages that mean nothing, where the server allows so many', async () => {
    await using world = await bystanderAt({ secret, limits: { messages: 10_000 } })
    await using client = await tunnelByHand(world.server)
    const message = { code: 'x'.repeat(64), message: 'x'.repeat(1_000) }
    for (let i = 0; i < 3_000; i++) {
      client.peer.send(
        { type: 'heartbeat', i },
        { type: 'reject', tunnel: 1, id: crypto.randomUUID(), ...message },
        { type: 'close', tunnel: 1_000 + i },
      )
    }

    await client.peer.forward(2)
    await world.undisturbed()
  })

  test('gets no more tunnels than it may have, however often it asks', async () => {
    await using world = await bystanderAt({ secret, limits: { tunnels: 3 } })
    await using peer = await RawPeer.connect(world.server)
    await peer.logIn(secret)
    for (let tunnel = 1; tunnel <= 3; tunnel++) await peer.forward(tunnel)

    for (let tunnel = 4; tunnel <= 1_000; tunnel++) {
      peer.send({ type: 'forward', tunnel, protocol: 'tcp', port: 0 })
    }
    for (let tunnel = 4; tunnel <= 1_000; tunnel++) {
      expect(await peer.receive('closed')).toMatchObject({ tunnel, code: 'limit-reached' })
    }
    expect(world.server.tunnels).toHaveLength(4)
    await peer.close()
    await world.undisturbed()
  })

  test('that asks and asks and never reads is dropped', async () => {
    await using world = await bystanderAt({ secret, limits: { messages: 1_000_000 } })
    const refused = pEvent<'refuse', Refusal>(world.server, 'refuse')
    await using client = await tunnelByHand(world.server)
    client.peer.socket.pause()
    // Each is answered at more length: a port below 1024 is not allowed.
    const question = frame({ type: 'forward', tunnel: 2, protocol: 'tcp', port: 1 })
    const questions = Buffer.concat(Array(5_000).fill(question))
    const asking = setInterval(
      () => client.peer.socket.writableLength === 0 && client.peer.write(questions),
      1,
    )

    expect((await refused).error.code).toBe('limit-reached')
    clearInterval(asking)
    await world.alone()
    await world.undisturbed()
  })

  test.each(['end', 'reset'] as const)('may leave by %s while its port is being opened', async (how) => {
    await using world = await bystanderAt({ secret })
    const peer = await RawPeer.connect(world.server)
    await peer.logIn(secret)
    const asked = Array.from({ length: 50 }, (_, i) => ({
      type: 'forward',
      tunnel: i + 1,
      protocol: 'tcp',
      port: 0,
    }))
    await new Promise((resolve) => peer.socket.write(Buffer.concat(asked.map(frame)), resolve))
    await peer.close(how)

    await world.alone()
    await world.undisturbed()
  })

  test.each(['end', 'reset'] as const)('may leave by %s while visitors wait: they are reset', async (how) => {
    await using world = await bystanderAt({ secret })
    await using client = await tunnelByHand(world.server)
    await using visitor = await RawPeer.connect(client)
    await client.peer.receive('exchange')
    await client.peer.close(how)

    expect(await visitor.ended()).toBe('reset')
    await world.alone()
    await world.undisturbed()
  })

  test.each(['end', 'reset'] as const)(
    'may leave by %s while visitors are inside: they stay',
    async (how) => {
      await using world = await bystanderAt({ secret })
      await using client = await tunnelByHand(world.server)
      const joined = once(world.server, 'connection')
      await using visitor = await RawPeer.connect(client)
      const { id } = await client.peer.receive('exchange')
      await using stream = await RawPeer.dataStream(world.server, id)
      await joined
      await client.peer.close(how)
      await world.alone()

      visitor.write(Buffer.from('ping'))
      expect((await stream.read(4)).toString()).toBe('ping')
      await world.undisturbed()
    },
  )

  test('may leave again and again', async () => {
    await using world = await bystanderAt({ secret })
    for (let i = 0; i < 50; i++) {
      const { peer, ...address } = await tunnelByHand(world.server)
      const visitor = await RawPeer.connect(address)
      await peer.close(i % 2 ? 'end' : 'reset')
      expect(await visitor.ended()).toBe('reset')
    }

    await world.alone()
    await world.undisturbed()
  })
})

/** How far a fake server has let a client come, and which messages of a server are out of order then. */
const serverPhases: [string, (peer: RawPeer) => Promise<unknown>, Wire[]][] = [
  [
    'at the first message',
    (peer) => peer.receive('hello'),
    [
      { type: 'heartbeat' },
      { type: 'welcome', proof: null, heartbeatTimeout: 60_000, exchangeTimeout: 60_000 },
      { type: 'forwarded', tunnel: 1, host: null, port: 4_000 },
      { type: 'closed', tunnel: 1, code: 'x', message: 'x' },
      {
        type: 'exchange',
        tunnel: 1,
        id,
        ...came,
      },
      { type: 'hello', version: 1, nonce: nonce() },
    ],
  ],
  [
    'at the login',
    async (peer) => {
      await peer.receive('hello')
      peer.send({ type: 'challenge', nonce: nonce(), secret: false })
      await peer.receive('login')
    },
    [
      { type: 'heartbeat' },
      { type: 'challenge', nonce: nonce(), secret: false },
      { type: 'forwarded', tunnel: 1, host: null, port: 4_000 },
      { type: 'login', proof: null },
    ],
  ],
  [
    'at the request for a tunnel',
    async (peer) => {
      await peer.admit()
      await peer.receive('forward')
    },
    [
      { type: 'challenge', nonce: nonce(), secret: false },
      { type: 'welcome', proof: null, heartbeatTimeout: 60_000, exchangeTimeout: 60_000 },
      { type: 'forward', tunnel: 1, protocol: 'tcp', port: 0 },
    ],
  ],
]

describe.each(serverPhases)('a client gives a server up that, %s,', (_, reach, outOfOrder) => {
  const outOfTurn = outOfOrder.map((message): [string, Buffer] => [
    `${message.type} out of turn`,
    frame(message),
  ])

  test.each([...rubbish, ...beginnings, ...outOfTurn])('sends %s', async (_, bytes) => {
    await using server = await fakeServer()
    const opening = failureOf(openTunnel(3000, { server }))
    await using peer = await server.accept()
    await reach(peer)
    peer.write(bytes)
    await peer.ended()
    peer.end()

    expect(await opening).toMatchObject({ name: 'TunnelError', code: 'protocol-violation' })
  })

  test('refuses it', async () => {
    await using server = await fakeServer()
    const opening = failureOf(openTunnel(3000, { server }))
    await using peer = await server.accept()
    await reach(peer)
    peer.send({ type: 'refuse', code: 'limit-reached', message: 'try tomorrow' })
    await peer.ended()
    peer.end()

    expect(await opening).toMatchObject({ code: 'limit-reached', message: 'try tomorrow' })
  })

  test.each(['end', 'reset'] as const)('leaves by %s', async (how) => {
    await using server = await fakeServer()
    const opening = failureOf(openTunnel(3000, { server }))
    const peer = await server.accept()
    await reach(peer)
    await peer.close(how)

    expect(await opening).toMatchObject({ code: 'connection-lost' })
  })

  test.each(['end', 'reset'] as const)('leaves by %s in the middle of a message', async (how) => {
    await using server = await fakeServer()
    const opening = failureOf(openTunnel(3000, { server }))
    const peer = await server.accept()
    await reach(peer)
    await new Promise((resolve) => peer.socket.write(Buffer.from('000000147b', 'hex'), resolve))
    await peer.close(how)

    expect(await opening).toMatchObject({ code: 'connection-lost' })
  })

  test('never answers', async () => {
    await using server = await fakeServer()
    const start = performance.now()
    const opening = failureOf(openTunnel(3000, { server, timeout: 500 }))
    await using peer = await server.accept()
    await reach(peer)

    expect(await opening).toMatchObject({ code: 'timeout', message: expect.stringContaining('500 ms') })
    // Half a second, a second for the server to end the connection, and the rest for a slow machine.
    expect(performance.now() - start).toBeLessThan(5_000)
  })

  test('never answers, when its own user gives up', async () => {
    await using server = await fakeServer()
    const controller = new AbortController()
    const opening = failureOf(openTunnel(3000, { server, signal: controller.signal }))
    await using peer = await server.accept()
    await reach(peer)
    controller.abort(new Error('enough'))

    expect(await opening).toMatchObject({ code: 'aborted', cause: { message: 'enough' } })
  })
})

describe('a client with a tunnel', () => {
  test.each([...rubbish, ...beginnings])(
    'tells why it is closed when the server sends %s',
    async (_, bytes) => {
      await using server = await fakeServer()
      const { peer, tunnel } = await openAt(server)
      peer.write(bytes)
      await peer.ended()
      peer.end()

      expect(await tunnel.closed).toMatchObject({ name: 'TunnelError', code: 'protocol-violation' })
      await tunnel.close()
    },
  )

  test.each(['end', 'reset'] as const)('tells why it is closed when the server leaves by %s', async (how) => {
    await using server = await fakeServer()
    const { peer, tunnel } = await openAt(server)
    await peer.close(how)

    expect(await tunnel.closed).toMatchObject({ code: 'connection-lost' })
    await tunnel.close()
  })

  test('tells why it is closed when the server falls silent', async () => {
    await using server = await fakeServer()
    const { peer, tunnel } = await openAt(server, { heartbeatTimeout: 1_000 })

    expect(await tunnel.closed).toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining('1000 ms'),
    })
    expect(await peer.ended()).toBe('end')
    await tunnel.close()
  })

  test('tells why it is closed when the server closes it', async () => {
    await using server = await fakeServer()
    const { peer, tunnel } = await openAt(server)
    peer.send({ type: 'closed', tunnel: 1, code: 'limit-reached', message: 'your hour is over' })

    expect(await tunnel.closed).toMatchObject({ code: 'limit-reached', message: 'your hour is over' })
    await tunnel.close()
    await peer.ended()
  })

  test('passes over what the server says of tunnels that it never asked for', async () => {
    await using target = await echoTarget()
    await using server = await fakeServer()
    const { peer, tunnel } = await openAt(server, {}, target.address)
    peer.send(
      { type: 'forwarded', tunnel: 99, host: 'nowhere', port: 1 },
      {
        type: 'exchange',
        tunnel: 99,
        id: crypto.randomUUID(),
        ...came,
      },
      { type: 'closed', tunnel: 99, code: 'x', message: 'x' },
      { type: 'forwarded', tunnel: 1, host: 'elsewhere', port: 2 },
      {
        type: 'exchange',
        tunnel: 1,
        id,
        ...came,
      },
    )

    await using stream = await server.accept()
    expect(await stream.receive('exchange')).toEqual({ type: 'exchange', id })
    stream.send({ type: 'joined' }).write(Buffer.from('ping'))
    expect((await stream.read(4)).toString()).toBe('ping')
    expect(tunnel.url).toBe('http://127.0.0.1:4000')
    await peer.close()
    await tunnel.close()
  })

  test('outlives data streams that the server resets', async () => {
    await using target = await echoTarget()
    await using server = await fakeServer()
    const { peer, tunnel } = await openAt(server, {}, target.address)
    for (let i = 0; i < 10; i++) {
      const connected = pEvent<'connection', Connection>(tunnel, 'connection')
      peer.send({
        type: 'exchange',
        tunnel: 1,
        id: crypto.randomUUID(),
        ...came,
      })
      const stream = await server.accept()
      await stream.receive('exchange')
      stream.send({ type: 'joined' })
      const { closed } = await connected
      await stream.close('reset')
      expect((await closed).error?.code).toBe('connection-lost')
    }

    expect(tunnel.connections).toBe(0)
    await expect.poll(() => target.sockets.size).toBe(0)
    await peer.close()
    await tunnel.close()
  })

  test.each([
    ['refuses it', { type: 'refuse', code: 'exchange-expired', message: 'too late' }, 'exchange-expired'],
    ['answers with another message', { type: 'heartbeat' }, 'protocol-violation'],
  ])('turns a visitor away when the server, asked for its data stream, %s', async (_, answer, code) => {
    const got: Promise<Buffer | Error>[] = []
    await using target = await tcpTarget((socket) => got.push(readAll(socket).catch((error: Error) => error)))
    await using server = await fakeServer()
    const { peer, tunnel } = await openAt(server, {}, target.address)
    const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')
    peer.send({
      type: 'exchange',
      tunnel: 1,
      id,
      ...came,
    })
    const stream = await server.accept()
    stream.send(answer)

    expect(await rejected).toMatchObject({ id, error: { code } })
    // The target was reset, and has seen nothing of the answer.
    expect(await got[0]).toBeInstanceOf(Error)
    await peer.close()
    await tunnel.close()
  })

  test('rejects visitors where the server takes no data streams', async () => {
    await using target = await echoTarget()
    await using server = await fakeServer()
    const { peer, tunnel } = await openAt(server, {}, target.address)
    const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')
    server.refuse()
    peer.send({
      type: 'exchange',
      tunnel: 1,
      id,
      ...came,
    })

    expect(await peer.receive('reject')).toMatchObject({ tunnel: 1, id, code: 'server-unreachable' })
    expect(await rejected).toMatchObject({ id, error: { code: 'server-unreachable' } })
    await peer.close()
    await tunnel.close()
  })
})

/** A length, and bytes that need not be a message. */
function text(bytes: string | Buffer): Buffer {
  const body = Buffer.from(bytes as Buffer)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(body.length)
  return Buffer.concat([length, body])
}

/** The error that it rejects with. */
function failureOf(opening: Promise<unknown>): Promise<TunnelError> {
  return opening.then(
    () => {
      throw new Error('it opened')
    },
    (error) => error,
  )
}

/** A raw client with a tunnel under this number. */
async function tunnelByHand(server: Server, tunnel = 1) {
  const peer = await RawPeer.connect(server)
  await peer.logIn(server.secret)
  return { peer, ...(await peer.forward(tunnel)), [Symbol.asyncDispose]: () => peer.close() }
}

/** A client's tunnel at a fake server, and the server's end of its control connection. */
async function openAt(
  server: Awaited<ReturnType<typeof fakeServer>>,
  times: Wire = {},
  target: string | number = 3000,
) {
  const opening = openTunnel(target, { server, reconnect: false })
  const peer = await (await server.accept()).admit(undefined, times)
  await peer.receive('forward')
  peer.send({ type: 'forwarded', tunnel: 1, host: null, port: 4_000 })
  return { peer, tunnel: await opening }
}

/**
 * A server, and a client of it with a visitor in the middle of a transfer: block by block, there and back. Whatever
 * else happens at the server, the transfer goes on.
 */
async function bystanderAt(options: ServerOptions) {
  // What a client leaves behind that is lost is the subject of reconnect.test.ts.
  const server = await createServer({ resumeTimeout: 0, ...options })
  const target = await tcpTarget((socket) => {
    // It takes its time, so that the transfer leaves some of the machine to what is tested.
    socket.on('data', (chunk) => setTimeout(() => socket.write(chunk), 2))
    socket.on('end', () => setTimeout(() => socket.end(), 2))
  })
  const tunnel = await openTunnel(target.port, { server })
  const joined = pEvent<'connection', Connection>(tunnel, 'connection')
  const visitor = await RawPeer.connect(tunnel)
  let blocks = 0
  let going = true
  const transfer = transferBlocks()
  transfer.catch(() => {})
  await goesOn()

  async function transferBlocks() {
    while (going) {
      const block = randomBytes(4_096)
      expect((await visitor.write(block).read(block.length)).equals(block)).toBe(true)
      blocks++
    }
  }

  /** Resolves when three more blocks are through. */
  async function goesOn() {
    const before = blocks
    while (blocks < before + 3) await Promise.race([once(visitor.socket, 'data'), transfer])
  }

  return {
    server,
    goesOn,
    /** Resolves when the server has no tunnel but this one. */
    async alone() {
      await expect
        .poll(() => server.tunnels.map(({ port }) => port), { timeout: 20_000, interval: 5 })
        .toEqual([tunnel.port])
    },
    /** The transfer goes on and ends as it should, and the next visitor gets through. */
    async undisturbed() {
      await goesOn()
      going = false
      await transfer
      expect(await visitor.end().ended()).toBe('end')
      const bytes = blocks * 4_096
      expect(await (await joined).closed).toEqual({
        bytesIn: bytes,
        bytesOut: bytes,
        duration: expect.any(Number),
      })
      expect((await ask(tunnel, 'and the next')).toString()).toBe('and the next')
      expect(await Promise.race([tunnel.closed, 'open'])).toBe('open')
    },
    async [Symbol.asyncDispose]() {
      going = false
      await visitor.close()
      await tunnel.close()
      await server.close()
      await target[Symbol.asyncDispose]()
    },
  }
}
