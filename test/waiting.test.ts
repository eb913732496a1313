/** What a visitor lives through before its exchange is made: the client here is a raw peer that takes its time. */
import { once } from 'node:events'
import { pEvent } from 'p-event'
import { createServer, openTunnel, type Rejection, type ServerOptions } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { RawPeer } from './helpers/raw-peer.js'
import { echoTarget, readAll, tcpTarget } from './helpers/targets.js'
import { ending, settled, visit } from './helpers/visitor.js'

/** A server with a raw client and its tunnel. */
async function withTunnel(options: ServerOptions = {}) {
  const server = await createServer(options)
  const client = await RawPeer.connect(server)
  await client.logIn(options.secret)
  const address = await client.forward()
  return {
    server,
    client,
    address,
    rejected: pEvent<'reject', Rejection>(server, 'reject'),
    async [Symbol.asyncDispose]() {
      await client.close()
      await server.close()
    },
  }
}

describe('a visitor that waits', () => {
  test('is announced with its address, and joined to the data stream that names it', async () => {
    await using world = await withTunnel()
    const visitor = await visit(world.address)
    visitor.write('question')

    const exchange = await world.client.receive('exchange')
    expect(exchange).toMatchObject({ tunnel: 1, address: '127.0.0.1', port: visitor.localPort })
    await using dataStream = await RawPeer.dataStream(world.server, exchange.id)
    expect((await dataStream.read(8)).toString()).toBe('question')
    dataStream.write(Buffer.from('answer')).end()
    expect((await once(visitor, 'data')).toString()).toBe('answer')
  })

  test('loses nothing that came behind the exchange message, nor what was sent before it was joined', async () => {
    await using world = await withTunnel()
    const visitor = await visit(world.address)
    const question = Buffer.alloc(3_000_000, 'q')
    visitor.end(question)

    const { id } = await world.client.receive('exchange')
    const json = JSON.stringify({ type: 'exchange', id })
    const header = Buffer.alloc(4)
    header.writeUInt32BE(json.length)
    await using dataStream = await RawPeer.connect(world.server)
    // One write: the message and the first bytes of the target.
    dataStream.write(Buffer.concat([header, Buffer.from(`${json}first bytes`)])).end()
    await dataStream.receive('joined')

    expect((await once(visitor, 'data')).toString()).toBe('first bytes')
    expect((await dataStream.read(question.length)).equals(question)).toBe(true)
    expect(await dataStream.ended()).toBe('end')
  })

  test('is not read from, but for the little that the socket holds', async () => {
    await using world = await withTunnel()
    const visitor = await visit(world.address)
    const joined = pEvent(world.server, 'connection')
    visitor.write(Buffer.alloc(64_000_000))
    const { id } = await world.client.receive('exchange')

    // A write counts until all of it has left; the kernel takes a few MiB, and the rest stays with the visitor.
    expect(await settled(() => visitor.writableLength)).toBe(64_000_000)

    await using dataStream = await RawPeer.dataStream(world.server, id)
    await joined
    await vi.waitFor(() => expect(visitor.writableLength).toBe(0), { timeout: 30_000 })
    expect(dataStream.socket.destroyed).toBe(false)
  })

  test('is forgotten when it leaves first', async () => {
    await using world = await withTunnel()
    const visitor = await visit(world.address)
    const { id } = await world.client.receive('exchange')
    visitor.resetAndDestroy()

    expect((await world.rejected).error.code).toBe('visitor-left')
    await using late = await RawPeer.exchange(world.server, id)
    expect(await late.refusal()).toMatchObject({ code: 'exchange-expired' })
  })

  test('that has finished sending has not left', async () => {
    await using world = await withTunnel()
    const visitor = await visit(world.address)
    visitor.end('the whole question')
    const { id } = await world.client.receive('exchange')

    await using dataStream = await RawPeer.dataStream(world.server, id)
    expect((await dataStream.read(18)).toString()).toBe('the whole question')
    expect(await dataStream.ended()).toBe('end')
    dataStream.write(Buffer.from('answer')).end()
    expect((await once(visitor, 'data')).toString()).toBe('answer')
  })

  test('is reset when its exchange expires', async () => {
    await using world = await withTunnel({ exchangeTimeout: 50 })
    const visitor = await visit(world.address)
    const { id } = await world.client.receive('exchange')

    expect(await ending(visitor)).toBe('reset')
    expect(await world.rejected).toMatchObject({ id, error: { code: 'exchange-expired' } })
    await using late = await RawPeer.exchange(world.server, id)
    expect(await late.refusal()).toMatchObject({ code: 'exchange-expired' })
  })

  test('is reset at once when the client rejects it, with the reason', async () => {
    await using world = await withTunnel()
    const visitor = await visit(world.address)
    const { id } = await world.client.receive('exchange')
    world.client.send({ type: 'reject', tunnel: 1, id, code: 'target-unreachable', message: 'nobody home' })

    expect(await ending(visitor)).toBe('reset')
    expect(await world.rejected).toMatchObject({
      id,
      error: { code: 'target-unreachable', message: 'nobody home' },
    })
  })

  test('is reset when the tunnel closes, and when the client is gone', async () => {
    await using world = await withTunnel()
    const first = await visit(world.address)
    await world.client.receive('exchange')
    const other = await world.client.forward(2)
    const second = await visit(other)
    await world.client.receive('exchange')

    world.client.send({ type: 'close', tunnel: 1 })
    expect(await ending(first)).toBe('reset')
    expect(await world.client.receive('closed')).toMatchObject({ tunnel: 1, code: 'closed' })

    await world.client.close('reset')
    expect(await ending(second)).toBe('reset')
    await vi.waitFor(() => expect(world.server.tunnels).toEqual([]))
  })

  test('is one of so many; one more is turned away, and the others wait on', async () => {
    await using world = await withTunnel({ limits: { waiting: 2 } })
    const first = await visit(world.address)
    const { id } = await world.client.receive('exchange')
    await visit(world.address)
    await world.client.receive('exchange')

    expect(await visit(world.address).then(ending, ({ code }) => code)).toMatch(/reset/i)
    expect((await world.rejected).error.code).toBe('limit-reached')

    await using dataStream = await RawPeer.dataStream(world.server, id)
    dataStream.write(Buffer.from('welcome'))
    expect((await once(first, 'data')).toString()).toBe('welcome')
    // There is room again.
    await visit(world.address)
    await world.client.receive('exchange')
  })
})

describe('a data stream that the server refuses', () => {
  test('is told why, and the target never takes that for bytes of the visitor', async () => {
    const got: Promise<Buffer | Error>[] = []
    await using target = await tcpTarget((socket) => got.push(readAll(socket).catch((error: Error) => error)))
    await using server = await createServer({ limits: { newcomersPerAddress: 1 } })
    await using tunnel = await openTunnel(target.port, { server })
    const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')
    // Beside the one newcomer that may be, there is room for the data stream of a visitor that waits.
    await using other = await RawPeer.connect(server)
    await other.logIn()
    await using waiting = await RawPeer.connect(await other.forward())
    await other.receive('exchange')
    await using first = await RawPeer.connect(server)
    await using second = await RawPeer.connect(server)
    await using probe = await RawPeer.connect(server)
    expect(await probe.refusal()).toMatchObject({ code: 'limit-reached' })
    const left = pEvent(server, 'reject')
    await waiting.close('reset')
    await left
    expect([first, second].map(({ socket }) => socket.destroyed)).toEqual([false, false])

    expect(await ending(await visit(tunnel))).toBe('reset')
    expect((await rejected).error.code).toBe('limit-reached')
    expect(got).toHaveLength(1)
    expect(await got[0]).toBeInstanceOf(Error)
  })

  test('does not count as a connection: with grace, who was told of is inside and finishes', async () => {
    await using target = await echoTarget()
    for (let i = 0; i < 20; i++) {
      const tunnel = await openTunnel(target.port)
      const connected = pEvent(tunnel, 'connection')
      const visitor = await visit(tunnel)
      visitor.write('hello')
      await connected
      const closed = tunnel.close({ grace: 30_000 })
      visitor.end()
      expect((await readAll(visitor)).toString()).toBe('hello')
      await closed
    }
  })
})
