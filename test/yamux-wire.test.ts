/** Frames as bytes: what a session says, what it understands, and what it does not put up with. */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { describe, expect, test, vi } from 'vitest'
import { FrameDecoder, HEADER, type Header, Type, writeHeader } from '../src/yamux/frame.js'
import { YamuxSession } from '../src/yamux/session.js'
import type { YamuxStream } from '../src/yamux/stream.js'
import { readAll, type SessionOptions, socketPair, waitFor } from './helpers/yamux.js'

const frames: [name: string, hex: string, header: Header, payload?: string][] = [
  ['data', '00 00 0000 00000001 00000005 68656c6c6f', { type: 0, flags: 0, id: 1, length: 5 }, 'hello'],
  ['data that opens', '00 00 0001 00000003 00000001 78', { type: 0, flags: 1, id: 3, length: 1 }, 'x'],
  [
    'data that accepts',
    '00 00 0002 fffffffe 00000001 79',
    { type: 0, flags: 2, id: 0xfffffffe, length: 1 },
    'y',
  ],
  ['an end', '00 01 0004 00000002 00000000', { type: 1, flags: 4, id: 2, length: 0 }],
  ['a reset', '00 01 0008 00000002 00000000', { type: 1, flags: 8, id: 2, length: 0 }],
  ['empty data', '00 00 0004 00000009 00000000', { type: 0, flags: 4, id: 9, length: 0 }],
  ['a window update', '00 01 0000 00000007 00040000', { type: 1, flags: 0, id: 7, length: 262_144 }],
  ['a ping', '00 02 0001 00000000 0000002a', { type: 2, flags: 1, id: 0, length: 42 }],
  ['its answer', '00 02 0002 00000000 0000002a', { type: 2, flags: 2, id: 0, length: 42 }],
  ['a go-away', '00 03 0000 00000000 00000002', { type: 3, flags: 0, id: 0, length: 2 }],
]
const bytesOf = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex')

describe('frames', () => {
  test.each(frames)('%s: written as %s', (_, hex, header) => {
    const bytes = Buffer.alloc(12, 0xff)
    writeHeader(bytes, 0, header)
    expect(bytes).toEqual(bytesOf(hex).subarray(0, 12))
  })

  test.each(frames)('%s: read from %s, split anywhere', (_, hex, header, payload = '') => {
    const bytes = bytesOf(hex)
    for (let at = 0; at <= bytes.length; at++) {
      expect(decode(bytes.subarray(0, at), bytes.subarray(at))).toEqual([header, payload])
    }
  })

  test('of all kinds are read one after the other, byte by byte', () => {
    const bytes = Buffer.concat(frames.map(([, hex]) => bytesOf(hex)))
    const single = Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))
    const expected = frames.flatMap(([, , header, payload = '']) => [header, payload])
    expect(decode(...single)).toEqual(expected)
    expect(decode(bytes)).toEqual(expected)
  })

  test('hand on parts of the chunk, and copy nothing', () => {
    const chunk = bytesOf('00 00 0000 00000001 00000005 68656c6c6f')
    const parts: Buffer[] = []
    decoder({ onPayload: (bytes) => parts.push(bytes) }).decode(chunk)
    expect(parts.map(({ buffer, byteOffset }) => [buffer, byteOffset])).toEqual([
      [chunk.buffer, chunk.byteOffset + 12],
    ])
  })
})

describe('a client', () => {
  test('opens a stream with the data that it has', async () => {
    await using peer = await rawPeer({ role: 'client' })
    await peer.expect('00 02 0001 00000000 00000000')
    const stream = peer.session.open()
    stream.end('hi')
    await peer.expect('00 00 0001 00000001 00000002 6869', '00 01 0004 00000001 00000000')
    peer.send('00 00 0002 00000001 00000002 6f6b', '00 01 0004 00000001 00000000')
    expect(String(await readAll(stream))).toBe('ok')
    await waitFor(stream, 'close')
    expect(peer.session.streamCount).toBe(0)
  })

  test('opens streams without data, with odd numbers', async () => {
    await using peer = await rawPeer({ role: 'client' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.session.open()
    peer.session.open()
    await peer.expect('00 01 0001 00000001 00000000', '00 01 0001 00000003 00000000')
  })

  test('says nothing of a stream that is cut before its turn', async () => {
    await using peer = await rawPeer({ role: 'client' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.session.open().destroy()
    peer.session.open()
    await peer.expect('00 01 0001 00000003 00000000')
  })
})

describe('a server', () => {
  test('accepts a stream, ends it and resets another', async () => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.send('00 01 0001 00000005 00000000')
    await peer.expect('00 01 0002 00000005 00000000')
    peer.streams[0]?.end()
    await peer.expect('00 01 0004 00000005 00000000')
    peer.send('00 01 0001 00000007 00000000')
    await peer.expect('00 01 0002 00000007 00000000')
    peer.streams[1]?.destroy()
    await peer.expect('00 01 0008 00000007 00000000')
  })

  test('accepts with the first data that it sends', async () => {
    await using peer = await rawPeer({ role: 'server', onStream: (stream) => stream.end('welcome') })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.send('00 00 0001 00000001 00000001 78')
    await peer.expect('00 00 0002 00000001 00000007 77656c636f6d65', '00 01 0004 00000001 00000000')
  })

  test('opens streams with even numbers', async () => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.session.open()
    peer.session.open()
    await peer.expect('00 01 0001 00000002 00000000', '00 01 0001 00000004 00000000')
  })

  test('answers a ping with its number', async () => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.send('00 02 0001 00000000 deadbeef')
    await peer.expect('00 02 0002 00000000 deadbeef')
  })

  test('resets a stream that is one too many, and accepts again when one is gone', async () => {
    await using peer = await rawPeer({ role: 'server', maxStreams: 1 })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.send('00 01 0001 00000001 00000000', '00 00 0001 00000003 00000002 6869')
    await peer.expect('00 01 0008 00000003 00000000', '00 01 0002 00000001 00000000')
    peer.send('00 01 0008 00000001 00000000', '00 01 0001 00000005 00000000')
    await peer.expect('00 01 0002 00000005 00000000')
  })

  test('says that it goes, and resets what comes then', async () => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.send('00 01 0001 00000001 00000000')
    await peer.expect('00 01 0002 00000001 00000000')
    const closed = peer.session.close(30_000)
    await peer.expect('00 03 0000 00000000 00000000')
    peer.send('00 01 0001 00000003 00000000')
    await peer.expect('00 01 0008 00000003 00000000')
    peer.send('00 01 0008 00000001 00000000')
    await once(peer.link, 'end')
    peer.link.end()
    await closed
    expect(await peer.session.closed).toBeUndefined()
  })

  test('grants anew what was read, once that is half of the window', async () => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.send('00 00 0001 00000001 0001ffff')
    peer.link.write(Buffer.alloc(131_071))
    await peer.expect('00 01 0002 00000001 00000000')
    peer.send('00 02 0001 00000000 00000001')
    await peer.expect('00 02 0002 00000000 00000001')
    peer.streams[0]?.resume()
    peer.send('00 00 0000 00000001 00000001 78')
    await peer.expect('00 01 0000 00000001 00020000')
  })

  test.each([
    ['data', '00 00 0000 00000001 00000003 616263'],
    ['a window update', '00 01 0000 00000001 00000003'],
    ['an end', '00 01 0004 00000001 00000000'],
    ['a reset', '00 01 0008 00000001 00000000'],
    ['an acceptance', '00 01 0002 00000002 00000000'],
  ])('puts up with %s for a stream that is gone', async (_, hex) => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.send('00 01 0001 00000001 00000000', '00 01 0008 00000001 00000000', hex)
    peer.send('00 02 0001 00000000 00000007')
    await peer.expect('00 02 0002 00000000 00000007')
  })

  test('resets a stream on which data come behind the end', async () => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.send('00 01 0005 00000001 00000000')
    await peer.expect('00 01 0002 00000001 00000000')
    peer.send('00 00 0000 00000001 00000001 78')
    await peer.expect('00 01 0008 00000001 00000000')
    expect(peer.streams[0]?.errored).toMatchObject({ code: 'protocol-violation' })
  })
})

describe('the session ends, with the reason and a word to the peer,', () => {
  test.each([
    ['a frame of another version', ['01 00 0000 00000001 00000000'], 'version 1'],
    ['a frame of an unknown type', ['00 04 0000 00000001 00000000'], 'unknown type 4'],
    ['a stream of an even number', ['00 01 0001 00000002 00000000'], 'the number 2'],
    ['a stream of the number 0', ['00 01 0001 00000000 00000000'], 'the number 0'],
    [
      'a stream that is opened twice',
      ['00 01 0001 00000001 00000000', '00 01 0001 00000001 00000000'],
      'stream 1 once more',
    ],
    ['more data than the window allows', ['00 00 0001 00000001 00040001'], 'stream 1: 262145 bytes'],
    ['a window larger than can be', ['00 01 0001 00000001 ffffffff'], 'stream 1: its window'],
    ['a frame of 4 GiB for no stream', ['00 00 0000 00000001 ffffffff'], 'for no stream'],
  ])('at %s', async (_, sent, words) => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.send(...sent)
    const last = await readAll(peer.link)
    peer.link.end()
    // In front of it is at most what tells of the stream.
    expect(last.subarray(-HEADER)).toEqual(bytesOf('00 03 0000 00000000 00000001'))
    expect(last.length).toBeLessThanOrEqual(2 * HEADER)
    expect(await peer.session.closed).toMatchObject({
      code: 'protocol-violation',
      message: expect.stringContaining(words),
    })
    expect(peer.session.streamCount).toBe(0)
  })

  test('also where the peer neither reads nor ends', async () => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    peer.link.pause()
    peer.send('ff')
    peer.send('00'.repeat(11))
    expect(await peer.session.closed).toMatchObject({ code: 'protocol-violation' })
  })

  test.each([
    ['protocol error', '00000001', 'protocol-violation'],
    ['internal error', '00000002', 'link-lost'],
    ['unknown error', '00000009', 'link-lost'],
  ])('not, where the peer has said it: %s', async (_, code, reason) => {
    await using peer = await rawPeer({ role: 'server' })
    await peer.expect('00 02 0001 00000000 00000000')
    const stream = peer.session.open()
    await peer.expect('00 01 0001 00000002 00000000')
    peer.send(`00 03 0000 00000000 ${code}`)
    await waitFor(stream, 'close')
    expect(stream.errored).toMatchObject({ code: reason })
    peer.link.end()
    expect(await peer.session.closed).toMatchObject({ code: reason })
  })
})

describe('memory stays bounded', () => {
  test('where a peer asks for answers and does not read them', async () => {
    await using peer = await rawPeer({ role: 'server' })
    peer.link.pause()
    const pings = bytesOf('00 02 0001 00000000 00000000').toString('latin1').repeat(5_000)
    let isOver = false
    const closed = peer.session.closed.finally(() => {
      isOver = true
    })
    // The system takes some megabytes of answers before any waits in the session.
    for (let sent = 0; !isOver && sent < 2_000; sent++) {
      if (!peer.link.write(pings, 'latin1')) await Promise.race([once(peer.link, 'drain'), closed])
    }
    expect(await peer.session.closed).toMatchObject({ message: expect.stringContaining('does not read') })
  })

  test('where a peer sends bytes one by one, that nobody reads yet', async () => {
    await using peer = await rawPeer({ role: 'server' })
    const sent = Buffer.alloc(200_000).map((_, i) => i % 251)
    const frames = Buffer.alloc(12 + 13 * sent.length)
    writeHeader(frames, 0, { type: 1, flags: 1, id: 1, length: 0 })
    for (const [i, byte] of sent.entries()) {
      writeHeader(frames, 12 + 13 * i, { type: 0, flags: 0, id: 1, length: 1 })
      frames[12 + 13 * i + 12] = byte
    }
    peer.link.write(frames)
    await peer.heard()

    const chunks: Buffer[] = []
    const [stream] = peer.streams
    stream?.on('data', (chunk) => chunks.push(chunk))
    await vi.waitFor(() => expect(Buffer.concat(chunks).length).toBe(sent.length), { timeout: 20_000 })
    expect(Buffer.concat(chunks).equals(sent)).toBe(true)
    expect(chunks.length).toBeLessThan(1_000)
  })

  test('where a peer opens and resets streams as fast as it can', async () => {
    let open = 0
    let most = 0
    await using peer = await rawPeer({
      role: 'server',
      onStream(stream) {
        open++
        most = Math.max(most, open)
        stream.on('close', () => open--)
      },
    })
    for (let id = 1; id < 40_000; ) {
      const pairs = Buffer.alloc(24 * 1_000)
      for (let at = 0; at < pairs.length; at += 24, id += 2) {
        writeHeader(pairs, at, { type: 1, flags: 1, id, length: 0 })
        writeHeader(pairs, at + 12, { type: 1, flags: 8, id, length: 0 })
      }
      if (!peer.link.write(pairs)) await once(peer.link, 'drain')
    }
    await peer.heard()
    expect([open, peer.session.streamCount]).toEqual([0, 0])
    // No more than one chunk of the link can tell of.
    expect(most).toBeLessThan(262_144 / 24 + 1)
  })

  test('where a peer opens streams as fast as it can', async () => {
    await using peer = await rawPeer({ role: 'server', maxStreams: 100 })
    const opened = Buffer.alloc(12 * 10_000)
    for (let at = 0, id = 1; at < opened.length; at += 12, id += 2) {
      writeHeader(opened, at, { type: 1, flags: 1, id, length: 0 })
    }
    peer.link.write(opened)
    await peer.heard()
    expect([peer.streams.length, peer.session.streamCount]).toEqual([100, 100])
  })
})

/** What a decoder tells of these chunks, as pairs of header and payload. */
function decode(...chunks: Buffer[]): (Header | string)[] {
  const told: (Header | string)[] = []
  const one = decoder({
    onFrame: (frame) => told.push(frame, ''),
    onPayload: (bytes) => told.push(`${told.pop()}${bytes}`),
  })
  for (const chunk of chunks) one.decode(chunk)
  expect(one.isBetween).toBe(true)
  return told
}

function decoder(handler: { onFrame?(frame: Header): void; onPayload?(bytes: Buffer): void }): FrameDecoder {
  return new FrameDecoder({
    onFrame: () => {},
    onPayload: () => {},
    onViolation: (reason) => expect.fail(reason),
    ...handler,
  })
}

interface RawPeer extends AsyncDisposable {
  readonly session: YamuxSession
  readonly link: Socket
  /** Streams that the session has accepted. */
  readonly streams: YamuxStream[]
  send(...hex: string[]): void
  /** What the session sends next is this, and nothing else before it. */
  expect(...hex: string[]): Promise<void>
  /** Resolves when the session has heard all that was sent. It takes whatever the session has to say until then. */
  heard(): Promise<void>
}

/** A session, and a socket that leads to it. */
async function rawPeer(options: SessionOptions): Promise<RawPeer> {
  const [near, far] = await socketPair()
  const streams: YamuxStream[] = []
  const session = new YamuxSession(near, { onStream: (stream) => streams.push(stream), ...options })
  far.on('error', () => {})
  return {
    session,
    link: far,
    streams,
    send(...hex) {
      far.write(Buffer.concat(hex.map(bytesOf)))
    },
    async expect(...hex) {
      const wanted = Buffer.concat(hex.map(bytesOf))
      let got: Buffer | null = far.read(wanted.length)
      for (; !got; got = far.read(wanted.length)) await once(far, 'readable')
      expect(got.toString('hex')).toBe(wanted.toString('hex'))
    },
    async heard() {
      far.write(bytesOf('00 02 0001 00000000 0badcafe'))
      let isAnswered = false
      const frames = decoder({
        onFrame({ type, length }) {
          isAnswered ||= type === Type.ping && length === 0x0badcafe
        },
      })
      far.on('data', (chunk) => frames.decode(chunk))
      while (!isAnswered) await once(far, 'data')
    },
    async [Symbol.asyncDispose]() {
      session.destroy()
      far.destroy()
      await session.closed
    },
  }
}
