/** Lists of visitors' addresses: who is let in, at servers, tunnels and forward. */
import { once } from 'node:events'
import net from 'node:net'
import fc from 'fast-check'
import { pEvent } from 'p-event'
import { createServer, type Drop, forward, openTunnel, type Rejection, TunnelError } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { checkLists, isRange, visitorFilter } from '../src/visitor-filter.js'
import { fakeServer, RawPeer } from './helpers/raw-peer.js'
import { echoTarget, unixPath } from './helpers/targets.js'
import { udpEchoTarget, udpVisitor } from './helpers/udp.js'
import { ask, ending, visit } from './helpers/visitor.js'

describe('a list', () => {
  test.each<[string[] | undefined, string[] | undefined, string[], string[]]>([
    [undefined, undefined, ['192.0.2.1', '::1', 'unix', 'unknown'], []],
    [
      ['10.0.0.0/8'],
      undefined,
      ['10.0.0.0', '10.255.255.255', 'unix'],
      ['11.0.0.0', '9.255.255.255', '::1', 'unknown'],
    ],
    [undefined, ['10.0.0.0/8'], ['11.0.0.0', '::1', 'unix'], ['10.1.2.3', 'unknown']],
    [['10.0.0.0/8'], ['10.1.0.0/16'], ['10.2.0.1'], ['10.1.0.1', '192.0.2.1']],
    [['10.1.0.0/16'], ['10.0.0.0/8'], [], ['10.1.0.1', '10.2.0.1']],
    [['192.0.2.7'], undefined, ['192.0.2.7', '::ffff:192.0.2.7'], ['192.0.2.8']],
    [['192.0.2.0/31'], undefined, ['192.0.2.0', '192.0.2.1'], ['192.0.2.2']],
    [['0.0.0.0/0'], undefined, ['1.2.3.4', '255.255.255.255'], ['2001:db8::1']],
    [undefined, ['::/0'], ['1.2.3.4'], ['2001:db8::1', '::1']],
    [['2001:db8::/33'], undefined, ['2001:db8:7fff::1'], ['2001:db8:8000::1', '1.2.3.4']],
    [['2001:DB8:0:0::7'], undefined, ['2001:db8::7'], ['2001:db8::8']],
    [
      ['::ffff:10.0.0.0/104'],
      undefined,
      ['10.2.3.4', '::ffff:10.2.3.4', '::ffff:a02:304'],
      ['11.2.3.4', '::a02:304'],
    ],
    [['fe80::/10'], undefined, ['fe80::1%eth0', 'fe80::1'], ['fec0::1']],
    [[], undefined, ['unix'], ['1.2.3.4', '::1']],
    [undefined, [], ['1.2.3.4', '::1', 'unix'], []],
  ])('allow %j and deny %j let in %j and not %j', (allow, deny, allowed, denied) => {
    checkLists({ allow, deny })
    const mayVisit = visitorFilter({ allow, deny })
    expect(allowed.filter((address) => !mayVisit(address))).toEqual([])
    expect(denied.filter(mayVisit)).toEqual([])
  })

  test.skipIf(process.platform !== 'linux')(
    'of the server and one of the tunnel have both to let a visitor in',
    async () => {
      await using target = await echoTarget()
      await using server = await createServer({ deny: ['127.0.0.3'] })
      await using tunnel = await openTunnel(target.port, { server, allow: ['127.0.0.2/31'] })
      // Other addresses of this machine, which Linux has without being told.
      const heard = [1, 2, 3].map(async (last) => {
        const { host, port } = tunnel
        const socket = net.connect({ host, port, localAddress: `127.0.0.${last}` }).on('error', () => {})
        socket.end('hello')
        return pEvent(socket, ['data', 'close'], { rejectionEvents: [] }).then((data) => String(data))
      })

      expect(await Promise.all(heard)).toEqual(['true', 'hello', 'true'])
    },
  )

  test('has what it says, bit by bit, of any address and any length', () => {
    const address = fc.integer({ min: 0, max: 2 ** 32 - 1 })
    const text = (number: number) => [24, 16, 8, 0].map((by) => (number >>> by) & 255).join('.')
    fc.assert(
      fc.property(address, fc.integer({ min: 0, max: 32 }), address, (base, length, mask) => {
        // Close to the range, so that every bit counts now and then.
        const other = (base ^ (mask >>> Math.min(31, length))) >>> 0
        const isIn = length === 0 || base >>> (32 - length) === other >>> (32 - length)
        const mayVisit = visitorFilter({ allow: [`${text(base)}/${length}`] })
        expect(mayVisit(text(other))).toBe(isIn)
        expect(mayVisit(`::ffff:${text(other)}`)).toBe(isIn)
      }),
    )
  })

  test('takes what is an address or a range, and whatever else comes is told or false', () => {
    const entry = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 60 }),
      fc.ipV4Extended(),
      fc.ipV6(),
      fc
        .tuple(fc.oneof(fc.ipV4(), fc.ipV6()), fc.integer({ min: -1, max: 140 }))
        .map(([a, n]) => `${a}/${n}`),
      fc.jsonValue(),
    )
    fc.assert(
      fc.property(entry, fc.oneof(fc.ipV4(), fc.ipV6(), fc.string()), (one, visitor) => {
        if (!isRange(one)) {
          expect(() => checkLists({ deny: [one as unknown as string] })).toThrow(TunnelError)
          return
        }
        const [address = '', length] = one.split('/')
        expect(net.isIP(address)).toBeGreaterThan(0)
        expect(Number(length ?? 0)).toBeLessThanOrEqual(net.isIPv4(address) ? 32 : 128)
        expect([true, false]).toContain(visitorFilter({ deny: [one] })(visitor))
        if (length === undefined) expect(visitorFilter({ allow: [one] })(address)).toBe(true)
      }),
    )
  })

  test.each<[unknown, string]>([
    ['10.0.0.0/8', 'allow must be a list of addresses and ranges, not "10.0.0.0/8"'],
    [['10.0.0.0/33'], 'allow[0] must be an address or a range such as \'10.0.0.0/8\', not "10.0.0.0/33"'],
    [['::1', '::/129'], 'not "::/129"'],
    [['::ffff:10.0.0.0/95'], 'not "::ffff:10.0.0.0/95"'],
    [['localhost'], 'not "localhost"'],
    [['10.0.0'], 'not "10.0.0"'],
    [['10.0.0.0/'], 'not "10.0.0.0/"'],
    [['10.0.0.0/08x'], 'not "10.0.0.0/08x"'],
    [['fe80::1%eth0'], 'not "fe80::1%eth0"'],
    [[''], 'not ""'],
    [[7], 'not 7'],
    [Array(65).fill('::1'), 'allow must be a list of at most 64 addresses and ranges, not "65 entries"'],
  ])('of %j is refused with what is wrong', async (allow, message) => {
    const lists = { allow: allow as string[] }
    for (const refused of [
      openTunnel(3000, lists),
      forward(0, 3000, lists),
      createServer(lists),
      createServer({ deny: lists.allow }),
    ]) {
      await expect(refused).rejects.toMatchObject({
        code: 'invalid-option',
        message: expect.stringMatching(message.replace(/^allow/, '').replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')),
      })
    }
  })
})

const places: [string, (target: number, lists: { allow?: string[]; deny?: string[] }) => Promise<Place>][] = [
  [
    'of a tunnel',
    async (target, lists) => {
      const server = await createServer()
      return { tunnel: await openTunnel(target, { server, ...lists }), of: server }
    },
  ],
  [
    'of a server',
    async (target, lists) => {
      const server = await createServer(lists)
      return { tunnel: await openTunnel(target, { server }), of: server }
    },
  ],
  ['of forward', async (target, lists) => ({ tunnel: await forward(0, target, lists) })],
]

interface Place {
  tunnel: Awaited<ReturnType<typeof openTunnel>>
  of?: Awaited<ReturnType<typeof createServer>>
}

describe.each(places)('a list %s', (_, open) => {
  test('lets in who is allowed', async () => {
    await using target = await echoTarget()
    const { tunnel, of } = await open(target.port, { allow: ['127.0.0.0/8'], deny: ['127.0.0.9'] })

    expect(`${await ask(tunnel, 'hello')}`).toBe('hello')
    await tunnel.close()
    await of?.close()
  })

  test('resets who is not, tells of it, and reaches no target', async () => {
    await using target = await echoTarget()
    const { tunnel, of } = await open(target.port, { deny: ['127.0.0.1'] })
    const rejected = pEvent<'reject', Rejection>(of ?? tunnel, 'reject')
    const accepted = { count: 0 }
    target.server.on('connection', () => accepted.count++)

    expect(await visit(tunnel).then(ending, () => 'reset')).toBe('reset')
    expect(await rejected).toMatchObject({
      visitor: { address: '127.0.0.1' },
      error: { code: 'visitor-denied', message: '127.0.0.1 may not visit this tunnel: see allow and deny' },
    })
    expect((of ?? tunnel).stats.rejections).toBe(1)
    expect(accepted.count).toBe(0)
    await tunnel.close()
    await of?.close()
  })
})

describe('a client', () => {
  test('is not told of a visitor that is denied', async () => {
    await using server = await createServer({ deny: ['127.0.0.1'] })
    await using peer = await RawPeer.connect(server)
    await peer.logIn()
    const address = await peer.forward()
    const rejected = once(server, 'reject')
    await visit(address).then(ending, () => {})
    await rejected

    // The next message would be the exchange.
    peer.send({ type: 'close', tunnel: 1 })
    expect(await peer.receive('closed')).toMatchObject({ tunnel: 1 })
  })

  test('turns who is denied away by itself, where the server does not know of such lists', async () => {
    await using server = await fakeServer()
    const opening = openTunnel(3000, { server, deny: ['127.0.0.1'] })
    await using peer = await (await server.accept()).admit()
    expect(await peer.receive('forward')).toMatchObject({ deny: ['127.0.0.1'] })
    peer.send({ type: 'forwarded', tunnel: 1, host: null, port: 4_000 })
    const tunnel = await opening
    const id = crypto.randomUUID()
    const came = { address: '127.0.0.1', port: 1, localAddress: '127.0.0.1', localPort: 4_000 }
    peer.send({ type: 'exchange', tunnel: 1, id, ...came })

    expect(await peer.receive('reject')).toMatchObject({ id, code: 'visitor-denied' })
    peer.send({ type: 'refuse', code: 'server-closed', message: 'bye' }).end()
    await tunnel.close()
  })

  test.each([
    [{ allow: Array(65).fill('::1') }],
    [{ deny: ['10.0.0.0/33'] }],
    [{ deny: ['x'.repeat(60_000)] }],
    [{ allow: '::1' }],
    [{ allow: [null] }],
    [{ allow: null }],
  ])('is refused when it asks with %j', async (lists) => {
    await using server = await createServer()
    await using peer = await RawPeer.connect(server)
    await peer.logIn()
    peer.send({ type: 'forward', tunnel: 1, protocol: 'tcp', port: 0, ...lists })

    expect(await peer.refusal()).toMatchObject({ code: 'protocol-violation' })
  })
})

describe('datagrams', () => {
  test.each(['tunnel', 'forward'])('of who is denied are dropped and counted: %s', async (kind) => {
    await using target = await udpEchoTarget()
    const lists = { deny: ['127.0.0.0/8'] }
    const address = `udp://127.0.0.1:${target.port}`
    await using tunnel = await (kind === 'tunnel'
      ? openTunnel(address, lists)
      : forward('udp:127.0.0.1:0', address, lists))
    const dropped = pEvent<'drop', Drop>(tunnel, 'drop')
    await using visitor = await udpVisitor(tunnel)
    visitor.send('hello')

    expect(await dropped).toEqual({ count: 1, reason: 'their visitor is not allowed' })
    await expect.poll(() => tunnel.stats.drops).toBe(1)
    expect(tunnel.stats.connections).toBe(0)
  })
})

describe.skipIf(process.platform === 'win32')('a visitor of a unix socket', () => {
  test('has no address and always passes', async () => {
    await using target = await echoTarget()
    const path = unixPath()
    await using tunnel = await forward(`unix:${path}`, target.port, { allow: ['192.0.2.1'] })

    expect(`${await ask(tunnel, 'hello')}`).toBe('hello')
  })
})
