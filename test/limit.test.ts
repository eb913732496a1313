/** Speed limits. These tests measure time, so each opens its own tunnel, and they run beside each other. */
import { once } from 'node:events'
import type net from 'node:net'
import { Readable } from 'node:stream'
import { createServer, forward, openTunnel } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { answerAtEndTarget, echoTarget, silentTarget, tcpTarget } from './helpers/targets.js'
import { udpEchoTarget, udpVisitor } from './helpers/udp.js'
import { ask, ending, visit } from './helpers/visitor.js'

const KB = 1_024
const MB = 1_048_576

/** Sends for as long as somebody takes it. */
const endless = (socket: net.Socket) => void zeros().pipe(socket)

describe.concurrent('a limit of 100kb', () => {
  test('is the speed from the target to a visitor', async ({ expect }) => {
    await using target = await tcpTarget(endless)
    await using tunnel = await openTunnel(target.port, { limit: '100kb' })
    const rate = await rateOf(await visit(tunnel))

    expect(rate).toBeGreaterThan(0.9 * 100 * KB)
    expect(rate).toBeLessThan(1.1 * 100 * KB)
  })

  test('is the speed from a visitor to the target', async ({ expect }) => {
    await using target = await silentTarget()
    await using tunnel = await forward(0, target.port, { limit: '100kb' })
    const accepted = once(target.server, 'connection')
    endless(await visit(tunnel))
    const [socket] = await accepted
    const rate = await rateOf(socket)

    expect(rate).toBeGreaterThan(0.9 * 100 * KB)
    expect(rate).toBeLessThan(1.1 * 100 * KB)
  })

  test('is one of each direction by itself', async ({ expect }) => {
    await using target = await tcpTarget(endless)
    await using tunnel = await openTunnel(target.port, { limit: 100 * KB })
    const accepted = once(target.server, 'connection')
    const visitor = await visit(tunnel)
    const [socket] = await accepted
    endless(visitor)

    for (const rate of await Promise.all([rateOf(visitor), rateOf(socket)])) {
      expect(rate).toBeGreaterThan(0.9 * 100 * KB)
      expect(rate).toBeLessThan(1.1 * 100 * KB)
    }
  })

  test('is shared by visitors alike', async ({ expect }) => {
    await using target = await tcpTarget(endless)
    await using tunnel = await openTunnel(target.port, { limit: '100kb' })
    const visitors = [await visit(tunnel), await visit(tunnel)]
    const rates = await Promise.all(visitors.map((visitor) => rateOf(visitor)))

    for (const rate of rates) {
      expect(rate).toBeGreaterThan(0.4 * 100 * KB)
      expect(rate).toBeLessThan(0.6 * 100 * KB)
    }
    const sum = rates.reduce((one, other) => one + other)
    expect(sum).toBeGreaterThan(0.9 * 100 * KB)
    expect(sum).toBeLessThan(1.1 * 100 * KB)
  })

  test('is all for one visitor once the other has left', async ({ expect }) => {
    await using target = await tcpTarget(endless)
    await using tunnel = await openTunnel(target.port, { limit: '100kb' })
    const visitors = [await visit(tunnel), await visit(tunnel)] as const
    await Promise.all(visitors.map((visitor) => once(visitor, 'data')))
    visitors[0].resetAndDestroy()
    await vi.waitFor(() => expect(tunnel.connections).toBe(1))
    const rate = await rateOf(visitors[1])

    expect(rate).toBeGreaterThan(0.9 * 100 * KB)
    expect(rate).toBeLessThan(1.1 * 100 * KB)
  })

  test('can be saved up for one second and no longer', async ({ expect }) => {
    const size = 200 * KB
    await using target = await answerAtEndTarget(() => Buffer.alloc(size))
    await using tunnel = await openTunnel(target.port, { limit: '100kb' })
    await using clock = await tcpTarget(endless)
    await using other = await openTunnel(clock.port, { limit: '100kb' })
    const timed = async () => {
      const start = performance.now()
      expect(await ask(tunnel, '')).toHaveLength(size)
      return performance.now() - start
    }

    // Two seconds' worth, of which nothing was there.
    expect(await timed()).toBeGreaterThan(1_800)
    // The bytes of another tunnel tell the time.
    await rateOf(await visit(other), 2_500)
    // One second's worth was there.
    expect(await timed()).toBeGreaterThan(800)
  })

  test('holds for datagrams: those that come faster are dropped and counted', async ({ expect }) => {
    await using target = await udpEchoTarget()
    await using tunnel = await openTunnel(target.url, { limit: '50kb' })
    await using visitor = await udpVisitor(tunnel)
    const datagram = Buffer.alloc(1_000, 'whole, ')
    expect(`${await visitor.ask(datagram)}`).toBe(`${datagram}`)

    // Four times as many as are let through.
    const start = performance.now()
    let sent = 1
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        for (let i = 0; i < 2; i++) visitor.send(datagram)
        sent += 2
        if (performance.now() - start < 5_000) return
        clearInterval(timer)
        resolve()
      }, 10)
    })
    const seconds = (performance.now() - start) / 1_000

    expect(tunnel.stats.bytesIn / seconds / (50 * KB)).toBeGreaterThan(0.9)
    expect(tunnel.stats.bytesIn / seconds / (50 * KB)).toBeLessThan(1.1)
    expect(new Set(visitor.replies.map(String))).toEqual(new Set([`${datagram}`]))
    await vi.waitFor(() => {
      const { bytesIn, drops } = tunnel.stats
      expect(bytesIn / datagram.length + drops).toBeGreaterThanOrEqual(sent)
    })
  })

  test('leaves other tunnels alone', async ({ expect }) => {
    await using target = await tcpTarget(endless)
    await using other = await answerAtEndTarget(() => Buffer.alloc(20 * MB))
    await using server = await createServer()
    await using limited = await openTunnel(target.port, { server, limit: '100kb' })
    await using free = await openTunnel(other.port, { server })
    await once(await visit(limited), 'data')

    expect(await ask(free, '')).toHaveLength(20 * MB)
    expect(limited.stats.bytesOut).toBeLessThan(2 * MB)
  })

  test('stops the sender, so that memory does not grow', async ({ expect }) => {
    let sent = 0
    await using target = await tcpTarget((socket) => {
      zeros((bytes) => {
        sent += bytes
      }).pipe(socket)
    })
    await using tunnel = await openTunnel(target.port, { limit: '100kb' })
    const visitor = await visit(tunnel)
    await rateOf(visitor, 3_000)

    // What the kernel's buffers hold of connections in a row; unstopped it would be hundreds.
    expect(sent).toBeLessThan(24 * MB)
    expect(tunnel.stats.bytesOut).toBeLessThan(MB)
  })
})

describe.concurrent('under a limit', () => {
  test('a small request is not kept waiting by a large one', async ({ expect }) => {
    let visitors = 0
    await using target = await tcpTarget((socket) => {
      visitors++
      if (visitors === 1) endless(socket)
      else socket.pipe(socket)
    })
    // A chunk of 64 KiB at once would take more than six seconds.
    await using tunnel = await openTunnel(target.port, { limit: '10kb' })
    await once((await visit(tunnel)).resume(), 'data')

    for (let round = 0; round < 3; round++) {
      const start = performance.now()
      expect((await ask(tunnel, 'a small one')).toString()).toBe('a small one')
      expect(performance.now() - start).toBeLessThan(3_000)
    }
  })

  test('an answer after the end of the request is heard in full', async ({ expect }) => {
    await using target = await answerAtEndTarget((request) =>
      Buffer.concat([request, Buffer.alloc(200_000, 'y')]),
    )
    await using tunnel = await openTunnel(target.port, { limit: '200kb' })
    const request = Buffer.alloc(200_000, 'x')

    expect((await ask(tunnel, request)).equals(Buffer.concat([request, Buffer.alloc(200_000, 'y')]))).toBe(
      true,
    )
    await vi.waitFor(() => expect(tunnel.connections).toBe(0))
  })

  test('an end behind nothing passes', async ({ expect }) => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { limit: 1 })
    expect(await ask(tunnel, '')).toHaveLength(0)
  })

  test('a visitor that breaks off is noticed while bytes still wait', async ({ expect }) => {
    await using target = await tcpTarget(endless)
    await using tunnel = await openTunnel(target.port, { limit: '1kb' })
    const accepted = once(target.server, 'connection')
    const visitor = await visit(tunnel)
    const [socket] = await accepted
    const end = ending(socket)
    await once(visitor, 'data')
    visitor.resetAndDestroy()

    expect(await end).toBe('reset')
    await vi.waitFor(() => expect(tunnel.connections).toBe(0))
  })

  test('a target that breaks off is noticed while bytes still wait', async ({ expect }) => {
    await using target = await silentTarget()
    await using tunnel = await openTunnel(target.port, { limit: '1kb' })
    const accepted = once(target.server, 'connection')
    const visitor = await visit(tunnel)
    const [socket] = await accepted
    const end = ending(visitor)
    endless(visitor)
    await once(socket.resume(), 'data')
    socket.resetAndDestroy()

    expect(await end).toBe('reset')
    await vi.waitFor(() => expect(tunnel.connections).toBe(0))
  })

  test('a tunnel closes at once although bytes still wait', async ({ expect }) => {
    await using target = await tcpTarget(endless)
    const tunnel = await openTunnel(target.port, { limit: '1kb' })
    const visitor = await visit(tunnel)
    await once(visitor, 'data')
    const end = ending(visitor)
    await tunnel.close()

    expect(await end).toBe('reset')
    expect(tunnel.connections).toBe(0)
  })

  test('what is counted is what was let through', async ({ expect }) => {
    await using target = await tcpTarget(endless)
    await using tunnel = await openTunnel(target.port, { limit: '100kb' })
    const visitor = await visit(tunnel)
    await rateOf(visitor, 1_000)

    expect(tunnel.stats.bytesOut).toBeLessThan(300 * KB)
    expect(tunnel.stats.bytesOut).toBeGreaterThanOrEqual(visitor.bytesRead)
  })
})

describe('a limit', () => {
  test.each([1, 65_536, '1b', '100', '100kb', '100KB', '100 kb', '1.5mb', '2gb'])(
    'may be %j',
    async (limit) => {
      await using tunnel = await openTunnel(3000, { limit })
      expect(tunnel.port).toBeGreaterThan(0)
    },
  )

  test.each([
    '100kbit',
    'fast',
    '',
    'kb',
    '100 kib',
    '100kb/s',
    '-1kb',
    '0kb',
    '1e3',
    '0x10',
    ' 100kb',
    '100tb',
    '9999999999gb',
    -1,
    0,
    0.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    null,
    true,
    {},
  ])('may not be %j', async (limit) => {
    for (const opening of [
      openTunnel(3000, { limit: limit as number }),
      forward(0, 3000, { limit: limit as number }),
    ]) {
      await expect(opening).rejects.toMatchObject({ name: 'TunnelError', code: 'invalid-option' })
      const shown = typeof limit === 'string' ? JSON.stringify(limit) : String(limit)
      await expect(opening).rejects.toThrow(/^limit must be bytes per second, such as '100kb'/)
      await expect(opening).rejects.toThrow(`, not ${shown}`)
    }
  })
})

/** Bytes per second that come, over so many milliseconds from the first on. */
async function rateOf(socket: Readable, duration = 5_000): Promise<number> {
  let bytes = 0
  let start: number | undefined
  const rate = await new Promise<number>((resolve) => {
    socket.on('data', (chunk: Buffer) => {
      const now = performance.now()
      // What the first brings was due before.
      if (start === undefined) start = now
      else bytes += chunk.length
      if (now - start >= duration) resolve((bytes / (now - start)) * 1_000)
    })
    socket.resume()
  })
  return rate
}

/** Zeros without end, made as they are taken. */
function zeros(onMade?: (bytes: number) => void): Readable {
  const chunk = Buffer.alloc(65_536)
  return new Readable({
    read() {
      onMade?.(chunk.length)
      this.push(chunk)
    },
  })
}
