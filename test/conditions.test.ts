/** A network that is broken on purpose. Times are compared with those of the same tunnel without conditions. */
import { once } from 'node:events'
import type net from 'node:net'
import { pEvent } from 'p-event'
import {
  type Conditions,
  type Connection,
  createServer,
  forward,
  openTunnel,
  type Rejection,
  type Tunnel,
  type TunnelError,
} from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { answerAtEndTarget, echoTarget, silentTarget, tcpTarget } from './helpers/targets.js'
import { deviation, median, timed } from './helpers/trips.js'
import { ask, ending, visit } from './helpers/visitor.js'

const KB = 1_024

/** How often a measurement that other work has disturbed is taken again. */
const retry = 5

/** For waits that end as soon as they can. */
const deadline = { timeout: 20_000 }

type Open = (port: number, conditions?: Conditions) => Promise<Tunnel>

const openings: [name: string, open: Open][] = [
  ['openTunnel', (port, conditions) => openTunnel(port, conditions && { conditions })],
  ['forward', (port, conditions) => forward(0, port, conditions && { conditions })],
]

describe('latency', () => {
  test.each([
    ['both directions', { latency: 60 }, [60, 60]],
    ['one direction', { in: { latency: 80 } }, [80]],
    ['each direction by itself', { latency: 10, out: { latency: 50 } }, [10, 50]],
  ])('of %s is added to each answer', { retry }, async (_which, conditions, latencies) => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { conditions })
    await using other = await openTunnel(target.port, { conditions: {} })
    const [visitor, visitorWithout] = [await visit(tunnel), await visit(other)]
    for (const one of [visitor, visitorWithout]) await roundTrip(one)
    const added = latencies.reduce((sum, one) => sum + one, 0)
    const differs = await deviation(
      () => roundTrip(visitor),
      () => roundTrip(visitorWithout),
      latencies,
    )

    expect(await timed(() => roundTrip(visitor))).toBeGreaterThan(added - 1)
    expect(Math.abs(differs)).toBeLessThan(Math.max(5, added / 10))
  })

  test('differs by as much as the jitter', { retry }, async () => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { conditions: {} })
    const visitor = await visit(tunnel)
    await roundTrip(visitor)
    const without = await medianOf(15, () => roundTrip(visitor))
    tunnel.setConditions({ in: { latency: 40, jitter: 30 }, seed: 1 })
    const trips: number[] = []
    for (let i = 0; i < 40; i++) trips.push((await roundTrip(visitor)) - without)

    expect(Math.min(...trips)).toBeGreaterThan(8)
    expect(Math.min(...trips)).toBeLessThan(25)
    expect(Math.max(...trips)).toBeGreaterThan(55)
    expect(median(trips)).toBeGreaterThan(25)
    expect(median(trips)).toBeLessThan(55)
  })

  test('does not slow a transfer down', { retry }, async () => {
    const size = 2_000 * KB
    await using target = await answerAtEndTarget(() => Buffer.alloc(size))
    await using tunnel = await openTunnel(target.port, { conditions: { latency: 100 } })
    await using other = await openTunnel(target.port)
    const transfer = async (through: Tunnel) => expect(await ask(through, '')).toHaveLength(size)
    // That of the end of the request, and that of the answer.
    const differs = await deviation(
      () => transfer(tunnel),
      () => transfer(other),
      [100, 100],
    )

    expect(Math.abs(differs)).toBeLessThan(40)
  })

  test('holds an end back together with the bytes before it', async () => {
    await using target = await answerAtEndTarget((request) => request)
    await using tunnel = await openTunnel(target.port, { conditions: { latency: 50, jitter: 50 } })
    const request = Buffer.from(Array.from({ length: 300_000 }, (_, at) => at % 251))

    expect((await ask(tunnel, request)).equals(request)).toBe(true)
    await vi.waitFor(() => expect(tunnel.connections).toBe(0), deadline)
  })

  test('does not hold a reset back', async () => {
    await using target = await silentTarget()
    await using tunnel = await openTunnel(target.port, { conditions: { latency: 600_000 } })
    const accepted = once(target.server, 'connection')
    const visitor = await visit(tunnel)
    const [socket] = await accepted
    const end = ending(socket)
    visitor.write('never comes')
    await vi.waitFor(() => expect(tunnel.connections).toBe(1), deadline)
    visitor.resetAndDestroy()

    expect(await end).toBe('reset')
    await vi.waitFor(() => expect(tunnel.connections).toBe(0), deadline)
  })

  test('stops a sender whose bytes wait, so that memory does not grow', async () => {
    await using target = await silentTarget()
    await using tunnel = await forward(0, target.port, { conditions: { latency: 600_000 } })
    const visitor = await visit(tunnel)
    const chunk = Buffer.alloc(256 * KB)
    let sent = 0
    const push = () => {
      while (visitor.write(chunk)) sent += chunk.length
    }
    visitor.on('drain', push)
    push()
    let before = -1
    await vi.waitFor(
      () => {
        const now = sent
        const isSettled = now === before
        before = now
        expect(isSettled).toBe(true)
      },
      { timeout: 30_000, interval: 500 },
    )

    // 16 MiB, and what the kernel's buffers hold.
    expect(sent).toBeGreaterThan(15_000 * KB)
    expect(sent).toBeLessThan(40_000 * KB)
    visitor.destroy()
  })
})

describe('bandwidth', () => {
  test.each(['in', 'out'] as const)(
    'of direction %s is the speed of a transfer',
    { retry },
    async (direction) => {
      const size = 200 * KB
      await using target = await answerAtEndTarget((request) =>
        direction === 'in' ? '' : Buffer.alloc(request.length * size),
      )
      await using tunnel = await openTunnel(target.port, { conditions: {} })
      const request = Buffer.alloc(direction === 'in' ? size : 1)
      const transfer = () => timed(() => ask(tunnel, request))
      const without = await medianOf(3, transfer)
      tunnel.setConditions({ [direction]: { bandwidth: '100kb' } })
      const seconds = ((await transfer()) - without) / 1_000

      expect(size / seconds / (100 * KB)).toBeGreaterThan(0.9)
      expect(size / seconds / (100 * KB)).toBeLessThan(1.1)
    },
  )

  test('is shared by visitors', { retry }, async () => {
    await using target = await answerAtEndTarget(() => Buffer.alloc(50 * KB))
    await using tunnel = await openTunnel(target.port, { conditions: { bandwidth: '100kb' } })
    const start = performance.now()
    await Promise.all([ask(tunnel, ''), ask(tunnel, ''), ask(tunnel, '')])
    const seconds = (performance.now() - start) / 1_000

    expect(seconds).toBeGreaterThan(1.3)
    expect(seconds).toBeLessThan(1.8)
  })

  test('saves nothing up', async () => {
    await using target = await answerAtEndTarget(() => Buffer.alloc(50 * KB))
    await using tunnel = await openTunnel(target.port, { conditions: { bandwidth: '50kb' } })
    for (let round = 0; round < 2; round++) {
      const start = performance.now()
      await ask(tunnel, '')
      expect(performance.now() - start).toBeGreaterThan(850)
    }
  })

  test('of little and then of any does not keep who waits', async () => {
    await using target = await answerAtEndTarget(() => Buffer.alloc(500 * KB))
    await using tunnel = await openTunnel(target.port, { conditions: { bandwidth: 1 } })
    const answer = ask(tunnel, '')
    await vi.waitFor(() => expect(tunnel.stats.bytesOut).toBeGreaterThan(0), deadline)
    tunnel.setConditions({})

    expect(await answer).toHaveLength(500 * KB)
  })
})

describe('a slice', () => {
  test('makes small writes with gaps', async () => {
    await using target = await answerAtEndTarget(() => 'x'.repeat(200))
    await using tunnel = await forward(0, target.port, {
      conditions: { out: { slice: { size: 10, gap: 10 } } },
    })
    const visitor = await visit(tunnel)
    visitor.end()
    const start = performance.now()
    const [first] = await once(visitor, 'data')
    const end = once(visitor, 'end')
    visitor.resume()
    await end

    expect(first).toHaveLength(10)
    expect(visitor.bytesRead).toBe(200)
    expect(performance.now() - start).toBeGreaterThan(180)
  })
})

describe('resetAfter', () => {
  test.each([0, 1, 20_000])('%i lets as many bytes through, and resets both sides', async (resetAfter) => {
    await using target = await tcpTarget((socket) => socket.write(Buffer.alloc(100_000)))
    await using tunnel = await openTunnel(target.port, { conditions: { out: { resetAfter } } })
    const connected = pEvent<'connection', Connection>(tunnel, 'connection')
    const accepted = once(target.server, 'connection')
    const visitor = await visit(tunnel)
    const [socket] = await accepted
    const ends = [ending(visitor), ending(socket)]
    const { closed } = await connected
    const { error, bytesOut } = await closed

    expect(await Promise.all(ends)).toEqual(['reset', 'reset'])
    expect(error).toMatchObject({ code: 'broken-on-purpose' })
    expect(error?.message).toContain(`after ${resetAfter} bytes`)
    expect(bytesOut).toBe(resetAfter)
    expect(visitor.bytesRead).toBe(resetAfter)
  })
})

describe('closeAfter', () => {
  test('ends both sides', async () => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { conditions: { closeAfter: 100 } })
    const accepted = once(target.server, 'connection')
    const visitor = await visit(tunnel)
    const [socket] = await accepted
    const start = performance.now()

    expect(await Promise.all([ending(visitor), ending(socket)])).toEqual(['end', 'end'])
    expect(performance.now() - start).toBeGreaterThan(50)
    visitor.end()
    await vi.waitFor(() => expect(tunnel.connections).toBe(0), deadline)
  })

  test('of one direction leaves the other open', async () => {
    await using target = await answerAtEndTarget((request) => `${request} was all`)
    await using tunnel = await openTunnel(target.port, { conditions: { in: { closeAfter: 300 } } })
    const visitor = await visit(tunnel)
    visitor.write('what came')
    const [answer] = await once(visitor, 'data')

    expect(`${answer}`).toBe('what came was all')
    // What comes behind the end is lost, and stops nobody.
    visitor.end(Buffer.alloc(500 * KB))
    await vi.waitFor(() => expect(tunnel.connections).toBe(0), deadline)
  })
})

describe('a stall', () => {
  test('lets visitors in and says nothing, until other conditions hold', async () => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { conditions: { stall: true } })
    const connected = pEvent(tunnel, 'connection')
    const visitor = await visit(tunnel)
    visitor.write('ping')
    await connected
    expect(await heardWithin(visitor, 200)).toBe(false)
    tunnel.setConditions({})

    expect(`${await once(visitor, 'data')}`).toBe('ping')
  })

  test('of the answers lets requests through', async () => {
    await using target = await tcpTarget((socket) => socket.on('data', () => socket.write('answer')))
    await using tunnel = await openTunnel(target.port, { conditions: { out: { stall: true } } })
    const accepted = once(target.server, 'connection')
    const visitor = await visit(tunnel)
    visitor.write('ping')
    const [socket] = await accepted
    await vi.waitFor(() => expect(socket.bytesRead).toBe(4), deadline)

    expect(await heardWithin(visitor, 200)).toBe(false)
  })
})

describe('refuse', () => {
  test('turns visitors away at once, and says why', async () => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { conditions: { refuse: true } })
    const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')
    const visitor = await visit(tunnel)

    expect(await ending(visitor)).toBe('reset')
    expect((await rejected).error).toMatchObject({ code: 'broken-on-purpose' })
    expect(target.sockets.size).toBe(0)

    tunnel.setConditions({})
    expect(`${await ask(tunnel, 'ping')}`).toBe('ping')
  })
})

describe('a tunnel', () => {
  test.each(openings)(
    'of %s that is paused lets nothing flow, and everything when it is resumed',
    async (_name, open) => {
      await using target = await echoTarget()
      await using tunnel = await open(target.port, { latency: 1 })
      const visitor = await visit(tunnel)
      await roundTrip(visitor)
      tunnel.pause()
      visitor.write('ping')
      expect(await heardWithin(visitor, 200)).toBe(false)
      // Other conditions are not the end of a pause.
      tunnel.setConditions({})
      expect(await heardWithin(visitor, 200)).toBe(false)
      tunnel.resume()

      expect(`${await once(visitor, 'data')}`).toBe('ping')
    },
  )

  test.each(openings)(
    'of %s cuts everybody who is inside, and nobody who comes later',
    async (_name, open) => {
      await using target = await echoTarget()
      await using tunnel = await open(target.port)
      const visitors = [await visit(tunnel), await visit(tunnel)]
      for (const one of visitors) await roundTrip(one)
      const ends = visitors.map(ending)
      tunnel.cut()

      expect(await Promise.all(ends)).toEqual(['reset', 'reset'])
      expect(`${await ask(tunnel, 'ping')}`).toBe('ping')
    },
  )

  test.each([false, true])('whose control connection is dropped reconnects (mux: %s)', async (mux) => {
    await using target = await echoTarget()
    await using server = await createServer()
    await using tunnel = await openTunnel(target.port, { server: server.address, mux })
    const lost = pEvent<'disconnect', TunnelError>(tunnel, 'disconnect', deadline)
    const lostAtServer = pEvent(server, 'disconnect', deadline)
    const back = pEvent(tunnel, 'reconnect', deadline)
    const { port } = tunnel
    tunnel.dropControl()

    expect(await lost).toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining('on purpose'),
    })
    await lostAtServer
    await back
    expect(tunnel.port).toBe(port)
    expect(`${await ask(tunnel, 'ping')}`).toBe('ping')
  })

  test('whose control connection is dropped ends where it does not reconnect', async () => {
    await using tunnel = await openTunnel(3000, { reconnect: false })
    tunnel.dropControl()
    expect(await tunnel.closed).toMatchObject({ code: 'connection-lost' })
    // Nor is there anything to drop from then on.
    tunnel.dropControl()
  })

  test('of forward has no control connection to drop', async () => {
    await using tunnel = await forward(0, 3000)
    expect(() => tunnel.dropControl()).toThrow(/forward has no control connection/)
  })

  test('without conditions leaves visitors inside alone when some are set, and those that come later pass through them', async () => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port)
    expect(tunnel.conditions).toEqual({})
    const early = await visit(tunnel)
    await roundTrip(early)
    tunnel.setConditions({ stall: true })
    const late = await visit(tunnel)
    late.write('ping')

    await roundTrip(early)
    expect(await heardWithin(late, 200)).toBe(false)
  })

  test('closes at once although bytes are on their way', async () => {
    await using target = await echoTarget()
    const tunnel = await openTunnel(target.port, { conditions: { latency: 600_000, bandwidth: 1 } })
    const connected = pEvent(tunnel, 'connection')
    const visitor = await visit(tunnel)
    visitor.write('never comes')
    await connected
    const end = ending(visitor)
    await tunnel.close()

    expect(await end).toBe('reset')
    expect(tunnel.connections).toBe(0)
  })

  test('has a seed that was chosen, and keeps it', async () => {
    await using tunnel = await openTunnel(3000, { conditions: { latency: 1 } })
    const { seed } = tunnel.conditions
    expect(tunnel.conditions).toEqual({ latency: 1, seed: expect.any(Number) })
    tunnel.setConditions({ jitter: 2 })
    expect(tunnel.conditions).toEqual({ jitter: 2, seed })
    tunnel.setConditions({ seed: 7 })
    expect(tunnel.conditions).toEqual({ seed: 7 })
  })
})

describe('conditions', () => {
  test.each<[unknown, string]>([
    ['slow', 'conditions must be an object, not "slow"'],
    [null, 'conditions must be an object, not null'],
    [{ latncy: 1 }, 'conditions has no "latncy": did you mean latency?'],
    [{ colour: 1 }, 'conditions must be made of latency, jitter,'],
    [{ in: { refuse: true } }, 'conditions.in must be made of latency, jitter,'],
    [{ latency: -1 }, 'conditions.latency must be milliseconds from 0 to 2147483647, not -1'],
    [{ latency: '100' }, 'conditions.latency must be milliseconds from 0 to 2147483647, not "100"'],
    [
      { in: { jitter: Number.NaN } },
      'conditions.in.jitter must be milliseconds from 0 to 2147483647, not NaN',
    ],
    [{ bandwidth: 'fast' }, 'conditions.bandwidth must be bytes per second'],
    [{ out: { bandwidth: 0 } }, 'conditions.out.bandwidth must be bytes per second'],
    [{ dropRate: 0.1 }, 'conditions.dropRate must be left out where the target is not udp, not 0.1'],
    [{ stall: 1 }, 'conditions.stall must be true or false, not 1'],
    [{ refuse: 'yes' }, 'conditions.refuse must be true or false, not "yes"'],
    [{ resetAfter: 1.5 }, 'conditions.resetAfter must be a whole number from 0 to 9007199254740991, not 1.5'],
    [{ closeAfter: -1 }, 'conditions.closeAfter must be milliseconds from 0 to 2147483647, not -1'],
    [{ slice: 10 }, 'conditions.slice must be an object, not 10'],
    [{ slice: false }, 'conditions.slice must be an object, not false'],
    [
      { slice: { size: 0 } },
      'conditions.slice.size must be a whole number from 1 to 9007199254740991, not 0',
    ],
    [
      { slice: { size: 1, gap: -1 } },
      'conditions.slice.gap must be milliseconds from 0 to 2147483647, not -1',
    ],
    [{ seed: -1 }, 'conditions.seed must be a whole number from 0 to 4294967295, not -1'],
  ])('may not be %j', async (conditions, message) => {
    const given = conditions as Conditions
    const refusal = { name: 'TunnelError', code: 'invalid-option', message: expect.stringContaining(message) }
    await expect(openTunnel(3000, { conditions: given })).rejects.toMatchObject(refusal)
    await using tunnel = await forward(0, 3000)
    expect(() => tunnel.setConditions(given)).toThrow(expect.objectContaining(refusal))
    expect(tunnel.conditions).toEqual({})
  })

  test.each<[unknown, string]>([
    [{ dropRate: 1.1 }, 'conditions.dropRate must be a share from 0 to 1, not 1.1'],
    [{ in: { duplicateRate: '1' } }, 'conditions.in.duplicateRate must be a share from 0 to 1, not "1"'],
    [{ slice: { size: 1 } }, 'conditions.slice must be left out where the target is udp'],
    [{ out: { resetAfter: 1 } }, 'conditions.out.resetAfter must be left out where the target is udp, not 1'],
  ])('of a udp target may not be %j', async (conditions, message) => {
    const opening = openTunnel('udp://localhost:53', { conditions: conditions as Conditions })
    await expect(opening).rejects.toThrow(message)
  })
})

async function roundTrip(socket: net.Socket): Promise<number> {
  return timed(async () => {
    socket.write('ping')
    await once(socket, 'data')
  })
}

async function heardWithin(socket: net.Socket, time: number): Promise<boolean> {
  const heard = pEvent(socket, 'data', { timeout: time })
  return heard.then(
    () => true,
    () => false,
  )
}

async function medianOf(count: number, measure: () => Promise<number>): Promise<number> {
  const values: number[] = []
  for (let i = 0; i < count; i++) values.push(await measure())
  return median(values)
}
