/** Sessions of our own at both ends of a link: how streams and sessions begin and end. */
import { once } from 'node:events'
import { describe, expect, test } from 'vitest'
import { YamuxSession } from '../src/yamux/session.js'
import { memoryLink, readAll, sessionPair, socketPair, waitFor } from './helpers/yamux.js'

describe('a stream', () => {
  test('carries bytes both ways, and each way ends by itself', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    near.write('question')
    const far = await pair.accept()
    const [question] = await once(far, 'data')
    expect(String(question)).toBe('question')
    far.end('answer')
    expect(String(await readAll(near))).toBe('answer')
    expect(near.writable).toBe(true)
    const rest = readAll(far)
    near.end(' and more')
    expect(String(await rest)).toBe(' and more')
    await Promise.all([waitFor(near, 'close'), waitFor(far, 'close')])
    expect([pair.client.streamCount, pair.server.streamCount]).toEqual([0, 0])
  })

  test('is opened by either side', async () => {
    await using pair = await sessionPair()
    for (const session of [pair.client, pair.server]) {
      session.open().end('hello')
      const far = await pair.accept()
      expect(String(await readAll(far))).toBe('hello')
    }
  })

  test('carries nothing at all', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    near.end()
    const far = await pair.accept()
    far.end()
    expect((await Promise.all([readAll(near), readAll(far)])).map(({ length }) => length)).toEqual([0, 0])
  })

  test('carries more than its window, in many writes and in one', async () => {
    await using pair = await sessionPair()
    const bytes = Buffer.alloc(5_000_000, 'abcdefg')
    const near = pair.client.open()
    near.write('')
    for (let at = 0; at < bytes.length; at += 1_000) near.write(bytes.subarray(at, at + 1_000))
    near.end(bytes)
    const got = await readAll(await pair.accept())
    expect(got.equals(Buffer.concat([bytes, bytes]))).toBe(true)
  })

  test('that nobody reads still ends, where nothing has come', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    near.end()
    const far = await pair.accept()
    far.end()
    await Promise.all([waitFor(near, 'close'), waitFor(far, 'close')])
  })

  test('that is destroyed breaks at the peer with ECONNRESET', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    near.write('x')
    const far = await pair.accept()
    const written = new Promise((resolve) => near.write(Buffer.alloc(1_000_000), resolve))
    near.destroy()
    await waitFor(far, 'close')
    expect(far.errored).toMatchObject({ code: 'ECONNRESET' })
    expect(near.errored).toBeNull()
    await written
    expect([pair.client.streamCount, pair.server.streamCount]).toEqual([0, 0])
  })

  test('gives small pieces of a large chunk memory of their own', async () => {
    await using pair = await sessionPair()
    const large = pair.client.open()
    const small = pair.client.open()
    large.write(Buffer.alloc(60_000))
    small.write('hello')
    const farLarge = await pair.accept()
    farLarge.resume()
    const [piece] = await once(await pair.accept(), 'data')
    expect(String(piece)).toBe('hello')
    expect(piece.buffer.byteLength).toBeLessThan(60_000)
  })

  test('whose reader throws hurts no other', async () => {
    await using pair = await sessionPair()
    const thrown = new Promise((resolve) => process.once('uncaughtException', resolve))
    // Vitest would call the exception a failure.
    const others = process.listeners('uncaughtException').slice(0, -1)
    for (const other of others) process.off('uncaughtException', other)
    const [first, second] = [pair.client.open(), pair.client.open()]
    first.write('to who throws')
    second.write('to who does not')
    const bug = new Error('a bug')
    const [farFirst, farSecond] = [await pair.accept(), await pair.accept()]
    farFirst.on('data', () => {
      throw bug
    })
    expect(await thrown).toBe(bug)
    for (const other of others) process.on('uncaughtException', other)
    farSecond.end()
    second.end(' at all')
    expect(String(await readAll(farSecond))).toBe('to who does not at all')
  })
})

describe('streams that the peer does not accept', () => {
  test('wait when they are more than its backlog', async () => {
    await using pair = await sessionPair({ client: { acceptBacklog: 2 } })
    const streams = Array.from({ length: 100 }, (_, index) => {
      const stream = pair.client.open()
      stream.end(String(index))
      return stream
    })
    streams[50]?.destroy()
    for (let index = 0; index < 100; index++) {
      if (index === 50) continue
      expect(String(await readAll(await pair.accept()))).toBe(String(index))
    }
  })

  test('because they are too many are reset', async () => {
    await using pair = await sessionPair({ server: { maxStreams: 2 } })
    const streams = [pair.client.open(), pair.client.open(), pair.client.open()] as const
    await waitFor(streams[2], 'close')
    expect(streams[2].errored).toMatchObject({ code: 'ECONNRESET' })
    expect(streams.map(({ destroyed }) => destroyed)).toEqual([false, false, true])
  })

  test('because it takes none are reset', async () => {
    await using pair = await sessionPair({ server: { onStream: undefined } })
    const stream = pair.client.open()
    await waitFor(stream, 'close')
    expect(stream.errored).toMatchObject({ code: 'ECONNRESET' })
  })
})

test('20,000 streams are reset at once', async () => {
  await using pair = await sessionPair({ client: { acceptBacklog: 20_000 }, server: { maxStreams: 20_000 } })
  const streams = Array.from({ length: 20_000 }, () => pair.client.open())
  await expect.poll(() => pair.server.streamCount, { timeout: 30_000 }).toBe(20_000)
  for (const stream of streams) stream.destroy()
  expect(pair.client.streamCount).toBe(0)
  await expect.poll(() => pair.server.streamCount, { timeout: 30_000 }).toBe(0)
  expect(await pair.client.ping(30_000)).toBeGreaterThan(0)
})

describe('a session', () => {
  test('measures round trips', async () => {
    await using pair = await sessionPair({}, memoryLink({ delay: 10 }))
    expect(await pair.client.ping(30_000)).toBeGreaterThan(15)
    expect(pair.client.roundTrip).toBeGreaterThan(15)
  })

  test('gives up a ping that is not answered in time', async () => {
    const [near] = memoryLink()
    const session = new YamuxSession(near, { role: 'client' })
    await expect(session.ping(10)).rejects.toMatchObject({ code: 'timeout' })
    session.destroy()
    await expect(session.ping(30_000)).rejects.toMatchObject({ code: 'session-closed' })
  })

  test('that closes lets its streams finish, and opens no more', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    near.write('a')
    const far = await pair.accept()
    const closed = pair.server.close(30_000)
    near.end('b')
    expect(String(await readAll(far))).toBe('ab')
    const late = [pair.client.open(), pair.server.open()] as const
    await Promise.all(late.map((stream) => waitFor(stream, 'close')))
    for (const { errored } of late) expect(errored).toMatchObject({ code: 'session-closed' })
    far.end('c')
    expect(String(await readAll(near))).toBe('c')
    await closed
    expect([await pair.client.closed, await pair.server.closed]).toEqual([undefined, undefined])
  })

  test('that closes cuts streams when the time is up', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    near.write('a')
    const far = await pair.accept()
    await Promise.all([pair.server.close(10), pair.server.close(30_000)])
    await waitFor(near, 'close')
    expect(far.errored).toMatchObject({ code: 'session-closed' })
    expect(near.errored).toMatchObject({ code: 'ECONNRESET' })
    expect([await pair.client.closed, await pair.server.closed]).toEqual([undefined, undefined])
  })

  test('that is destroyed tells its streams and pings why', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    near.write('a')
    const far = await pair.accept()
    const reason = new Error('enough')
    const ping = pair.client.ping(30_000)
    pair.client.destroy(reason)
    await expect(ping).rejects.toBe(reason)
    await Promise.all([waitFor(near, 'close'), waitFor(far, 'close')])
    expect(near.errored).toBe(reason)
    expect(far.errored).toBeInstanceOf(Error)
    expect(await pair.client.closed).toBe(reason)
    expect(await pair.server.closed).toMatchObject({ code: 'link-lost' })
  })

  test('ends with its link, and so do its streams', async () => {
    const [near, far] = await socketPair()
    await using pair = await sessionPair({}, [near, far])
    const stream = pair.client.open()
    stream.write('a')
    const other = await pair.accept()
    far.resetAndDestroy()
    await Promise.all([waitFor(stream, 'close'), waitFor(other, 'close')])
    expect(stream.errored).toMatchObject({ code: 'link-lost', cause: { code: 'ECONNRESET' } })
    expect(await pair.client.closed).toMatchObject({ code: 'link-lost' })
    expect(await pair.server.closed).toMatchObject({ code: 'link-lost' })
  })

  test.each([
    ['', ''],
    ['0002', ' in the middle of a frame'],
    ['000000000000000100000005ff', ' in the middle of a frame'],
  ])('tells of a link that ends behind the bytes «%s»', async (hex, where) => {
    const [near, far] = await socketPair()
    const session = new YamuxSession(near, { role: 'client' })
    const stream = session.open()
    far.resume().end(Buffer.from(hex, 'hex'))
    await waitFor(stream, 'close')
    expect(await session.closed).toMatchObject({ message: `the peer ended the link${where}` })
    expect(stream.errored).toBe(await session.closed)
  })

  test('over a link that has ended already ends at once', async () => {
    const [near, far] = await socketPair()
    near.resume()
    far.resume().end()
    await once(near, 'end')
    expect(await new YamuxSession(near, { role: 'client' }).closed).toMatchObject({ code: 'link-lost' })
    expect(await new YamuxSession(near, { role: 'client' }).closed).toMatchObject({ code: 'link-lost' })
  })

  test('whose listener throws goes on', async () => {
    const bug = new Error('a bug')
    const thrown = new Promise((resolve) => process.once('uncaughtException', resolve))
    const others = process.listeners('uncaughtException').slice(0, -1)
    for (const other of others) process.off('uncaughtException', other)
    await using pair = await sessionPair({
      server: {
        onStream() {
          throw bug
        },
      },
    })
    pair.client.open()
    expect(await thrown).toBe(bug)
    for (const other of others) process.on('uncaughtException', other)
    expect(await pair.client.ping(30_000)).toBeGreaterThan(0)
  })
})
