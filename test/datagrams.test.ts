import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { pEvent } from 'p-event'
import { type Connection, createServer, openTunnel, TunnelError } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { DatagramDecoder, encodeDatagrams } from '../src/datagrams.js'
import { fakeServer, type RawPeer } from './helpers/raw-peer.js'
import {
  framed,
  openAtFake,
  readDatagram,
  udpClient,
  udpEchoTarget,
  udpTarget,
  udpVisitor,
} from './helpers/udp.js'

/** The largest that UDP has over IPv6, where no header of IP counts. */
const MAX = 65_527

/** Bytes of a stream in hex, and the datagrams in them. */
const vectors: [string, string[]][] = [
  ['', []],
  ['0000', ['']],
  ['00026869', ['6869']],
  ['00026869 0000 0001ff', ['6869', '', 'ff']],
  ['0000 0000 0000', ['', '', '']],
  ['0004 00020000', ['00020000']],
  [`0100 ${'ab'.repeat(256)} 0001cd`, ['ab'.repeat(256), 'cd']],
]

describe('a datagram on a data stream', () => {
  test.each([
    ['', '0000'],
    ['6869', '00026869'],
    ['0000', '00020000'],
    ['ab'.repeat(256), `0100${'ab'.repeat(256)}`],
    ['00'.repeat(MAX), `fff7${'00'.repeat(MAX)}`],
  ])('is its length and its bytes (%#)', (datagram, bytes) => {
    expect(encodeDatagrams([hex(datagram)]).toString('hex')).toBe(bytes)
  })

  test.each(vectors)('follows the one before: %s', (bytes, datagrams) => {
    expect(encodeDatagrams(datagrams.map(hex))).toEqual(hex(bytes))
  })

  test.each(vectors)('comes out of the bytes %s wherever they are cut', (bytes, datagrams) => {
    const stream = hex(bytes)
    for (const first of cuts(stream)) {
      for (const second of cuts(stream).filter((one) => one >= first)) {
        const decoder = new DatagramDecoder()
        const chunks = [stream.subarray(0, first), stream.subarray(first, second), stream.subarray(second)]
        const out = chunks.flatMap((chunk) => decoder.decode(Buffer.from(chunk)))
        expect(out.map((one) => one.toString('hex'))).toEqual(datagrams)
        expect(decoder.isBetween).toBe(true)
      }
    }
  })

  test('comes out of bytes that arrive one by one', () => {
    const decoder = new DatagramDecoder()
    const stream = hex(vectors.map(([bytes]) => bytes).join(''))
    const out = [...stream].flatMap((byte) => decoder.decode(Buffer.of(byte)))

    expect(out.map((one) => one.toString('hex'))).toEqual(vectors.flatMap(([, datagrams]) => datagrams))
  })

  test.each([1, 2, 3, 4, 32_768, MAX, MAX + 1])(
    'of the greatest length comes out whole, cut at %i',
    (cut) => {
      const datagram = randomBytes(MAX)
      const stream = Buffer.concat([hex('fff7'), datagram])
      const decoder = new DatagramDecoder()

      expect(decoder.decode(stream.subarray(0, cut))).toEqual([])
      expect(decoder.isBetween).toBe(false)
      const [out] = decoder.decode(stream.subarray(cut))
      expect(out?.equals(datagram)).toBe(true)
      expect(decoder.isBetween).toBe(true)
    },
  )

  test.each([65_528, 65_529, 65_534, 65_535])('of length %i is a violation, wherever it is cut', (length) => {
    const stream = Buffer.concat([hex('00026869'), Buffer.from([length >> 8, length & 255]), randomBytes(10)])
    for (const cut of cuts(stream)) {
      const decoder = new DatagramDecoder()
      const decoding = () => {
        decoder.decode(stream.subarray(0, cut))
        decoder.decode(stream.subarray(cut))
      }
      expect(decoding).toThrow(TunnelError)
      expect(decoding).toThrow(expect.objectContaining({ code: 'protocol-violation' }))
      expect(decoding).toThrow(`${length}`)
    }
  })

  test.each([
    ['', true],
    ['00', false],
    ['0000', true],
    ['0001', false],
    ['0001ff', true],
    ['0001ff00', false],
  ])('may be cut off behind %s: %s', (bytes, isBetween) => {
    const decoder = new DatagramDecoder()
    decoder.decode(hex(bytes))
    expect(decoder.isBetween).toBe(isBetween)
  })

  test('comes out the same from any list of datagrams in any chunks', () => {
    const datagram = fc.oneof(
      fc.uint8Array({ maxLength: 8 }),
      fc.uint8Array({ maxLength: 600 }),
      fc.nat(MAX).map((size) => Buffer.alloc(size, size)),
    )
    const sizes = fc.array(fc.oneof(fc.nat(4), fc.nat(2_000), fc.nat(100_000)))
    fc.assert(
      fc.property(fc.array(datagram), sizes, (list, sizes) => {
        const datagrams = list.map((one) => Buffer.from(one))
        const decoder = new DatagramDecoder()
        const out = chunksOf(encodeDatagrams(datagrams), sizes).flatMap((chunk) => decoder.decode(chunk))
        expect(decoder.isBetween).toBe(true)
        expect(out.length).toBe(datagrams.length)
        expect(out.every((one, i) => one.equals(datagrams[i] as Buffer))).toBe(true)
      }),
    )
  })

  test('of random bytes is a datagram or a violation, and never more than one is held', () => {
    // High bytes now and then, so that lengths beyond the limit come up.
    const bytes = fc.array(
      fc.oneof(fc.uint8Array({ maxLength: 50 }), fc.constantFrom(hex('ffff'), hex('fff8'), hex('0000'))),
    )
    fc.assert(
      fc.property(bytes, fc.array(fc.nat(20)), (parts, sizes) => {
        const stream = Buffer.concat(parts)
        const decoder = new DatagramDecoder()
        let given = 0
        let taken = 0
        for (const chunk of chunksOf(stream, sizes)) {
          given += chunk.length
          try {
            for (const one of decoder.decode(chunk)) taken += 2 + one.length
          } catch (error) {
            expect(error).toBeInstanceOf(TunnelError)
            expect(error).toMatchObject({ code: 'protocol-violation' })
            expect(breach(stream.subarray(0, given))).toBeGreaterThan(MAX)
            return
          }
          expect(breach(stream.subarray(0, given))).toBeUndefined()
          const held = stream.subarray(taken, given)
          expect(decoder.isBetween).toBe(held.length === 0)
          // What is held is less than what its own length announces.
          if (held.length >= 2) expect(held.length).toBeLessThan(2 + held.readUInt16BE())
        }
      }),
    )
  })

  test('that is unfinished takes no more memory than itself, whatever came before', async () => {
    const decoder = new DatagramDecoder()
    const unfinished = Buffer.concat([hex('fff7'), Buffer.alloc(MAX - 1)])
    const before = await memory()
    for (let i = 0; i < 2_000; i++) {
      decoder.decode(Buffer.from(unfinished))
      decoder.decode(Buffer.alloc(1))
    }
    decoder.decode(Buffer.from(unfinished))

    await expect.poll(async () => (await memory()) - before, { timeout: 20_000 }).toBeLessThan(1_000_000)
    expect(decoder.isBetween).toBe(false)
  })
})

/** What breaks a data stream, how it ends then, and with which code. */
const broken: [string, (stream: RawPeer) => unknown, string][] = [
  ...[65_528, 65_529, 65_535].map((length): [string, (stream: RawPeer) => unknown, string] => [
    `a length of ${length}`,
    (stream) => stream.write(Buffer.from([length >> 8, length & 255])),
    'protocol-violation',
  ]),
  ['such a length behind datagrams', (stream) => stream.write('000261620000fffe00'), 'protocol-violation'],
  ['such a length byte by byte', (stream) => byteByByte(stream, hex('ffff')), 'protocol-violation'],
  ['a FIN in the middle of a length', (stream) => stream.write('00').end(), 'connection-lost'],
  ['a FIN behind a length', (stream) => stream.write('0005').end(), 'connection-lost'],
  ['a FIN in the middle of a datagram', (stream) => stream.write('00056869').end(), 'connection-lost'],
  ['a FIN behind the first of two', (stream) => stream.write('0001610005').end(), 'connection-lost'],
]

describe('a server', () => {
  test.each(broken)('resets a data stream for %s, and nobody else', async (_, send, code) => {
    await using target = await udpEchoTarget()
    await using server = await createServer()
    await using tunnel = await openTunnel(target.url, { server })
    await using bystander = await udpVisitor(tunnel)
    await bystander.ask('before')
    await using client = await udpClient(server)
    await using other = await udpVisitor(client)
    await other.send('hello')
    const otherStream = await client.join(other.port)
    await using visitor = await udpVisitor(client)
    const connected = pEvent<'connection', Connection>(server, 'connection')
    await visitor.send('hello')
    const stream = await client.join(visitor.port)

    await send(stream)

    expect(await stream.ended()).toBe('reset')
    expect((await (await connected).closed).error).toMatchObject({ name: 'TunnelError', code })
    expect(`${await bystander.ask('after')}`).toBe('after')
    expect(target.senders).toHaveLength(1)
    // Of the same client and tunnel, too.
    otherStream.write(framed('still here'))
    expect(`${await other.reply()}`).toBe('still here')
    expect(client.control.unread).toHaveLength(0)
    // And that visitor may come again.
    await visitor.send('again')
    const next = await client.join(visitor.port)
    expect(`${await readDatagram(next)}`).toBe('again')
  })

  test('takes datagrams that come byte by byte', async () => {
    await using server = await createServer()
    await using client = await udpClient(server)
    await using visitor = await udpVisitor(client)
    await visitor.send('hello')
    const stream = await client.join(visitor.port)

    await byteByByte(stream, framed('one', '', 'three'))

    expect([`${await visitor.reply()}`, `${await visitor.reply()}`, `${await visitor.reply()}`]).toEqual([
      'one',
      '',
      'three',
    ])
  })

  test('passes on as many empty datagrams as it is sent, and serves others meanwhile', async () => {
    await using target = await udpEchoTarget()
    await using server = await createServer()
    await using tunnel = await openTunnel(target.url, { server })
    await using bystander = await udpVisitor(tunnel)
    await using client = await udpClient(server)
    await using visitor = await udpVisitor(client)
    const connected = pEvent<'connection', Connection>(server, 'connection')
    await visitor.send('hello')
    const stream = await client.join(visitor.port)
    const { closed } = await connected

    for (let i = 0; i < 20; i++) {
      stream.write(Buffer.alloc(4_000))
      expect(`${await bystander.ask(`${i}`)}`).toBe(`${i}`)
    }
    stream.write(framed('the last')).end()

    // The flow ends behind all of them. The visitor's kernel may have had no room for some.
    expect(await closed).toMatchObject({ bytesOut: 8 })
    expect((await closed).error).toBeUndefined()
    expect(await stream.ended()).toBe('end')
  })
})

describe('a client', () => {
  test.each(broken)('resets a data stream for %s, and nobody else', async (_, send, code) => {
    await using target = await udpEchoTarget()
    await using fake = await fakeServer()
    const { tunnel, visit } = await openAtFake(fake, target.url)
    await using _tunnel = closing(tunnel)
    await using bystander = await visit()
    await echoes(bystander, 'before')
    const connected = pEvent<'connection', Connection>(tunnel, 'connection')
    await using stream = await visit()

    await send(stream)

    // What the target has answered to datagrams in front of it may come first.
    expect(await stream.ended()).toBe('reset')
    expect((await (await connected).closed).error).toMatchObject({ name: 'TunnelError', code })
    await echoes(bystander, 'after')
    await using next = await visit()
    await echoes(next, 'next')
    expect(tunnel.connections).toBe(2)
  })

  test('takes datagrams that come byte by byte', async () => {
    await using target = await udpEchoTarget()
    await using fake = await fakeServer()
    const { tunnel, visit } = await openAtFake(fake, target.url)
    await using _tunnel = closing(tunnel)
    await using stream = await visit()

    await byteByByte(stream, framed('one', '', 'three'))

    expect(await stream.read(14)).toEqual(framed('one', '', 'three'))
  })

  test('does not keep, or slow down over, what a target never answers', async () => {
    let last = ''
    await using target = await udpTarget((datagram) => {
      last = `${datagram}`
    })
    await using fake = await fakeServer()
    const { tunnel, visit } = await openAtFake(fake, target.url)
    await using _tunnel = closing(tunnel)
    await using stream = await visit()
    const reaches = async (text: string) => {
      // The target's kernel may have no room for it the first time.
      await expect
        .poll(
          () => {
            stream.write(framed(text))
            return last
          },
          { timeout: 40_000, interval: 20 },
        )
        .toBe(text)
    }
    const flood = async (text: string) => {
      const start = performance.now()
      for (let i = 0; i < 20; i++) {
        stream.write(Buffer.alloc(1_000))
        await reaches(`${text} ${i}`)
      }
      return performance.now() - start
    }
    await flood('warm up')
    const before = await memory()

    const early = await flood('early')
    for (const text of ['a', 'b', 'c']) await flood(text)
    const late = await flood('late')

    expect(late).toBeLessThan(early * 4 + 1_000)
    // 50,000 of them, which would be some 100 bytes each if they were kept.
    await expect.poll(async () => (await memory()) - before, { timeout: 20_000 }).toBeLessThan(2_000_000)
    expect(tunnel.connections).toBe(1)
  })
})

async function echoes(stream: RawPeer, text: string): Promise<void> {
  stream.write(framed(text))
  expect(`${await readDatagram(stream)}`).toBe(text)
}

/** In a segment of its own each, as far as the kernel lets them. */
async function byteByByte(stream: RawPeer, bytes: Buffer): Promise<void> {
  for (const byte of bytes) {
    await new Promise((resolve) => stream.socket.write(Buffer.of(byte), resolve))
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** Closes a tunnel whose server says nothing more. */
function closing(tunnel: { close(): Promise<void> }): AsyncDisposable {
  return { [Symbol.asyncDispose]: async () => void tunnel.close() }
}

function hex(bytes: string): Buffer {
  return Buffer.from(bytes.replaceAll(' ', ''), 'hex')
}

/** Where bytes can be cut; of many bytes, near the ends alone. */
function cuts(bytes: Buffer): number[] {
  return Array.from({ length: bytes.length + 1 }, (_, i) => i).filter((i) => i < 8 || i > bytes.length - 8)
}

/** Cut into chunks of these sizes, the rest in one. */
function chunksOf(bytes: Buffer, sizes: number[]): Buffer[] {
  const chunks: Buffer[] = []
  let at = 0
  for (const size of sizes) {
    // As a socket gives them: in memory of their own.
    chunks.push(Buffer.from(bytes.subarray(at, at + size)))
    at += size
  }
  return [...chunks, Buffer.from(bytes.subarray(at))]
}

/** The first length in these bytes that no datagram has. */
function breach(bytes: Buffer): number | undefined {
  for (let at = 0; at + 2 <= bytes.length; at += 2 + bytes.readUInt16BE(at)) {
    const length = bytes.readUInt16BE(at)
    if (length > MAX) return length
  }
  return undefined
}

/** Bytes of heap and buffers that are in use. Some are let go by callbacks of the collection before, hence the turns. */
async function memory(): Promise<number> {
  for (let turn = 0; turn < 5; turn++) {
    global.gc?.()
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
