import { Duplex, duplexPair } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { TunnelError } from 'pipe-tunnel'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { clientChannel, serverChannel } from '../src/channel.js'
import { encode, type FromClient } from '../src/protocol.js'
import { relay } from '../src/relay.js'
import { readAll } from './helpers/targets.js'

const id = '6fa459ea-ee8a-4ca4-894e-db77e160355e'
const messages: FromClient[] = [
  { type: 'hello', version: 1, nonce: '0'.repeat(64) },
  { type: 'heartbeat' },
  { type: 'reject', tunnel: 1, id, code: 'target-unreachable', message: 'zu früh' },
  { type: 'exchange', id },
]
/** What comes behind the last message: it looks like a message, and is not one. */
const tail = Buffer.from('\0\0\0\x02{}GET / HTTP/1.1\r\n\r\n')
const glued = Buffer.concat([...messages.map(encode), tail])

/** A server's channel, and the stream at its other end. */
function connect() {
  const [stream, peer] = duplexPair()
  peer.on('error', () => {})
  return { channel: serverChannel(stream), stream, peer }
}

describe('a channel', () => {
  test('takes messages glued into one write apart, and leaves the bytes behind them', async () => {
    const { channel, peer } = connect()
    peer.end(glued)

    for (const message of messages) expect(await channel.receive()).toEqual(message)

    expect(await readAll(channel.release())).toEqual(tail)
  })

  test('does so wherever the bytes are split', async () => {
    for (let at = 0; at <= glued.length; at++) {
      const { channel, peer } = connect()
      const received = receiveAll(channel)
      peer.write(glued.subarray(0, at))
      await turn()
      peer.end(glued.subarray(at))

      expect(await received, `split at ${at}`).toEqual({ messages, tail })
    }
  })

  test('does so byte by byte', async () => {
    const { channel, peer } = connect()
    const received = receiveAll(channel)
    for (const byte of glued) {
      peer.write(Buffer.of(byte))
      await turn()
    }
    peer.end()

    expect(await received).toEqual({ messages, tail })
  })

  test('sends messages both ways', async () => {
    const [atServer, atClient] = duplexPair()
    const server = serverChannel(atServer)
    const client = clientChannel(atClient)

    client.send({ type: 'close', tunnel: 7 })
    server.send({ type: 'heartbeat' })

    expect(await server.receive()).toEqual({ type: 'close', tunnel: 7 })
    expect(await client.receive()).toEqual({ type: 'heartbeat' })
  })

  test('takes the longest message and refuses a longer one by its length alone', async () => {
    const { channel, stream, peer } = connect()
    const longest = Buffer.from(JSON.stringify({ type: 'heartbeat', x: 'x'.repeat(65_509) }))
    peer.write(Buffer.concat([Buffer.from('00010000', 'hex'), longest]))
    expect(await channel.receive()).toEqual({ type: 'heartbeat' })

    peer.write(Buffer.from('00010001', 'hex'))
    await expect(channel.receive()).rejects.toMatchObject({ code: 'protocol-violation' })
    expect(stream.readableHighWaterMark).toBeLessThanOrEqual(65_536)
  })

  test('tells the end between two messages from one in the middle of a message', async () => {
    const bytes = encode({ type: 'close', tunnel: 7 })
    for (let length = 0; length < bytes.length; length++) {
      const { channel, peer } = connect()
      peer.end(bytes.subarray(0, length))

      if (length === 0) expect(await channel.receive()).toBeUndefined()
      else await expect(channel.receive(), `${length}`).rejects.toMatchObject({ code: 'connection-lost' })
    }
  })

  test('gives what came before the end, and then the end', async () => {
    const { channel, peer } = connect()
    peer.end(encode({ type: 'heartbeat' }))

    expect(await channel.receive()).toEqual({ type: 'heartbeat' })
    expect(await channel.receive()).toBeUndefined()
    expect(await channel.receive()).toBeUndefined()
  })

  test('rejects with the error of a stream that breaks, now and later', async () => {
    const { channel, stream } = connect()
    const broken = new Error('ECONNRESET')
    stream.on('error', () => {})
    const receiving = expect(channel.receive()).rejects.toBe(broken)
    stream.destroy(broken)

    await receiving
    await expect(channel.receive()).rejects.toBe(broken)
  })

  test('rejects when the stream is closed without a word', async () => {
    const { channel, stream } = connect()
    const receiving = expect(channel.receive()).rejects.toMatchObject({ code: 'connection-lost' })
    stream.destroy()

    await receiving
  })
})

describe('what comes behind the messages', () => {
  test('is relayed, before the release and after it, and the other way too', async () => {
    const { channel, peer } = connect()
    const [target, atTarget] = duplexPair()
    peer.write(Buffer.concat([encode({ type: 'exchange', id }), tail]))
    expect(await channel.receive()).toEqual({ type: 'exchange', id })
    await turn()

    const ended = relay(channel.release(), target)
    const requests = readAll(atTarget)
    const replies = readAll(peer)
    peer.end('more')
    atTarget.end('reply')

    expect(await requests).toEqual(Buffer.concat([tail, Buffer.from('more')]))
    expect((await replies).toString()).toBe('reply')
    expect(await ended).toEqual({ bytesIn: tail.length + 4, bytesOut: 5 })
  })

  test('is relayed even where it is nothing but the end, and that has been seen', async () => {
    const { channel, stream, peer } = connect()
    const [target, atTarget] = duplexPair()
    peer.end(encode({ type: 'exchange', id }))
    await channel.receive()
    // A socket does this by itself when a FIN arrives.
    stream.read(0)
    await turn()
    expect(stream.readableEnded).toBe(true)

    const ended = relay(channel.release(), target)
    const replies = readAll(peer)
    expect(await readAll(atTarget)).toEqual(Buffer.alloc(0))
    atTarget.end('reply')

    expect((await replies).toString()).toBe('reply')
    expect(await ended).toEqual({ bytesIn: 0, bytesOut: 5 })
  })

  test('comes by data events, and goes to nobody else', async () => {
    const { channel, stream, peer } = connect()
    peer.write(encode({ type: 'exchange', id }))
    await channel.receive()
    const waiting = vi.fn()
    channel.receive().finally(waiting)

    expect(channel.release()).toBe(stream)
    const bytes = readAll(stream)
    stream.resume()
    peer.end(encode({ type: 'heartbeat' }))

    expect(await bytes).toEqual(encode({ type: 'heartbeat' }))
    expect(waiting).not.toHaveBeenCalled()
  })
})

describe('an interruption', () => {
  const late = new TunnelError('timeout', 'too late')

  test('ends a wait and all later ones, even for what has come already', async () => {
    const { channel, peer } = connect()
    const receiving = expect(channel.receive()).rejects.toBe(late)
    channel.interrupt(late)
    await receiving

    peer.write(encode({ type: 'heartbeat' }))
    await turn()
    await expect(channel.receive()).rejects.toBe(late)
  })

  test('counts once', async () => {
    const { channel } = connect()
    channel.interrupt(late)
    channel.interrupt(new TunnelError('closed', 'later still'))

    await expect(channel.receive()).rejects.toBe(late)
  })

  test('leaves room for a last message', async () => {
    const { channel, peer } = connect()
    channel.interrupt(late)
    await expect(channel.receive()).rejects.toBe(late)
    channel.send({ type: 'heartbeat' })
    const finished = channel.finish()

    expect(await readAll(peer)).toEqual(encode({ type: 'heartbeat' }))
    peer.end()
    await finished
  })
})

describe('a peer that does not read', () => {
  test('is dropped before more than a mebibyte waits for it', async () => {
    const { channel, stream } = connect()
    stream.on('error', () => {})
    const receiving = expect(channel.receive()).rejects.toMatchObject({ code: 'limit-reached' })
    const message = { type: 'refuse', code: 'x', message: 'x'.repeat(1_000) } as const
    let most = 0
    let sent = 0
    for (; !stream.destroyed && sent < 10_000; sent++) {
      channel.send(message)
      most = Math.max(most, stream.writableLength)
    }

    expect(sent).toBeGreaterThan(1_000)
    expect(most).toBeGreaterThan(1_048_576)
    expect(most).toBeLessThanOrEqual(1_048_576 + encode(message).length)
    await receiving
    channel.send(message)
    await channel.finish()
  })

  test('is not dropped for being slow', async () => {
    const { channel, stream, peer } = connect()
    const replies = readAll(peer)
    for (let i = 0; i < 10_000; i++) {
      channel.send({ type: 'refuse', code: 'x', message: 'x'.repeat(1_000) })
      if (i % 500 === 0) await turn()
    }
    const finished = channel.finish()

    expect((await replies).length).toBe(
      10_000 * encode({ type: 'refuse', code: 'x', message: 'x'.repeat(1_000) }).length,
    )
    peer.end()
    await finished
    expect(stream.errored).toBeNull()
  })
})

test('what is sent in one turn leaves in one write, with the first bytes of who gets the stream then', async () => {
  const writes: Buffer[] = []
  const stream = new Duplex({
    read() {},
    writev(chunks, done) {
      writes.push(Buffer.concat(chunks.map(({ chunk }) => chunk)))
      done()
    },
  })
  const channel = serverChannel(stream)
  channel.send({ type: 'heartbeat' })
  channel.send({ type: 'joined' })
  channel.release().write('hello')
  expect(writes).toEqual([])
  await turn()

  stream.write('later')
  const together = [encode({ type: 'heartbeat' }), encode({ type: 'joined' }), Buffer.from('hello')]
  expect(writes).toEqual([Buffer.concat(together), Buffer.from('later')])
})

describe('finish', () => {
  afterEach(() => {
    vi.useRealTimers()
  })

  test('hands over what was sent, throws away what still comes, and waits for the peer to end', async () => {
    const { channel, stream, peer } = connect()
    channel.send({ type: 'heartbeat' })
    const finished = channel.finish()
    const closed = vi.fn()
    finished.then(closed)

    expect(await readAll(peer)).toEqual(encode({ type: 'heartbeat' }))
    await new Promise((resolve) => peer.write(Buffer.alloc(1_000_000), resolve))
    expect(closed).not.toHaveBeenCalled()
    peer.end()
    await finished
    expect(stream.errored).toBeNull()
  })

  test('gives a peer that does not end a second', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const { channel, stream } = connect()
    const finished = channel.finish()

    await vi.advanceTimersByTimeAsync(999)
    expect(stream.destroyed).toBe(false)
    await vi.advanceTimersByTimeAsync(1)
    await finished
    expect(stream.closed).toBe(true)
  })

  test('has nothing to wait for where the stream is closed', async () => {
    const { channel, stream } = connect()
    stream.destroy()
    await turn()

    await channel.finish()
    expect(stream.closed).toBe(true)
  })
})

/** All messages up to the exchange, and then all bytes. */
async function receiveAll(channel: ReturnType<typeof serverChannel>) {
  const received: unknown[] = []
  for (;;) {
    const message = await channel.receive()
    received.push(message)
    if (!message || message.type === 'exchange') break
  }
  return { messages: received, tail: await readAll(channel.release()) }
}
