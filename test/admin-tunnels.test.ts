/** What a server shows of its tunnels, and closing one there. */
import { pEvent } from 'p-event'
import { createServer, openTunnel, type Server, type SocketAddress, type TunnelInfo } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { brokenLink } from './helpers/link.js'
import { RawPeer } from './helpers/raw-peer.js'
import { echoTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

const soon = { timeout: 30_000 }

/** The only tunnel of a server. */
function only(server: Server): TunnelInfo {
  const [info, ...others] = server.tunnels
  if (!info || others.length > 0) throw new Error(`the server has ${server.tunnels.length} tunnels`)
  return info
}

describe('a tunnel at its server', () => {
  test('has an id of its own, which outlives a loss of its client', async () => {
    await using server = await createServer()
    await using link = await brokenLink(server)
    await using first = await openTunnel(3000, { server: link.address })
    const { id } = only(server)
    const back = pEvent(first, 'reconnect')
    link.cut(0)
    await back

    await using _second = await openTunnel(3000, { server })
    const ids = server.tunnels.map((one) => one.id)
    expect(ids[0]).toBe(id)
    expect(new Set(ids).size).toBe(2)
    for (const one of ids) expect(one).toMatch(/^[0-9a-hjkmnp-tv-z]{8}$/)
  })

  test('counts its own visitors and bytes, also of those that are inside', async () => {
    await using server = await createServer()
    await using target = await echoTarget()
    await using one = await openTunnel(target.port, { server })
    await using _other = await openTunnel(target.port, { server })
    await ask(one, 'hello')
    const visitor = await visit(one)
    visitor.write('hi')
    await pEvent(visitor, 'data')

    const [counted, idle] = server.tunnels
    await vi.waitFor(() => expect(counted?.connections).toBe(1), soon)
    expect(counted?.stats).toEqual({ connections: 2, rejections: 0, bytesIn: 7, bytesOut: 7, drops: 0 })
    expect(idle?.stats).toEqual({ connections: 0, rejections: 0, bytesIn: 0, bytesOut: 0, drops: 0 })
    visitor.destroy()
  })

  test('counts visitors that are turned away', async () => {
    await using server = await createServer()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server })
    await target.stop()
    expect(await ending(await visit(tunnel))).toBe('reset')

    expect(only(server).stats.rejections).toBe(1)
  })

  test('tells of the heartbeats of its client', async () => {
    await using server = await createServer({ heartbeatInterval: 20, heartbeatTimeout: 60_000 })
    await using _tunnel = await openTunnel(3000, { server })
    const heard = await pEvent<'heartbeat', SocketAddress>(server, 'heartbeat')

    expect(heard).toEqual(only(server).client)
  })
})

describe('closing a tunnel at the server', () => {
  test('ends it at both ends, says why, and leaves the other tunnels', async () => {
    await using server = await createServer()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server })
    const info = only(server)
    await using other = await openTunnel(target.port, { server })
    const visitor = await visit(tunnel)
    visitor.write('hi')
    await pEvent(visitor, 'data')

    const cut = ending(visitor)
    await info.close()

    expect(await cut).toBe('reset')
    expect((await tunnel.closed)?.code).toBe('closed-by-server')
    expect((await info.closed)?.code).toBe('closed-by-server')
    expect(server.tunnels).toHaveLength(1)
    await expect(visit(tunnel)).rejects.toThrow('ECONNREFUSED')
    expect(`${await ask(other, 'still here')}`).toBe('still here')
  })

  test('lets visitors finish where they are given grace', async () => {
    await using server = await createServer()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server })
    const visitor = await visit(tunnel)
    visitor.write('hi')
    await pEvent(visitor, 'data')

    const closed = only(server).close({ grace: 60_000 })
    await tunnel.closed
    visitor.end(' there')
    expect(`${await pEvent(visitor, 'data')}`).toBe(' there')
    await closed
  })

  test('is said again to a client that was lost meanwhile, which does not get it back', async () => {
    await using server = await createServer()
    await using link = await brokenLink(server)
    await using tunnel = await openTunnel(3000, { server: link.address })
    const info = only(server)
    const lost = pEvent(server, 'disconnect')
    link.breakDown()
    await lost

    await info.close()
    link.heal()

    expect((await tunnel.closed)?.code).toBe('closed-by-server')
    expect(server.tunnels).toEqual([])
  })

  test('is said again where the word was lost with the control connection', async () => {
    await using server = await createServer()
    await using link = await brokenLink(server)
    await using tunnel = await openTunnel(3000, { server: link.address })
    link.stall()
    await only(server).close()
    link.heal()
    link.cut(0)

    expect((await tunnel.closed)?.code).toBe('closed-by-server')
    expect(server.tunnels).toEqual([])
  })

  test('frees its number for another tunnel of a client that has heard', async () => {
    await using server = await createServer()
    await using client = await RawPeer.connect(server)
    await client.logIn()
    const forward = { type: 'forward', tunnel: 7, protocol: 'tcp', port: 0 }
    client.send(forward)
    await client.receive('forwarded')
    await only(server).close()
    expect(await client.receive('closed')).toMatchObject({ tunnel: 7, code: 'closed-by-server' })

    client.send(forward)
    expect(await client.receive('forwarded')).toMatchObject({ tunnel: 7 })
  })

  test('does nothing where its client has closed it before', async () => {
    await using server = await createServer()
    const tunnel = await openTunnel(3000, { server })
    const info = only(server)
    await tunnel.close()

    await info.close()
    expect(await info.closed).toBeUndefined()
  })

  test('does it once for all who ask', async () => {
    await using server = await createServer()
    await using _tunnel = await openTunnel(3000, { server })
    const info = only(server)

    expect(info.close()).toBe(info.close())
    await expect(info.close({ grace: -1 })).rejects.toMatchObject({ code: 'invalid-option' })
    await info.close()
  })
})
