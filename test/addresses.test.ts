/** Servers on several addresses, or on all. */
import { once } from 'node:events'
import net from 'node:net'
import { pEvent } from 'p-event'
import { type Connection, createServer, openTunnel, type ServerOptions } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { echoTarget, track } from './helpers/targets.js'
import { hasIPv6, udpEchoTarget, udpVisitor } from './helpers/udp.js'
import { ask, visit } from './helpers/visitor.js'

const secret = 'correct horse battery staple'
const both = ['127.0.0.1', '::1'] as const

describe.skipIf(!(await hasIPv6()))('a server', () => {
  test('on :: serves both families, and shows each address in its own form', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ host: '::', secret })
    await using tunnel = await openTunnel(target.port, { server })
    expect(server.tunnels).toMatchObject([{ host: '::', port: tunnel.port }])

    for (const host of both) {
      const atClient = pEvent<'connection', Connection>(tunnel, 'connection')
      const atServer = pEvent<'connection', Connection>(server, 'connection')
      const visitor = await visit({ host, port: tunnel.port })
      const { localPort } = visitor
      visitor.end('hello')
      await once(visitor.resume(), 'close')

      expect((await atClient).visitor).toEqual({ address: host, port: localPort })
      expect((await atServer).visitor).toEqual({ address: host, port: localPort })
    }
  })

  test('on :: takes clients of both families', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ host: '::', secret })
    for (const host of both) {
      const address = net.isIPv6(host) ? `[${host}]:${server.port}` : `${host}:${server.port}`
      await using tunnel = await openTunnel(target.port, { server: address, secret })
      expect(server.tunnels).toMatchObject([{ client: { address: host } }])
      expect(tunnel.host).toBe(host)
      expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
    }
  })

  test('on :: takes datagrams of both families, and shows each address in its own form', async () => {
    await using target = await udpEchoTarget()
    await using server = await createServer({ host: '::', secret })
    await using tunnel = await openTunnel(target.url, { server })
    for (const host of both) {
      await using visitor = await udpVisitor({ host, port: tunnel.port })
      const told = pEvent<'connection', Connection>(tunnel, 'connection')
      expect((await visitor.ask('hello')).toString()).toBe('hello')
      expect((await told).visitor).toEqual({ address: host, port: visitor.port })
    }
  })

  test('on two addresses has the same port on both, and so have its tunnels', async () => {
    await using target = await echoTarget()
    await using udpTarget = await udpEchoTarget()
    await using server = await createServer({ host: both })
    expect(server).toMatchObject({ host: '127.0.0.1', address: `pipe://127.0.0.1:${server.port}` })

    for (const host of both) {
      const endpoint = { host, port: server.port }
      await using tunnel = await openTunnel(target.port, { server: endpoint })
      await using udpTunnel = await openTunnel(udpTarget.url, { server: endpoint })
      for (const from of both) {
        expect((await ask({ host: from, port: tunnel.port }, from)).toString()).toBe(from)
        await using visitor = await udpVisitor({ host: from, port: udpTunnel.port })
        expect((await visitor.ask(from)).toString()).toBe(from)
      }
    }
  })

  test('on two addresses gives both ports back when a tunnel closes', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ host: both })
    const tunnel = await openTunnel(target.port, { server })
    await tunnel.close()
    for (const host of both) {
      await expect(visit({ host, port: tunnel.port })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    }
    await using again = await openTunnel(target.port, { server, port: tunnel.port })
    for (const host of both) expect((await ask({ host, port: again.port }, host)).toString()).toBe(host)
  })

  test('closes on both', async () => {
    const server = await createServer({ host: both })
    await server.close()
    for (const host of both) {
      await expect(visit({ host, port: server.port })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    }
  })

  test('opens ports of a range on both', async () => {
    await using target = await echoTarget()
    await using first = await createServer({ host: both })
    await using server = await createServer({ host: both, ports: `${first.port}-${first.port + 1}` })
    const outcome = await openTunnel(target.port, { server }).catch(({ code }) => code)
    if (typeof outcome === 'string') {
      // Somebody has the other.
      expect(outcome).toBe('ports-exhausted')
      return
    }
    await using tunnel = outcome
    expect(tunnel.port).toBe(first.port + 1)
    for (const host of both) expect((await ask({ host, port: tunnel.port }, host)).toString()).toBe(host)
  })

  test('does not start where its port is taken on the second, and lets go of the first', async () => {
    await using other = await track(net.createServer(), { host: '::1', port: 0 })
    const starting = createServer({ host: both, port: other.port })

    await expect(starting).rejects.toMatchObject({ name: 'TunnelError', code: 'port-taken' })
    await expect(starting).rejects.toThrow(`[::1]:${other.port}`)
    await expect(visit({ port: other.port })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await using _free = await createServer({ port: other.port })
  })

  test('opens no tunnel where the port is taken on the second, and lets go of the first', async () => {
    await using other = await track(net.createServer(), { host: '::1', port: 0 })
    await using server = await createServer({ host: both })
    const opening = openTunnel(3000, { server, port: other.port })

    await expect(opening).rejects.toMatchObject({ code: 'port-taken' })
    await expect(opening).rejects.toThrow(`[::1]:${other.port}`)
    await expect(visit({ port: other.port })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(server.tunnels).toEqual([])
  })

  test('does not start where it has not the second address, and lets go of the first', async () => {
    await using free = await createServer()
    const { port } = free
    await free.close()
    await expect(createServer({ host: ['127.0.0.1', '2001:db8::1'], port, secret })).rejects.toMatchObject({
      code: 'address-unavailable',
    })
    await expect(visit({ port })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })
})

describe('the addresses of a server', () => {
  test('may be one in a list', async () => {
    await using server = await createServer({ host: ['127.0.0.1'] })
    expect(server.host).toBe('127.0.0.1')
    await using tunnel = await openTunnel(3000, { server })
    expect(tunnel.host).toBe('127.0.0.1')
  })

  test('count once where one is there twice', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ host: ['127.0.0.1', '127.0.0.1'] })
    await using tunnel = await openTunnel(target.port, { server })
    expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
  })

  test.each([[[]], [['']], [['127.0.0.1', '']], [[1]], [''], [3000], [null], [{}], [['127.0.0.1', null]]])(
    'are not %j',
    async (host) => {
      const starting = createServer({ host: host as string[] })
      await expect(starting).rejects.toMatchObject({ name: 'TunnelError', code: 'invalid-option' })
      await expect(starting).rejects.toThrow(/^host must be /)
    },
  )

  test.each<[NonNullable<ServerOptions['host']>, string]>([
    ['0.0.0.0', '0.0.0.0'],
    ['::', '::'],
    [['127.0.0.1', '0.0.0.0'], '0.0.0.0'],
    [['127.0.0.1', '::1', '192.0.2.1'], '192.0.2.1'],
    [['example.test', '127.0.0.1'], 'example.test'],
  ])('%j need a secret, because others reach them', async (host, open) => {
    const starting = createServer({ host })
    await expect(starting).rejects.toMatchObject({ code: 'insecure-address' })
    await expect(starting).rejects.toThrow(`${open} can be reached by others`)
  })

  test.each<ServerOptions>([{ secret }, { insecure: true }])(
    'may be open to others with %o',
    async (options) => {
      await using server = await createServer({ host: ['127.0.0.1', '0.0.0.0'].slice(1), ...options })
      await using target = await echoTarget()
      await using tunnel = await openTunnel(target.port, { server })
      expect((await ask({ port: tunnel.port }, 'hello')).toString()).toBe('hello')
    },
  )
})
