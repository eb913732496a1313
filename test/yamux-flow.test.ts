/** Who may send how much, and when: windows, fairness, back-pressure. */
import { once } from 'node:events'
import { describe, expect, test } from 'vitest'
import { FrameDecoder, type Header, Type } from '../src/yamux/frame.js'
import { YamuxSession } from '../src/yamux/session.js'
import { memoryLink, readAll, sessionPair, waitFor } from './helpers/yamux.js'

const KiB = 1_024
const MiB = 1_048_576

describe('a stream whose reader does not read', () => {
  test('takes no more than its window and its own buffer, and goes on when the reader does', async () => {
    await using pair = await sessionPair()
    const near = pair.client.open()
    const chunk = Buffer.alloc(64 * KiB, 'x')
    let [taken, sent] = [0, 0]
    do taken += chunk.length
    while (near.write(chunk, () => (sent += chunk.length)) || (await drains(near, pair)))

    expect(sent).toBe(256 * KiB)
    expect(taken).toBeLessThanOrEqual(256 * KiB + near.writableHighWaterMark + chunk.length)

    const far = await pair.accept()
    // A piece of less than 1 KiB may be at the end, and is kept apart.
    expect(far.readableLength).toBeGreaterThan(255 * KiB)
    expect(far.readableLength).toBeLessThanOrEqual(256 * KiB)
    near.end()
    expect((await readAll(far)).length).toBe(taken)
  })

  test('holds up no other', async () => {
    await using pair = await sessionPair()
    pair.client.open().write(Buffer.alloc(10 * MiB))
    await pair.accept()
    pair.client.open().end('hello')
    const far = await pair.accept()
    expect(String(await readAll(far))).toBe('hello')
  })

  /** Whether it can be written to again, before both ends have nothing more to say. */
  async function drains(stream: Parameters<typeof waitFor>[0], { client }: { client: YamuxSession }) {
    const rest = async () => {
      // What the peer grants would come in front of the second answer.
      for (let round = 0; round < 2; round++) await client.ping(30_000)
      return false
    }
    return Promise.race([waitFor(stream, 'drain').then(() => true), rest()])
  }
})

describe('streams take turns', () => {
  test('so that a small one waits for one turn of a large one', async () => {
    const [near, far] = memoryLink()
    const session = new YamuxSession(near, { role: 'client' })
    const frames = collectFrames(far)
    const bulk = session.open()
    bulk.write(Buffer.alloc(10 * MiB))
    await expect.poll(() => near.writableNeedDrain).toBe(true)
    const before = near.writableLength
    const small = session.open()
    small.write('hello')
    await new Promise((resolve) => setImmediate(resolve))
    expect(near.writableLength).toBe(before)

    // All that was handed to the link before, and one turn.
    far.resume()
    await expect.poll(() => frames.find(({ id }) => id === small.id)).toBeDefined()
    const ahead = frames.slice(
      0,
      frames.findIndex(({ id }) => id === small.id),
    )
    expect(ahead.reduce((sum, { length }) => sum + length, 0)).toBeLessThanOrEqual(before + 64 * KiB)
    session.destroy()
  })

  test('and a lone one sends all that it may in one frame', async () => {
    const [near, far] = memoryLink()
    const session = new YamuxSession(near, { role: 'client' })
    const frames = collectFrames(far)
    far.resume()
    session.open().write(Buffer.alloc(10 * MiB))
    await expect
      .poll(() => frames.filter(({ type }) => type === Type.data))
      .toMatchObject([{ length: 256 * KiB }])
    session.destroy()
  })

  test('so that large ones get the same', async () => {
    const [near, far] = memoryLink()
    const session = new YamuxSession(near, { role: 'client' })
    const frames = collectFrames(far)
    for (let count = 0; count < 3; count++) session.open().write(Buffer.alloc(10 * MiB))
    far.resume()
    await expect.poll(() => frames.reduce((sum, { length }) => sum + length, 0)).toBe(3 * 256 * KiB)
    const turns = frames.filter(({ type }) => type === Type.data).map(({ id }) => id)
    expect(turns).toEqual(Array.from({ length: 12 }, (_, turn) => [1, 3, 5][turn % 3]))
    session.destroy()
  })
})

describe('over a link with a round trip of 40 ms', () => {
  test('a window grows as far as the link can use it', async () => {
    expect(await mostUnderway({ streams: 1, enough: 4 * MiB })).toBeGreaterThanOrEqual(4 * MiB)
  })

  test('a window grows to its limit and no further', async () => {
    const most = await mostUnderway({ streams: 1, enough: MiB / 2, maxWindow: MiB })
    expect(most).toBeLessThan(MiB + 64 * KiB)
  })

  test('all windows together grow to their limit and no further', async () => {
    const most = await mostUnderway({ streams: 4, enough: 1.5 * MiB, maxGrowth: MiB })
    expect(most).toBeLessThan(2 * MiB + 64 * KiB)
  })

  test('a window stays as it is where the reader is what is slow', async () => {
    await using pair = await sessionPair({}, memoryLink({ delay: 20 }))
    const near = pair.client.open()
    near.end(Buffer.alloc(2 * MiB))
    const far = await pair.accept()
    let most = 0
    for (let read = 0; read < 2 * MiB; ) {
      // Nothing is waited for: this is a reader that takes its time, more than two round trips for each piece.
      await new Promise((resolve) => setTimeout(resolve, 50))
      most = Math.max(most, far.readableLength)
      read += far.read(Math.min(far.readableLength, 64 * KiB))?.length ?? 0
    }
    expect(most).toBeLessThanOrEqual(256 * KiB)
  })

  /** Sends until enough bytes were on their way at a time, and 4 MiB more on each stream; tells how many they were at most. */
  async function mostUnderway({ streams, enough, ...server }: Transfer): Promise<number> {
    const link = memoryLink({ delay: 20 })
    await using pair = await sessionPair({ server }, link)
    const all = Array.from({ length: streams }, async () => {
      const near = pair.client.open()
      const far = await pair.accept()
      far.resume()
      const chunk = Buffer.alloc(64 * KiB)
      while (link[0].mostUnderway < enough) if (!near.write(chunk)) await once(near, 'drain')
      near.end(Buffer.alloc(4 * MiB))
      await waitFor(far, 'end')
    })
    await Promise.all(all)
    return link[0].mostUnderway
  }

  interface Transfer {
    streams: number
    enough: number
    maxWindow?: number
    maxGrowth?: number
  }
})

/** The headers of all frames that come out of a link, as they come. */
function collectFrames(link: NodeJS.ReadableStream): Header[] {
  const frames: Header[] = []
  const decoder = new FrameDecoder({
    onFrame: (frame) => frames.push(frame),
    onPayload: () => {},
    onViolation: (reason) => expect.fail(reason),
  })
  link.on('data', (chunk) => decoder.decode(chunk))
  link.pause()
  return frames
}
