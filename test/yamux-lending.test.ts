/** Streams whose readers take memory that the session reads its link into again. */
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, test, vi } from 'vitest'
import type { Verdict } from '../src/socket-reader.js'
import { Inbox } from '../src/yamux/inbox.js'
import { Loan } from '../src/yamux/loan.js'
import type { YamuxSession } from '../src/yamux/session.js'
import type { YamuxStream } from '../src/yamux/stream.js'
import { memoryLink, type Pair, readAll, sessionPair } from './helpers/yamux.js'

const KiB = 1_024
const MiB = 1_048_576

describe('what a reader has not given back', () => {
  test('stays as it was, whatever comes for this stream and for others', async () => {
    await using pair = await sessionPair()
    const transfers = await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const [near, far] = await openStream(pair)
        const sent = randomBytes(3 * MiB + i)
        writeInPieces(near, sent)
        // Some have a reader like any other.
        const borrowed = i % 4 === 0 ? undefined : borrow(far, { patience: i % 3 })
        return { sent, got: await (borrowed?.whole ?? readAll(far)), borrowed }
      }),
    )
    for (const { sent, got } of transfers) expect(got.equals(sent)).toBe(true)
    const borrowed = transfers.flatMap((transfer) => transfer.borrowed ?? [])
    expect(borrowed.some(({ lent }) => lent > 0)).toBe(true)
    expect(borrowed.every(({ changed }) => changed === 0)).toBe(true)
  })

  test('holds no more than eight times its size', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc')
    await using pair = await sessionPair()
    const small = []
    const kept: Buffer[] = []
    for (let i = 0; i < 200; i++) {
      const [near, far] = await openStream(pair)
      far.readReused({
        take(chunks) {
          kept.push(...chunks)
          return 'wait'
        },
      })
      small.push(near)
    }
    const [bulk, farBulk] = await openStream(pair)
    farBulk.readReused({ take: () => 'done' })
    collect()
    const before = process.memoryUsage().arrayBuffers
    // Between them lie so many bytes that each has a read of its own.
    for (const near of small) {
      near.write(Buffer.alloc(2 * KiB, 'x'))
      await write(bulk, Buffer.alloc(MiB))
    }
    await vi.waitFor(() => expect(kept.length).toBeGreaterThanOrEqual(small.length))
    collect()

    expect(kept.every((chunk) => chunk.every((byte) => byte === 120))).toBe(true)
    // Read memory of the link and of Node is there as well.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * 200 * 2 * KiB + 4 * MiB)
  })
})

describe('a reader that takes memory for a time', () => {
  test('gets what comes in order, also what came before, while it waited, and in small pieces', async () => {
    await using pair = await sessionPair()
    const [near, far] = await openStream(pair)
    const sent = randomBytes(2 * MiB)
    await write(near, sent.subarray(0, 10))
    await expect.poll(() => far.readableLength).toBe(10)
    const { whole } = borrow(far, { patience: 1 })
    for (let at = 10; at < sent.length; ) {
      const end = at + (randomInt(2) ? randomInt(1, 50) : randomInt(1, 200 * KiB))
      const isSent = near.write(sent.subarray(at, end))
      if (randomInt(2) || !isSent) await turn()
      at = end
    }
    near.end()
    expect((await whole).equals(sent)).toBe(true)
  })

  test('gets what lies in front of an end or a reset in one read of the link', async () => {
    for (const how of ['end', 'destroy'] as const) {
      await using pair = await sessionPair()
      const [near, far] = await openStream(pair)
      const { whole } = borrow(far, { patience: 0 })
      // The link has memory of its own from now on.
      await write(near, Buffer.alloc(100 * KiB))
      near.write(Buffer.alloc(64 * KiB))
      await turn()
      near[how]()
      expect((await whole).length).toBe(164 * KiB)
      expect(far.errored).toEqual(how === 'end' ? null : expect.objectContaining({ code: 'ECONNRESET' }))
    }
  })

  test('gets the same over a link that is no socket, in memory of its own', async () => {
    await using pair = await sessionPair({}, memoryLink())
    const [near, far] = await openStream(pair)
    const sent = randomBytes(MiB)
    writeInPieces(near, sent)
    const borrowed = borrow(far, { patience: 1 })
    expect((await borrowed.whole).equals(sent)).toBe(true)
    expect(borrowed.lent).toBe(0)
  })

  test('holds up no other stream while it waits', async () => {
    await using pair = await sessionPair()
    const [near, far] = await openStream(pair)
    far.readReused({ take: () => 'wait' })
    near.write(Buffer.alloc(MiB))
    const [other, farOther] = await openStream(pair)
    const sent = randomBytes(8 * MiB)
    writeInPieces(other, sent)
    expect((await borrow(farOther, { patience: 0 }).whole).equals(sent)).toBe(true)
    // What has come for it is bounded by its window.
    expect(far.readableLength).toBeLessThanOrEqual(256 * KiB)
  })
})

describe('of memory that is looked through', () => {
  test.each(['done', 'wait', 'keep'] as const)('all is kept that a reader answers with %s for', (verdict) => {
    const { look, taken } = lender({ verdict })
    const isKept = look((add) => {
      add(100 * KiB, 'a')
      add(50 * KiB, 'b')
    })
    expect(isKept).toBe(verdict !== 'done')
    // In one piece, where it came in one.
    expect(taken).toEqual([{ chunks: [100 * KiB, 50 * KiB], isReused: true }])
  })

  test('a small part is copied', () => {
    const { look, taken, bytes } = lender({ verdict: 'wait' })
    const isKept = look((add) => {
      add(10 * KiB, 'a')
      add(10 * KiB, 'b')
    })
    expect(isKept).toBe(false)
    expect(taken).toEqual([{ chunks: [20 * KiB], isReused: false }])
    look(() => {})
    expect(bytes().every((byte, at) => byte === (at < 10 * KiB ? 97 : 98))).toBe(true)
  })

  test('many tiny parts are gathered', () => {
    const { look, taken } = lender({ verdict: 'wait' })
    const isKept = look((add) => {
      for (let i = 0; i < 20_000; i++) add(2, 'a')
    })
    expect(isKept).toBe(false)
    expect(taken).toEqual([{ chunks: [40_000], isReused: false }])
  })

  test('what waits to be read is copied where it is less than half', () => {
    const { look, stream, bytes } = lender({ verdict: 'wait' })
    look((add) => add(100 * KiB, 'a'))
    expect(look((add) => add(120 * KiB, 'b'))).toBe(false)
    expect(look((add) => add(130 * KiB, 'c'))).toBe(true)
    expect(stream.readableLength).toBe(250 * KiB)
    expect(bytes().every((byte) => byte === 97)).toBe(true)
  })

  test('a reader that throws keeps its part, and others get theirs', async () => {
    const loan = new Loan()
    const broken = new Inbox(new Readable({ read() {} }), loan)
    broken.lendTo({
      take() {
        throw new Error('a bug')
      },
    })
    const { inbox, taken } = lender({ verdict: 'done', loan })
    const surfaced = uncaught()
    const memory = Buffer.alloc(256 * KiB)
    const isKept = loan.during(true, () => {
      broken.add(memory.subarray(0, 100 * KiB))
      inbox.add(memory.subarray(100 * KiB, 200 * KiB))
    })
    expect([isKept, taken.length]).toEqual([true, 1])
    expect(await surfaced).toEqual(new Error('a bug'))
  })

  test('nothing overtakes what came before, nor the end what comes in front of it', async () => {
    const { look, taken, stream, inbox, bytes } = lender({ verdict: 'wait' })
    look((add) => add(100 * KiB, 'a'))
    expect(look((add) => add(150 * KiB, 'b'))).toBe(true)
    // It flows again in the next turn.
    stream.resume()
    look((add) => add(100 * KiB, 'c'))
    expect(taken.length).toBe(1)
    while (taken.length < 3) {
      await turn()
      stream.resume()
    }
    const ended = once(stream, 'end')
    look((add) => {
      add(100 * KiB, 'd')
      inbox.end()
      expect(taken.length).toBe(4)
    })
    stream.resume()
    await ended
    expect(String(bytes()).replace(/(.)\1*/g, '$1')).toBe('abcd')
  })

  /** An inbox whose reader answers always the same, and memory of 256 KiB that is used again each time. */
  function lender({ verdict, loan = new Loan() }: { verdict: Verdict; loan?: Loan }) {
    const stream = new Readable({ read() {} })
    const inbox = new Inbox(stream, loan)
    const taken: { chunks: number[]; isReused: boolean }[] = []
    const parts: Buffer[] = []
    inbox.lendTo({
      take(chunks, isReused) {
        taken.push({ chunks: chunks.map(({ length }) => length), isReused })
        parts.push(...chunks)
        return verdict
      },
    })
    let memory = Buffer.allocUnsafeSlow(256 * KiB)
    /** Tells whether it is kept, and reads on into other memory then. */
    function look(come: (add: (size: number, content: string) => void) => void): boolean {
      memory.fill('-')
      let at = 0
      const isKept = loan.during(true, () =>
        come((size, content) => {
          const part = memory.subarray(at, at + size).fill(content)
          at += size
          inbox.add(part)
        }),
      )
      if (isKept) memory = Buffer.allocUnsafeSlow(256 * KiB)
      return isKept
    }
    return { look, taken, stream, inbox, bytes: () => Buffer.concat(parts) }
  }
})

describe('over a link within one machine', () => {
  test('the window of a stream that is fast grows, once', async () => {
    await using pair = await sessionPair()
    const [near, far] = await openStream(pair)
    // Round trips of an idle link, as it has time to tell of them.
    for (let i = 0; i < 10; i++) await pair.server.ping(30_000)
    const { whole } = borrow(far, { patience: 0 })
    await write(near, Buffer.alloc(64 * MiB))
    const stalled = await untilStalled(near, far, pair.client)
    near.destroy()
    await whole
    expect(stalled).toBeGreaterThan(256 * KiB)
    expect(stalled).toBeLessThanOrEqual(MiB)
  })
})

/** Bytes that a stream sends to one who has stopped reading. */
async function untilStalled(near: YamuxStream, far: YamuxStream, client: YamuxSession): Promise<number> {
  far.pause()
  // What was under way has come.
  for (let round = 0; round < 2; round++) await client.ping(30_000)
  const before = far.readableLength
  near.write(Buffer.alloc(4 * MiB))
  for (let round = 0; round < 3; round++) await client.ping(30_000)
  return far.readableLength - before
}

/** Takes memory, looks at it again after so many turns of the event loop before it gives it back, and gathers what it was. */
function borrow(stream: YamuxStream, { patience }: { patience: number }) {
  const parts: Buffer[] = []
  const borrowed = {
    lent: 0,
    changed: 0,
    whole: closing(stream).then(() => Buffer.concat(parts)),
  }
  stream.readReused({
    take(chunks, isReused) {
      const copy = Buffer.concat(chunks)
      parts.push(copy)
      if (isReused) borrowed.lent++
      if (patience === 0) return 'done'
      giveBack(chunks, copy)
      return 'wait'
    },
  })
  stream.on('end', () => stream.end())
  return borrowed

  async function giveBack(chunks: Buffer[], copy: Buffer) {
    for (let turns = 0; turns < patience; turns++) await turn()
    if (!Buffer.concat(chunks).equals(copy)) borrowed.changed++
    stream.resume()
  }
}

async function openStream({ client, accept }: Pair): Promise<[YamuxStream, YamuxStream]> {
  const near = client.open()
  const far = await accept()
  near.resume()
  return [near, far]
}

function closing(stream: YamuxStream): Promise<void> {
  return new Promise((resolve) => stream.once('close', resolve))
}

function write(stream: YamuxStream, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => stream.write(bytes, () => resolve()))
}

async function writeInPieces(stream: YamuxStream, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const end = at + randomInt(1, 300 * KiB)
    if (!stream.write(bytes.subarray(at, end))) await once(stream, 'drain')
    at = end
  }
  stream.end()
}

/** The next error that nobody catches. */
async function uncaught(): Promise<unknown> {
  const others = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  try {
    const [error] = await once(process, 'uncaughtException')
    return error
  } finally {
    process.removeAllListeners('uncaughtException')
    for (const other of others) process.on('uncaughtException', other)
  }
}
