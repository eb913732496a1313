/** A network that loses, doubles, reorders and delays datagrams on purpose. */
import { type Conditions, forward, openTunnel, type Tunnel } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { deviation, timed } from './helpers/trips.js'
import { type UdpVisitor, udpEchoTarget, udpTarget, udpVisitor } from './helpers/udp.js'

/** How often a measurement that other work has disturbed is taken again. */
const retry = 5

const deadline = { timeout: 20_000 }

/** How many datagrams are sent. */
const COUNT = 1_000

describe('a share of datagrams', () => {
  test.each([
    ['in', { in: { dropRate: 0.2 }, seed: 1 }],
    ['out', { out: { dropRate: 0.2 }, seed: 2 }],
  ] as const)('is lost in direction %s, and counted', async (_direction, conditions) => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { conditions })
    await using visitor = await udpVisitor(tunnel)
    const replies = await exchange(tunnel, visitor, target)

    // Four times the deviation of a binomial distribution, in which so many are lost by chance.
    expect(Math.abs(COUNT - replies.length - 0.2 * COUNT)).toBeLessThan(4 * Math.sqrt(COUNT * 0.2 * 0.8))
    expect(tunnel.stats.drops).toBe(COUNT - replies.length)
    expect(replies).toEqual(inOrder(replies))
  })

  test('is doubled', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { conditions: { in: { duplicateRate: 0.3 }, seed: 1 } })
    await using visitor = await udpVisitor(tunnel)
    const replies = await exchange(tunnel, visitor, target)

    expect(new Set(replies).size).toBe(COUNT)
    expect(Math.abs(replies.length - 1.3 * COUNT)).toBeLessThan(4 * Math.sqrt(COUNT * 0.3 * 0.7))
  })

  test('is overtaken by the next', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { conditions: { out: { reorderRate: 0.25 }, seed: 1 } })
    await using visitor = await udpVisitor(tunnel)
    const replies = await exchange(tunnel, visitor, target)

    expect([...replies].sort((one, other) => one - other)).toEqual(
      Array.from({ length: COUNT }, (_, at) => at),
    )
    const overtaken = replies.filter((one, at) => replies.slice(0, at).some((before) => before > one))
    expect(Math.abs(overtaken.length - 0.25 * COUNT)).toBeLessThan(4 * Math.sqrt(COUNT * 0.25 * 0.75))
  })

  test('that the next one should overtake arrives where none comes', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { conditions: { reorderRate: 1 } })
    await using visitor = await udpVisitor(tunnel)

    expect(`${await visitor.ask('alone')}`).toBe('alone')
  })

  test('of all is lost, and of none', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { conditions: { dropRate: 1 } })
    await using visitor = await udpVisitor(tunnel)
    await visitor.send('lost')
    await vi.waitFor(() => expect(tunnel.stats.drops).toBe(1), deadline)
    tunnel.setConditions({})

    expect(`${await visitor.ask('kept')}`).toBe('kept')
    expect(visitor.replies).toEqual([])
  })
})

describe('the same seed', () => {
  test('brings about the same losses, and another does not', async () => {
    const lost = async (seed: number) => {
      await using target = await udpEchoTarget()
      const conditions = { in: { dropRate: 0.1 }, out: { dropRate: 0.1, duplicateRate: 0.1 }, seed }
      await using tunnel = await openTunnel(target.url, { conditions })
      await using visitor = await udpVisitor(tunnel)
      return await exchange(tunnel, visitor, target)
    }
    const first = await lost(4_294_967_295)

    expect(await lost(4_294_967_295)).toEqual(first)
    expect(await lost(0)).not.toEqual(first)
  })
})

describe('datagrams', () => {
  test.each([
    ['openTunnel', (url: string, conditions: Conditions) => openTunnel(url, { conditions })],
    ['forward', (url: string, conditions: Conditions) => forward('udp:127.0.0.1:0', url, { conditions })],
  ] as const)('of %s take as long as the latency', { retry }, async (_name, open) => {
    await using target = await udpEchoTarget()
    await using tunnel = await open(target.url, { latency: 30, in: { latency: 50 } })
    await using other = await open(target.url, {})
    await using visitor = await udpVisitor(tunnel)
    await using visitorWithout = await udpVisitor(other)
    for (const one of [visitor, visitorWithout]) await one.ask('first')
    const differs = await deviation(
      () => visitor.ask('ping'),
      () => visitorWithout.ask('ping'),
      [50, 30],
    )

    expect(await timed(() => visitor.ask('ping'))).toBeGreaterThan(79)
    expect(Math.abs(differs)).toBeLessThan(8)
  })

  test('come as fast as the bandwidth lets them, and what is too much is lost', { retry }, async () => {
    await using target = await udpTarget(() => {})
    await using tunnel = await openTunnel(target.url, { conditions: { in: { bandwidth: 50_000 } } })
    await using visitor = await udpVisitor(tunnel)
    const datagram = Buffer.alloc(1_000)
    const start = performance.now()
    for (let i = 0; i < 40; i++) await visitor.send(datagram)
    await vi.waitFor(() => expect(target.count).toBe(40), { ...deadline, interval: 5 })
    const seconds = (performance.now() - start) / 1_000

    expect((40 * 1_000) / seconds / 50_000).toBeGreaterThan(0.85)
    expect((40 * 1_000) / seconds / 50_000).toBeLessThan(1.15)
    for (let i = 0; i < 200; i++) await visitor.send(datagram)
    await vi.waitFor(() => expect(tunnel.stats.drops).toBeGreaterThan(100), deadline)
  })

  test('wait while the tunnel is paused', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { conditions: {} })
    await using visitor = await udpVisitor(tunnel)
    await visitor.ask('first')
    tunnel.pause()
    await visitor.send('second')
    await vi.waitFor(() => expect(tunnel.stats.bytesIn).toBe(11), deadline)
    expect(target.count).toBe(1)
    tunnel.resume()

    expect(`${await visitor.reply()}`).toBe('second')
  })

  test('that are larger than what the bandwidth brings in a second still come', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { conditions: { in: { bandwidth: 10_000 } } })
    await using visitor = await udpVisitor(tunnel)

    expect(await visitor.ask(Buffer.alloc(15_000))).toHaveLength(15_000)
  })

  test('of new visitors are refused', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { conditions: { refuse: true } })
    await using visitor = await udpVisitor(tunnel)
    await visitor.send('refused')
    await vi.waitFor(() => expect(tunnel.stats.rejections).toBe(1), deadline)

    expect(target.count).toBe(0)
  })
})

/** Sends numbers and gives back those that were sent back, when no more can come. */
async function exchange(tunnel: Tunnel, visitor: UdpVisitor, target: { count: number }): Promise<number[]> {
  for (let i = 0; i < COUNT; i++) {
    await visitor.send(String(i))
    // Not so many at a time that a busy machine loses any by itself.
    if (i % 20 === 19) await settled(tunnel, visitor, target)
  }
  await settled(tunnel, visitor, target)
  return visitor.replies.map(Number)
}

/** Waits until all that was sent was lost on purpose or has come. */
async function settled(tunnel: Tunnel, visitor: UdpVisitor, target: { count: number }): Promise<void> {
  let before = ''
  await vi.waitFor(
    () => {
      const now = `${tunnel.stats.drops} ${target.count} ${visitor.replies.length}`
      const isSettled = now === before
      before = now
      expect(isSettled).toBe(true)
    },
    { ...deadline, interval: 10 },
  )
}

function inOrder(numbers: number[]): number[] {
  return [...numbers].sort((one, other) => one - other)
}
