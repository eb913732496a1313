/** Sessions of our own at both ends of a link. */
import { once } from 'node:events'
import { describe, expect, test } from 'vitest'
import { readAll, sessionPair, waitFor } from './helpers/yamux.js'

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

  test('carries more than its window', async () => {
    await using pair = await sessionPair()
    const bytes = Buffer.alloc(5_000_000, 'abcdefg')
    pair.client.open().end(bytes)
    const far = await pair.accept()
    expect(bytes.equals(await readAll(far))).toBe(true)
  })

  test('that is reset breaks at the peer with ECONNRESET', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    near.write('x')
    const far = await pair.accept()
    near.reset()
    await waitFor(far, 'close')
    expect(far.errored).toMatchObject({ code: 'ECONNRESET' })
    expect([pair.client.streamCount, pair.server.streamCount]).toEqual([0, 0])
  })
})

describe('a session', () => {
  test('measures a round trip', async () => {
    await using pair = await sessionPair()
    expect(await pair.client.ping(5_000)).toBeGreaterThan(0)
    expect(pair.client.roundTrip).toBeLessThan(5_000)
  })

  test('that closes lets its streams finish', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    near.write('a')
    const far = await pair.accept()
    const closed = pair.server.close(30_000)
    near.end('b')
    expect(String(await readAll(far))).toBe('ab')
    far.end('c')
    expect(String(await readAll(near))).toBe('c')
    await closed
    expect(await pair.client.closed).toBeUndefined()
    expect(await pair.server.closed).toBeUndefined()
  })
})
