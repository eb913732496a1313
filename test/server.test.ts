import { once } from 'node:events'
import getPort from 'get-port'
import { pEvent } from 'p-event'
import { createServer, openTunnel, type TunnelInfo } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { echoTarget, silentTarget } from './helpers/targets.js'
import { udpEchoTarget, udpVisitor } from './helpers/udp.js'
import { ask, ending, visit } from './helpers/visitor.js'

const secret = 'correct horse battery staple'

describe('a server', () => {
  test('serves many tunnels of many clients at once', async () => {
    await using server = await createServer()
    await using target = await echoTarget()
    const tunnels = await Promise.all(Array.from({ length: 20 }, () => openTunnel(target.port, { server })))

    const replies = await Promise.all(tunnels.map((tunnel) => ask(tunnel, tunnel.url)))

    expect(replies.map(String)).toEqual(tunnels.map(({ url }) => url))
    expect(server.tunnels.map(({ port }) => port).sort()).toEqual(tunnels.map(({ port }) => port).sort())
    await Promise.all(tunnels.map((tunnel) => tunnel.close()))
    expect(server.tunnels).toEqual([])
  })

  test('tells of a tunnel, and when it is gone', async () => {
    await using server = await createServer()
    const opened = pEvent<'tunnel', TunnelInfo>(server, 'tunnel')
    const tunnel = await openTunnel(3000, { server })

    const info = await opened
    expect(info).toMatchObject({ protocol: 'tcp', host: '127.0.0.1', port: tunnel.port })
    expect(info.client).toEqual({ address: '127.0.0.1', port: expect.any(Number) })
    await tunnel.close()
    expect(await info.closed).toBeUndefined()
  })

  test('keeps its secret out of its address and of what is printed of it', async () => {
    await using server = await createServer({ secret })

    expect(server.secret).toBe(secret)
    expect(server.address).toBe(`pipe://127.0.0.1:${server.port}`)
    const { inspect } = await import('node:util')
    expect(inspect(server, { depth: 9, showHidden: true })).not.toContain(secret)
    expect(JSON.stringify({ ...server })).not.toContain(secret)
  })

  test('gives the host of its own choice to clients', async () => {
    await using server = await createServer({ publicHost: 'tunnel.example' })
    await using tunnel = await openTunnel(3000, { server })

    expect(tunnel.url).toBe(`http://tunnel.example:${tunnel.port}`)
  })

  test('listens elsewhere for UDP, and tells its clients where', async (context) => {
    if (process.platform === 'darwin') context.skip('macOS has no 127.0.0.2 by itself')
    await using server = await createServer({ udpHost: '127.0.0.2' })
    await using echo = await udpEchoTarget()
    await using udp = await openTunnel(echo.url, { server })
    await using tcp = await openTunnel(3000, { server })

    expect([udp.host, tcp.host]).toEqual(['127.0.0.2', '127.0.0.1'])
    await using visitor = await udpVisitor(udp)
    expect(String(await visitor.ask('ping'))).toBe('ping')
  })

  test('on all addresses gives the host that the client dialled', async () => {
    await using server = await createServer({ host: '0.0.0.0', secret })
    await using target = await echoTarget()
    for (const host of ['127.0.0.1', 'localhost']) {
      await using tunnel = await openTunnel(target.port, { server: `${host}:${server.port}`, secret })
      expect(tunnel.host).toBe(host)
      expect((await ask(tunnel, 'hi')).toString()).toBe('hi')
    }
  })

  test.each(['0.0.0.0', '::', '192.0.2.1', 'tunnel.example'])(
    'does not listen on %s without a secret, unless told that it may',
    async (host) => {
      const starting = createServer({ host })
      await expect(starting).rejects.toMatchObject({ code: 'insecure-address' })
      await expect(starting).rejects.toThrow(/secret.*insecure/)
    },
  )

  test('listens on all addresses without a secret where it is told that it may', async () => {
    await using server = await createServer({ host: '0.0.0.0', insecure: true })
    await using tunnel = await openTunnel(3000, { server })
    expect(tunnel.host).toBe('localhost')
  })

  test.each([
    [{ port: 65_536 }, 'port', '65536'],
    [{ port: 1.5 }, 'port', '1.5'],
    [{ host: 'a b' }, 'host', '"a b"'],
    [{ host: '' }, 'host', '""'],
    [{ udpHost: 'a b' }, 'udpHost', '"a b"'],
    [{ publicHost: 'http://x' }, 'publicHost', '"http://x"'],
    [{ ports: '20100-20000' }, 'ports', '"20100-20000"'],
    [{ ports: 'many' }, 'ports', '"many"'],
    [{ ports: '1-70000' }, 'ports', '"1-70000"'],
    [{ secret: '' }, 'secret', '0'],
    [{ secret: 'short' }, 'secret', '5'],
    [{ heartbeatTimeout: 0 }, 'heartbeatTimeout', '0'],
    [{ heartbeatInterval: 10_000 }, 'heartbeatTimeout', '15000'],
    [{ exchangeTimeout: Number.NaN }, 'exchangeTimeout', 'NaN'],
    [{ handshakeTimeout: 2 ** 31 }, 'handshakeTimeout', '2147483648'],
    [{ timeout: -1 }, 'timeout', '-1'],
    [{ limits: { waiting: 0 } }, 'limits.waiting', '0'],
  ])('refuses %j and names the option and the value', async (options, name, value) => {
    const starting = createServer(options)
    await expect(starting).rejects.toMatchObject({ name: 'TunnelError', code: 'invalid-option' })
    await expect(starting).rejects.toThrow(name)
    await expect(starting).rejects.toThrow(value)
  })

  test('does not start on a port that is taken, nor on an address that is not here', async () => {
    await using first = await createServer()
    const second = createServer({ port: first.port })
    await expect(second).rejects.toMatchObject({ code: 'port-taken', cause: { code: 'EADDRINUSE' } })
    await expect(second).rejects.toThrow(`127.0.0.1:${first.port}`)

    const elsewhere = createServer({ host: '192.0.2.1', secret })
    await expect(elsewhere).rejects.toMatchObject({ code: 'address-unavailable' })
  })

  test('does not start when its signal aborts', async () => {
    await expect(createServer({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'aborted' })
    const controller = new AbortController()
    const starting = createServer({ host: 'tunnel.invalid', insecure: true, signal: controller.signal })
    controller.abort()
    await expect(starting).rejects.toMatchObject({ code: 'aborted' })
  })
})

describe('a port', () => {
  test('is the one asked for, where it is in the range', async () => {
    const from = await getPort({ host: '127.0.0.1' })
    await using server = await createServer({ ports: `${from}` })
    await using tunnel = await openTunnel(3000, { server, port: from })
    expect(tunnel.port).toBe(from)
  })

  test('out of the range is refused with the range', async () => {
    await using server = await createServer({ ports: '20000-20100' })
    const opening = openTunnel(3000, { server, port: 19_999 })
    await expect(opening).rejects.toMatchObject({ code: 'port-not-allowed' })
    await expect(opening).rejects.toThrow('20000 to 20100')
  })

  test('that needs privileges is refused where the server names no range', async () => {
    await using server = await createServer()
    await expect(openTunnel(3000, { server, port: 80 })).rejects.toMatchObject({ code: 'port-not-allowed' })
  })

  test('that is taken is refused, and the tunnel that has it goes on', async () => {
    await using server = await createServer()
    await using target = await echoTarget()
    await using first = await openTunnel(target.port, { server })
    const opening = openTunnel(target.port, { server, port: first.port })

    await expect(opening).rejects.toMatchObject({ code: 'port-taken' })
    await expect(opening).rejects.toThrow(String(first.port))
    expect((await ask(first, 'mine')).toString()).toBe('mine')
  })

  test('is any of the range where none is asked for, until all are taken', async () => {
    await using target = await echoTarget()
    const from = await getPort({ host: '127.0.0.1' })
    await using server = await createServer({ ports: `${from}-${Math.min(from + 5, 65_535)}` })
    const ports: number[] = []
    const opening = (async () => {
      for (;;) ports.push((await openTunnel(target.port, { server, unref: true })).port)
    })()

    await expect(opening).rejects.toMatchObject({ code: 'ports-exhausted' })
    await expect(opening).rejects.toThrow(`${from} to ${Math.min(from + 5, 65_535)}`)
    expect(new Set(ports).size).toBe(ports.length)
    expect(ports).toContain(from)
  })
})

describe('a limit', () => {
  test('on tunnels refuses one more with its number, and gives room when one closes', async () => {
    await using server = await createServer({ limits: { tunnels: 1 } })
    // One control connection for both.
    const { openTunnels } = await import('../src/open-tunnel.js')
    await expect(openTunnels([{ target: 3000 }, { target: 3001 }], { server })).rejects.toMatchObject({
      code: 'limit-reached',
    })
    await vi.waitFor(() => expect(server.tunnels).toEqual([]))
    await using tunnel = await openTunnel(3000, { server })
    expect(server.tunnels).toHaveLength(1)
    expect(tunnel.port).toBeGreaterThan(0)
  })
})

describe('a server closes', () => {
  test('once, for everybody who asks, and cuts who is inside', async () => {
    await using target = await silentTarget()
    const server = await createServer()
    await using tunnel = await openTunnel(target.port, { server })
    const visitor = await visit(tunnel)
    await pEvent(server, 'connection')
    const closed = once(server, 'close')
    const end = ending(visitor)

    expect(server.close()).toBe(server.close())
    await server.close()

    await closed
    expect(await end).toBe('reset')
    await expect(visit(server)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await expect(visit(tunnel)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('with grace: its clients are told at once, and visitors inside finish', async () => {
    await using target = await echoTarget()
    const server = await createServer()
    await using tunnel = await openTunnel(target.port, { server })
    const visitor = await visit(tunnel)
    visitor.write('before, ')
    await once(visitor, 'data')

    const closed = server.close({ grace: 30_000 })
    expect(await tunnel.closed).toMatchObject({ code: 'server-closed' })
    visitor.end('after')
    expect((await once(visitor, 'data')).toString()).toBe('after')

    await closed
  })

  test('while clients connect, and each is served or told', async () => {
    const server = await createServer()
    const opening = Promise.allSettled(Array.from({ length: 20 }, () => openTunnel(3000, { server })))
    await pEvent(server, 'tunnel')
    await server.close()

    for (const outcome of await opening) {
      if (outcome.status === 'fulfilled') {
        expect(await outcome.value.closed).toMatchObject({ code: 'server-closed' })
        await outcome.value.close()
      } else {
        expect(outcome.reason).toMatchObject({ code: expect.stringMatching(/^(server-|connection-lost)/) })
      }
    }
  })
})
