import { randomBytes } from 'node:crypto'
import dgram from 'node:dgram'
import { once } from 'node:events'
import { pEvent } from 'p-event'
import {
  type Connection,
  createServer,
  type Drop,
  forward,
  openTunnel,
  type Rejection,
  type Tunnel,
} from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { fakeServer, RawPeer } from './helpers/raw-peer.js'
import { echoTarget } from './helpers/targets.js'
import {
  framed,
  hasIPv6,
  openAtFake,
  readDatagram,
  type UdpClient,
  type UdpVisitor,
  udpClient,
  udpEchoTarget,
  udpPortOfNobody,
  udpTarget,
  udpVisitor,
} from './helpers/udp.js'
import { ask } from './helpers/visitor.js'

/** For what is looked at again and again, in milliseconds. */
const soon = { timeout: 30_000, interval: 20 }

describe('a UDP tunnel', () => {
  test.for([
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '::1'],
    ['127.0.0.1', '::1'],
    ['::1', '127.0.0.1'],
  ] as const)(
    'from %s to %s carries datagrams of every size whole, both ways',
    async ([public_, host], { skip }) => {
      skip(!(await hasIPv6()), 'this machine has no IPv6 loopback')
      const seen: Buffer[] = []
      await using target = await udpTarget(
        (datagram, reply) => {
          seen.push(datagram)
          reply(Buffer.from(datagram).reverse())
        },
        { host },
      )
      await using server = await createServer({ host: public_ })
      await using tunnel = await openTunnel(target.url, { server })
      await using visitor = await udpVisitor(tunnel)

      for (const size of [0, 1, 1_472, 1_500, 9_000, 65_507, 0]) {
        const datagram = randomBytes(size)
        const reply = await visitor.ask(datagram)
        expect(seen.pop()?.equals(datagram)).toBe(true)
        expect(reply.equals(Buffer.from(datagram).reverse())).toBe(true)
      }
      expect(visitor.replies).toEqual([])
      expect(target.count).toBe(7)
    },
  )

  test('carries the largest datagram of IPv6', async ({ skip }) => {
    skip(!(await hasIPv6()), 'this machine has no IPv6 loopback')
    await using target = await udpEchoTarget({ host: '::1' })
    await using server = await createServer({ host: '::1' })
    await using tunnel = await openTunnel(target.url, { server })
    await using visitor = await udpVisitor(tunnel)
    const datagram = randomBytes(65_527)

    expect((await visitor.ask(datagram)).equals(datagram)).toBe(true)
  })

  test('counts a datagram as dropped that its visitor has no way for', async ({ skip }) => {
    skip(!(await hasIPv6()), 'this machine has no IPv6 loopback')
    // Over IPv4 there is no room for it.
    await using target = await udpTarget(
      (datagram, reply) => reply(`${datagram}` === 'large' ? Buffer.alloc(65_527) : datagram),
      {
        host: '::1',
      },
    )
    await using server = await createServer()
    await using tunnel = await openTunnel(target.url, { server })
    const dropped = pEvent<'drop', Drop>(tunnel, 'drop')
    await using visitor = await udpVisitor(tunnel)
    await visitor.send('large')

    expect(await dropped).toEqual({ count: 1, reason: expect.stringContaining('EMSGSIZE') })
    expect(`${await visitor.ask('small')}`).toBe('small')
    expect([tunnel.stats.drops, server.stats.drops]).toEqual([1, 1])
  })

  test('never merges or splits datagrams', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url)

    const visitOnce = async (name: number) => {
      await using visitor = await udpVisitor(tunnel)
      for (let batch = 0; batch < 40; batch++) {
        // As many at a time as any kernel has room for.
        const sent = Array.from({ length: 8 }, (_, i) => {
          const head = Buffer.from([name, batch, i])
          return Buffer.concat([head, randomBytes(Math.floor(Math.random() ** 3 * 8_000))])
        })
        await Promise.all(sent.map((datagram) => visitor.send(datagram)))
        const got: Buffer[] = []
        while (got.length < sent.length) got.push(await visitor.reply())
        expect(got.map(inHex).sort()).toEqual(sent.map(inHex).sort())
      }
      expect(visitor.replies).toEqual([])
    }
    await Promise.all([1, 2, 3].map(visitOnce))

    expect(target.count).toBe(960)
  })

  test('has the protocol and the scheme of its target', async () => {
    await using server = await createServer()
    await using tunnel = await openTunnel('udp://localhost:53', { server })

    expect(tunnel.protocol).toBe('udp')
    expect(tunnel.url).toBe(`udp://127.0.0.1:${tunnel.port}`)
    expect(tunnel.target).toBe('localhost:53')
    expect(server.tunnels).toMatchObject([{ protocol: 'udp', port: tunnel.port }])
  })

  test('may have the port number of a TCP tunnel', async () => {
    await using udp = await udpEchoTarget()
    await using tcp = await echoTarget()
    await using server = await createServer()
    await using tcpTunnel = await openTunnel(tcp.port, { server })
    await using udpTunnel = await openTunnel(udp.url, { server, port: tcpTunnel.port })
    await using visitor = await udpVisitor(udpTunnel)

    expect(udpTunnel.port).toBe(tcpTunnel.port)
    expect(`${await visitor.ask('datagram')}`).toBe('datagram')
    expect(`${await ask(tcpTunnel, 'stream')}`).toBe('stream')
  })

  test('is refused a port that another has', async () => {
    await using server = await createServer()
    await using tunnel = await openTunnel('udp://localhost:53', { server })

    await expect(openTunnel('udp://localhost:54', { server, port: tunnel.port })).rejects.toMatchObject({
      code: 'port-taken',
    })
  })

  test.for(['127.0.0.1', '::1'])(
    'to localhost reaches a target that listens on %s alone',
    async (host, { skip }) => {
      skip(!(await hasIPv6()), 'this machine has no IPv6 loopback')
      await using target = await udpEchoTarget({ host })
      await using tunnel = await openTunnel(`udp://localhost:${target.port}`)
      await using visitor = await udpVisitor(tunnel)

      for (const text of ['first', 'second', 'third']) expect(`${await visitor.ask(text)}`).toBe(text)
      await using other = await udpVisitor(tunnel)
      expect(`${await other.ask('other')}`).toBe('other')
      expect(tunnel.stats.drops).toBe(0)
    },
  )

  test('to localhost loses nothing of a burst while it finds out where the target listens', async ({
    skip,
  }) => {
    skip(!(await hasIPv6()), 'this machine has no IPv6 loopback')
    const got: string[] = []
    await using target = await udpTarget((datagram) => got.push(`${datagram}`), { host: '::1' })
    await using server = await createServer()
    await using client = await udpClient(server)
    await using tunnel = await openTunnel(`udp://localhost:${target.port}`, { server })
    await using visitor = await udpVisitor(tunnel)
    const burst = Array.from({ length: 21 }, (_, i) => `datagram ${i}`)
    await Promise.all(burst.map((datagram) => visitor.send(datagram)))
    await client.caughtUp()

    await expect.poll(() => new Set(got).size, soon).toBe(burst.length)
    expect(got.sort()).toEqual(burst.sort())
    expect(tunnel.stats.drops).toBe(0)
  })

  test('is what forward opens, with no server', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await forward('udp:127.0.0.1:0', target.url, { maxFlows: 2, flowTimeout: 500 })
    const connections = collect(tunnel)
    await using first = await udpVisitor(tunnel)
    await using second = await udpVisitor(tunnel)
    await using third = await udpVisitor(tunnel)

    expect(tunnel).toMatchObject({ protocol: 'udp', url: `udp://127.0.0.1:${tunnel.port}` })
    const datagram = randomBytes(65_507)
    expect((await first.ask(datagram)).equals(datagram)).toBe(true)
    expect(`${await second.ask('')}`).toBe('')
    expect(`${await third.ask('third')}`).toBe('third')
    expect((await connections[0]?.closed)?.error?.code).toBe('limit-reached')
    expect(await connections[2]?.closed).toEqual({ bytesIn: 5, bytesOut: 5, duration: expect.any(Number) })
    expect(`${await third.ask('again')}`).toBe('again')
    const { port } = tunnel
    await tunnel.close()
    expect(tunnel.connections).toBe(0)
    await using again = await forward(`udp:127.0.0.1:${port}`, target.url)
    expect(again.port).toBe(port)
  })
})

describe('a flow', () => {
  test('is a visitor with a socket of its own at the target', async () => {
    await using target = await udpEchoTarget()
    await using server = await createServer()
    await using tunnel = await openTunnel(target.url, { server })
    const atServer = pEvent<'connection', Connection>(server, 'connection')
    const atClient = pEvent<'connection', Connection>(tunnel, 'connection')
    await using first = await udpVisitor(tunnel)
    await using second = await udpVisitor(tunnel)

    for (const visitor of [first, second, first, second]) await visitor.ask('hello')

    expect(target.senders).toHaveLength(2)
    expect(tunnel.connections).toBe(2)
    expect((await atServer).visitor).toEqual({ address: '127.0.0.1', port: first.port })
    expect(await atClient).toMatchObject({
      id: (await atServer).id,
      visitor: (await atServer).visitor,
      bytesIn: 10,
      bytesOut: 10,
    })
  })

  test('takes nothing from strangers at the socket that leads to the target', async () => {
    const senders: { host: string; port: number }[] = []
    await using target = await udpTarget((datagram, reply, from) => {
      senders.push(from)
      if (`${datagram}` !== 'wait') reply(datagram)
    })
    await using tunnel = await openTunnel(target.url)
    await using visitor = await udpVisitor(tunnel)
    await visitor.send('wait')
    await expect.poll(() => senders.length, soon).toBe(1)
    const [inside = { host: '', port: 0 }] = senders

    // From another port, and from the target's own port on another address, before and after it has answered.
    await using stranger = await udpVisitor(inside)
    const elsewhere = dgram.createSocket('udp4').bind(target.port, '127.0.0.2')
    const isThere = await Promise.race([
      once(elsewhere, 'listening').then(() => true),
      new Promise((resolve) => elsewhere.once('error', () => resolve(false))),
    ])
    const spoof = async () => {
      await stranger.send('from a stranger')
      if (isThere) elsewhere.send('from elsewhere', inside.port, inside.host)
    }
    await spoof()
    expect(`${await visitor.ask('first')}`).toBe('first')
    await spoof()
    expect(`${await visitor.ask('second')}`).toBe('second')
    elsewhere.close()

    expect(visitor.replies).toEqual([])
    expect(tunnel.stats.bytesOut).toBe('firstsecond'.length)
  })

  test('gets its own replies alone, 500 at once', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url)
    await using visitors = await group(500, () => udpVisitor(tunnel))
    const wrong: string[] = []

    for (const round of ['first', 'second', 'third']) {
      // No more at a time than the least of kernels has room for.
      for (let at = 0; at < 500; at += 50) {
        const some = visitors.slice(at, at + 50)
        const replies = await Promise.all(some.map((visitor, i) => visitor.ask(`${round} ${at + i}`)))
        replies.forEach((reply, i) => {
          if (`${reply}` !== `${round} ${at + i}`) wrong.push(`${reply} for ${round} ${at + i}`)
        })
      }
    }

    expect(wrong).toEqual([])
    expect(visitors.filter(({ replies }) => replies.length > 0)).toEqual([])
    expect(target.senders).toHaveLength(500)
    expect(tunnel.connections).toBe(500)
  })

  test.each(['client', 'server'])('ends when it has been silent as long as the %s says', async (whose) => {
    await using target = await udpEchoTarget()
    await using server = await createServer({ flowTimeout: whose === 'server' ? 300 : 60_000 })
    await using tunnel = await openTunnel(target.url, {
      server,
      ...(whose === 'client' && { flowTimeout: 300 }),
    })
    const atServer = pEvent<'connection', Connection>(server, 'connection')
    const atClient = pEvent<'connection', Connection>(tunnel, 'connection')
    await using visitor = await udpVisitor(tunnel)
    const start = performance.now()
    await visitor.ask('hello')

    const end = { bytesIn: 5, bytesOut: 5, duration: expect.any(Number) }
    expect(await (await atClient).closed).toEqual(end)
    expect(await (await atServer).closed).toEqual(end)
    expect(performance.now() - start).toBeGreaterThan(290)
    await vi.waitFor(() => expect([tunnel.connections, server.connections]).toEqual([0, 0]))
    expect(tunnel.stats).toEqual({ connections: 1, rejections: 0, bytesIn: 5, bytesOut: 5, drops: 0 })
  })

  test('begins anew with the next datagram after its end', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { flowTimeout: 100 })
    const connections = collect(tunnel)
    await using visitor = await udpVisitor(tunnel)
    await visitor.ask('one')
    await connections[0]?.closed

    expect(`${await visitor.ask('two')}`).toBe('two')
    expect(connections).toHaveLength(2)
    expect(connections[1]?.id).not.toBe(connections[0]?.id)
    expect(connections[1]?.visitor).toEqual(connections[0]?.visitor)
    expect(target.senders).toHaveLength(2)
  })

  test.each(['in', 'out'])('lives on while datagrams come %s', async (direction) => {
    await using target = await udpTarget(() => {})
    await using tunnel = await openTunnel(target.url, { flowTimeout: 1_000 })
    const connections = collect(tunnel)
    await using visitor = await udpVisitor(tunnel)
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      await visitor.send('hello')
      await until(() => target.count === 1)
      const [{ host, port } = { host: '', port: 0 }] = target.senders
      for (let i = 0; i < 5; i++) {
        vi.advanceTimersByTime(900)
        if (direction === 'in') {
          await visitor.send('hello')
          await until(() => target.count === 2 + i)
        } else {
          target.socket.send('news', port, host)
          await until(() => visitor.replies.length === 1 + i)
        }
      }
      expect(tunnel.connections).toBe(1)
      vi.advanceTimersByTime(1_000)
      expect((await connections[0]?.closed)?.error).toBeUndefined()
    } finally {
      vi.useRealTimers()
    }
    expect(connections).toHaveLength(1)
    expect(target.senders).toHaveLength(1)
  })

  test.each(['tunnel', 'server'])(
    'makes room for another where the %s has no more, the longest silent first',
    async (whose) => {
      await using target = await udpEchoTarget()
      await using server = await createServer({ limits: { flows: whose === 'server' ? 3 : 10 } })
      await using tunnel = await openTunnel(target.url, {
        server,
        ...(whose === 'tunnel' && { maxFlows: 3 }),
      })
      const connections: Connection[] = []
      server.on('connection', (connection) => connections.push(connection))
      const of = ({ port }: UdpVisitor) => connections.filter(({ visitor }) => visitor.port === port)
      await using a = await udpVisitor(tunnel)
      await using b = await udpVisitor(tunnel)
      await using c = await udpVisitor(tunnel)
      await using d = await udpVisitor(tunnel)
      for (const visitor of [a, b, c, a]) await visitor.ask('hello')

      expect(`${await d.ask('hello')}`).toBe('hello')

      const end = await of(b)[0]?.closed
      expect(end).toMatchObject({ bytesIn: 5, bytesOut: 5, error: { code: 'limit-reached' } })
      // Who made room may come again, at the cost of the next.
      for (const visitor of [b, a, d]) expect(`${await visitor.ask('again')}`).toBe('again')
      expect((await of(c)[0]?.closed)?.error?.code).toBe('limit-reached')
      expect([a, b, c, d].map((visitor) => of(visitor).length)).toEqual([1, 2, 1, 1])
      expect(tunnel.connections).toBe(3)
    },
  )

  test('is told of to a client no more often than there is room, however many addresses are forged', async () => {
    await using server = await createServer({ limits: { flows: 5 } })
    await using client = await udpClient(server)
    for (let i = 0; i < 300; i++) {
      await using visitor = await udpVisitor(client)
      await visitor.send('forged')
    }
    await vi.waitFor(
      () => expect(server.stats.drops + client.messages.length).toBeGreaterThanOrEqual(295),
      soon,
    )

    expect(client.messages.filter(({ type }) => type === 'exchange')).toHaveLength(5)
  })

  test('keeps its place while its exchange is being made, and who comes then is dropped', async () => {
    await using server = await createServer({ limits: { flows: 1 } })
    const dropped = pEvent<'drop', Drop>(server, 'drop')
    await using client = await udpClient(server)
    await using first = await udpVisitor(client)
    await using second = await udpVisitor(client)
    await first.send('first')
    const id = await client.exchange(first.port)
    await second.send('second')

    expect(await dropped).toEqual({ count: 1, reason: '1 visitors are being joined already' })
    await using stream = await RawPeer.dataStream(server, id)
    expect(`${await readDatagram(stream)}`).toBe('first')
  })

  test('cannot be one of more than the server allows', async () => {
    await using server = await createServer({ limits: { flows: 3 } })

    const opening = openTunnel('udp://localhost:53', { server, maxFlows: 4 })
    await expect(opening).rejects.toMatchObject({ name: 'TunnelError', code: 'limit-reached' })
    await expect(opening).rejects.toThrow('limits.flows')
    await using tunnel = await openTunnel('udp://localhost:53', { server, maxFlows: 3 })
    expect(tunnel.protocol).toBe('udp')
  })
})

describe('datagrams', () => {
  test('wait while the exchange is being made', async () => {
    await using server = await createServer()
    await using client = await udpClient(server)
    await using visitor = await udpVisitor(client)
    const sent = [...Array(20).keys()].map((i) => Buffer.alloc(i * 100, i))
    for (const datagram of sent) await visitor.send(datagram)
    await client.caughtUp()
    const stream = await client.join(visitor.port)
    await visitor.send('the last')

    for (const datagram of sent) expect((await readDatagram(stream)).equals(datagram)).toBe(true)
    expect(`${await readDatagram(stream)}`).toBe('the last')
    expect(server.stats.drops).toBe(0)
  })

  test.each([
    ['too many', 1_500, 4, 1_024],
    ['too large', 40, 20_000, 13],
  ])('that are %s to wait are dropped and counted', async (_, count, size, least) => {
    await using server = await createServer()
    const drops: Drop[] = []
    server.on('drop', (drop) => drops.push(drop))
    await using client = await udpClient(server)
    await using visitor = await udpVisitor(client)
    for (let i = 0; i < count; i++) {
      const datagram = Buffer.alloc(size)
      datagram.writeUInt32BE(i)
      await visitor.send(datagram)
      if (i % 20 === 19) await client.caughtUp()
    }
    const stream = await client.join(visitor.port)
    // Every datagram is either there or was counted.
    let kept = 0
    await expect
      .poll(() => {
        kept = stream.unread.length / (size + 2)
        return kept + server.stats.drops
      }, soon)
      .toBe(count)

    expect(kept).toBeGreaterThanOrEqual(least)
    // One more is on its way to the reader.
    expect(kept).toBeLessThanOrEqual(least + 1)
    for (let i = 0; i < kept; i++) expect((await readDatagram(stream)).readUInt32BE()).toBe(i)
    expect(drops.length).toBeGreaterThanOrEqual(1)
    expect(drops[0]).toEqual({ count: 1, reason: expect.any(String) })
    await expect.poll(client.dropped, soon).toBe(count - kept)
    // There is room again.
    await visitor.send('there')
    expect(`${await readDatagram(stream)}`).toBe('there')
  })

  test('are dropped, counted and told of where a data stream is stalled, and no other waits', async () => {
    await using server = await createServer()
    const drops: (Drop & { at: number })[] = []
    server.on('drop', (drop, tunnel) => {
      expect(tunnel.port).toBe(client.port)
      drops.push({ ...drop, at: performance.now() })
    })
    await using client = await udpClient(server)
    await using visitor = await udpVisitor(client)
    await using other = await udpVisitor(client)
    await other.send('hello')
    const flowing = await client.join(other.port)
    await readDatagram(flowing)
    const stalled = await stall(client, visitor)

    // Until it has been told of three times.
    while (drops.length < 3) {
      for (let i = 0; i < 10; i++) await visitor.send(Buffer.alloc(60_000))
      await other.send('still there?')
      expect(`${await readDatagram(flowing)}`).toBe('still there?')
      flowing.write(framed('still here'))
      expect(`${await other.reply()}`).toBe('still here')
    }

    // The first at once, and then once a second.
    expect(drops[0]?.count).toBe(1)
    for (const [i, { at }] of drops.entries()) {
      if (i > 0) expect(at - (drops[i - 1]?.at ?? 0)).toBeGreaterThan(950)
    }
    expect(new Set(drops.map(({ reason }) => reason)).size).toBe(1)
    await expect.poll(client.dropped, soon).toBe(server.stats.drops)
    expect(server.stats.drops).toBeGreaterThan(3)
    // What is on the data stream arrives, whole.
    stalled.socket.resume()
    expect(await readDatagram(stalled)).toHaveLength(5)
    expect((await readDatagram(stalled)).equals(Buffer.alloc(60_000))).toBe(true)
  })

  test('take a bounded memory where a data stream is stalled', async () => {
    await using server = await createServer()
    await using client = await udpClient(server)
    await using visitor = await udpVisitor(client)
    await stall(client, visitor)
    const datagram = Buffer.alloc(60_000)
    const flood = async (count: number) => {
      for (let i = 0; i < count; i++) {
        await visitor.send(datagram)
        if (i % 10 === 9) await new Promise((resolve) => setImmediate(resolve))
      }
    }
    while (server.stats.drops === 0) await flood(50)
    const before = await memory()

    await flood(1_000)
    await client.caughtUp()

    await expect.poll(async () => (await memory()) - before, soon).toBeLessThan(4_000_000)
  })

  test('hold no flow open where a data stream is stalled', async () => {
    await using server = await createServer({ flowTimeout: 300 })
    await using client = await udpClient(server)
    await using visitor = await udpVisitor(client)
    await stall(client, visitor)
    while (server.stats.drops === 0) {
      for (let i = 0; i < 10; i++) await visitor.send(Buffer.alloc(60_000))
      await new Promise((resolve) => setImmediate(resolve))
    }

    await expect.poll(() => server.connections, soon).toBe(0)
  })

  test('of a target that floods its visitor are dropped and counted where the server is stalled', async () => {
    let isDone = false
    await using target = await udpTarget((_, reply) => {
      const more = () => {
        for (let i = 0; i < 10; i++) reply(Buffer.alloc(60_000))
        if (!isDone) setImmediate(more)
      }
      more()
    })
    await using fake = await fakeServer()
    const { tunnel, control, visit } = await openAtFake(fake, target.url)
    const drops: Drop[] = []
    tunnel.on('drop', (drop) => drops.push(drop))
    const stream = await visit()
    stream.socket.pause()
    stream.write(framed('go'))
    await expect.poll(() => drops.length, soon).toBe(2)
    isDone = true

    expect(drops[0]).toEqual({ count: 1, reason: expect.any(String) })
    expect(tunnel.stats.drops).toBeGreaterThan(1)
    await control.close()
    await tunnel.close()
  })

  test('that the server says to have dropped are counted at the client', async () => {
    await using fake = await fakeServer()
    const { tunnel, control } = await openAtFake(fake, 'udp://localhost:53')
    const drops: Drop[] = []
    tunnel.on('drop', (drop) => drops.push(drop))
    for (const count of [7, 20, 3]) {
      control.send({ type: 'dropped', tunnel: 1, count, reason: `no\u001broom for ${count}` })
    }
    // Of another tunnel.
    control.send({ type: 'dropped', tunnel: 2, count: 100, reason: 'no room' })

    await expect.poll(() => drops.length, soon).toBe(2)
    expect(drops).toEqual([
      { count: 7, reason: 'no room for 7' },
      { count: 23, reason: 'no room for 3' },
    ])
    expect(tunnel.stats.drops).toBe(30)
    await control.close()
    await tunnel.close()
  })

  test('that a speed limit leaves no room for are dropped and counted', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { limit: '10kb' })
    const dropped = pEvent<'drop', Drop>(tunnel, 'drop')
    await using visitor = await udpVisitor(tunnel)
    let isDropped = false
    dropped.then(() => {
      isDropped = true
    })
    while (!isDropped) {
      await visitor.send(Buffer.alloc(60_000))
      await new Promise((resolve) => setImmediate(resolve))
    }

    expect(await dropped).toMatchObject({ count: 1 })
    expect(tunnel.stats.drops).toBeGreaterThanOrEqual(1)
  })

  test.each(['127.0.0.1', 'localhost'])(
    'to a target of %s that nobody is at are counted, and arrive once it is there',
    async (host) => {
      const port = await udpPortOfNobody()
      await using server = await createServer()
      await using tunnel = await openTunnel(`udp://${host}:${port}`, { server })
      const drops: Drop[] = []
      tunnel.on('drop', (drop) => drops.push(drop))
      await using visitor = await udpVisitor(tunnel)
      // Some systems tell of a datagram only when the next is sent.
      await expect
        .poll(async () => {
          await visitor.send('anybody?')
          return drops.length
        }, soon)
        .toBeGreaterThan(0)
      expect(drops[0]?.reason).toContain(`${host}:${port}`)
      expect(tunnel.stats.drops).toBeGreaterThanOrEqual(1)
      expect(tunnel.connections).toBe(1)

      await using target = await udpEchoTarget({ port })
      await expect
        .poll(async () => {
          await visitor.send('up')
          // One of the others may have been on its way still.
          return visitor.replies.map(String)
        }, soon)
        .toContain('up')
      expect(target.senders).toHaveLength(1)
      expect(tunnel.stats).toMatchObject({ connections: 1, rejections: 0 })
    },
  )

  test.for([
    ['127.0.0.1', '127.0.0.1'],
    ['localhost', '127.0.0.1'],
    ['localhost', '::1'],
  ] as const)('to a target of %s that has left %s are all counted', async ([name, host], { skip }) => {
    skip(!(await hasIPv6()), 'this machine has no IPv6 loopback')
    await using target = await udpEchoTarget({ host })
    await using tunnel = await openTunnel(`udp://${name}:${target.port}`)
    await using visitor = await udpVisitor(tunnel)
    await visitor.ask('hello')
    target.socket.close()
    await once(target.socket, 'close')

    // One by one, so that the system tells of each.
    for (let i = 1; i <= 6; i++) {
      await visitor.send('anybody?')
      await expect.poll(() => tunnel.stats.bytesIn, soon).toBe(5 + 8 * i)
    }

    await expect.poll(() => tunnel.stats.drops, { timeout: 5_000 }).toBe(6)
  })
})

describe('a UDP tunnel closes', () => {
  test('and its port is free at once, and its flows have ended', async () => {
    await using target = await udpEchoTarget()
    await using server = await createServer()
    const tunnel = await openTunnel(target.url, { server })
    const connections = collect(tunnel)
    await using visitor = await udpVisitor(tunnel)
    await visitor.ask('hello')
    await tunnel.close()

    expect(await connections[0]?.closed).toEqual({ bytesIn: 5, bytesOut: 5, duration: expect.any(Number) })
    expect(tunnel.connections).toBe(0)
    expect(await tunnel.closed).toBeUndefined()
    await expect.poll(() => server.connections, soon).toBe(0)
    await using again = await openTunnel(target.url, { server, port: tunnel.port })
    expect(again.port).toBe(tunnel.port)
    expect(`${await visitor.ask('again')}`).toBe('again')
    expect(target.senders).toHaveLength(2)
  })

  test('with its server, whatever its flows do', async () => {
    const replying = new Set<NodeJS.Timeout>()
    await using target = await udpTarget((datagram, reply) => {
      replying.add(setInterval(() => reply(datagram), 1))
    })
    const server = await createServer()
    const tunnel = await openTunnel(target.url, { server })
    const connections = collect(tunnel)
    await using client = await udpClient(server)
    await using stalled = await udpVisitor(client)
    await stall(client, stalled)
    await using waiting = await udpVisitor(client)
    await waiting.send('hello')
    await client.exchange(waiting.port)
    await using visitors = await group(10, () => udpVisitor(tunnel))
    await Promise.all(visitors.map((visitor) => visitor.ask('hello')))

    await server.close()

    expect(server.connections).toBe(0)
    expect((await tunnel.closed)?.code).toBe('server-closed')
    await Promise.all(connections.map(({ closed }) => closed))
    await tunnel.close()
    for (const timer of replying) clearInterval(timer)
  })

  test('when its client is lost, with its flows', async () => {
    await using server = await createServer({ resumeTimeout: 0 })
    await using client = await udpClient(server)
    await using visitor = await udpVisitor(client)
    await using waiting = await udpVisitor(client)
    const connected = pEvent<'connection', Connection>(server, 'connection')
    await visitor.send('hello')
    const stream = await client.join(visitor.port)
    const { closed } = await connected
    const rejected = pEvent<'reject', Rejection>(server, 'reject')
    await waiting.send('hello')
    await client.exchange(waiting.port)
    const [tunnel] = server.tunnels

    await client.control.close('reset')

    expect((await tunnel?.closed)?.code).toBe('connection-lost')
    expect((await rejected).error.code).toBe('connection-lost')
    // A FIN behind the last datagram.
    expect(`${await readDatagram(stream)}`).toBe('hello')
    expect(await stream.ended()).toBe('end')
    stream.end()
    expect((await closed).error).toBeUndefined()
    // The port is free.
    const socket = dgram.createSocket('udp4').bind(client.port, client.host)
    await once(socket, 'listening')
    socket.close()
  })

  test('without leaving anything of 2,000 flows one after another', async () => {
    await using target = await udpEchoTarget()
    await using server = await createServer()
    await using tunnel = await openTunnel(target.url, { server, maxFlows: 20, flowTimeout: 3_000 })
    const visitInTurn = async (count: number) => {
      for (let i = 0; i < count; i++) {
        await using visitor = await udpVisitor(tunnel)
        expect(`${await visitor.ask(`visitor ${i}`)}`).toBe(`visitor ${i}`)
      }
      await expect.poll(() => [tunnel.connections, server.connections], soon).toEqual([0, 0])
    }
    // What is compiled, cached and grown only once does not count.
    await visitInTurn(500)
    const handles = openHandles()
    const before = await memory()

    await visitInTurn(2_000)

    await expect.poll(openHandles, soon).toEqual(handles)
    // A forgotten flow takes thousands of bytes.
    await expect.poll(async () => (await memory()) - before, soon).toBeLessThan(1_000_000)
    // Now and then the system gives out a port again whose flow is still there.
    expect(tunnel.stats.connections).toBeGreaterThan(2_400)
    expect(tunnel.stats).toMatchObject({ rejections: 0, drops: 0 })
  })
})

/** The connections of a tunnel as they are made. */
function collect(tunnel: Tunnel): Connection[] {
  const connections: Connection[] = []
  tunnel.on('connection', (connection) => connections.push(connection))
  return connections
}

/** A flow of this visitor whose data stream nobody reads. */
async function stall(client: UdpClient, visitor: UdpVisitor): Promise<RawPeer> {
  await visitor.send('hello')
  const stream = await client.join(visitor.port)
  stream.socket.pause()
  return stream
}

/** Waits for what the event loop brings, also where timers stand still. */
async function until(isSo: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!isSo()) {
    if (performance.now() > deadline) throw new Error('waited in vain')
    await new Promise((resolve) => setImmediate(resolve))
  }
}

function inHex(bytes: Buffer): string {
  return bytes.toString('hex')
}

/** What keeps the process alive, by kind. */
function openHandles(): string[] {
  return process
    .getActiveResourcesInfo()
    .filter((kind) => /UDP|TCP|Socket/i.test(kind) && !/Req/.test(kind))
    .sort()
}

/** Bytes of heap and buffers that are in use. Some are let go by callbacks of the collection before, hence the turns. */
async function memory(): Promise<number> {
  for (let turn = 0; turn < 5; turn++) {
    global.gc?.()
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

/** Opens so many at once, and closes them all at the end of the scope. */
async function group<T extends AsyncDisposable>(count: number, open: () => Promise<T>) {
  const members = await Promise.all(Array.from({ length: count }, open))
  return Object.assign(members, {
    async [Symbol.asyncDispose]() {
      await Promise.all(members.map((member) => member[Symbol.asyncDispose]()))
    },
  })
}
