/** Whatever both ends do, and however the link cuts the bytes: each stream carries what its naive twin says. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { YamuxStream } from '../src/yamux/stream.js'
import { memoryLink, sessionPair, waitFor } from './helpers/yamux.js'

/** One direction of a stream, as whoever writes and whoever reads see it. */
interface Twin {
  written: Buffer[]
  read: Buffer[]
  sawEnd: boolean
}

/** A stream, as both ends have it. The far end comes when the peer has heard of it. */
interface Stream {
  ends: [YamuxStream, YamuxStream | undefined]
  twins: [Twin, Twin]
  isReset: boolean
}

/** What one end does to one of the streams. */
const action = fc.record({
  do: fc.constantFrom(
    'open',
    'write',
    'write',
    'write',
    'end',
    'pause',
    'resume',
    'read',
    'reset',
    'turn',
    'answer',
  ),
  end: fc.constantFrom(0 as const, 1 as const),
  stream: fc.nat({ max: 5 }),
  size: fc.oneof(fc.nat({ max: 40 }), fc.nat({ max: 400_000 })),
})
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never

/** The sizes of the pieces in which bytes arrive, again and again. */
const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 90_000 })), {
  minLength: 1,
  maxLength: 20,
})

test('streams carry what is written, in order, to the end, and nothing else', async () => {
  const actions = fc.array(action, { minLength: 5, maxLength: 60 })
  await fc.assert(fc.asyncProperty(actions, cuts, check), { numRuns: 500 })
})

async function check(actions: Action[], sizes: number[]): Promise<void> {
  const streams: Stream[] = []
  await using pair = await sessionPair({ client: { onStream }, server: { onStream } }, memoryLink({ cut }))
  let piece = 0
  let count = 0

  for (const one of actions) {
    if (one.do === 'turn') await new Promise((resolve) => setImmediate(resolve))
    else if (one.do === 'answer') await pair.client.ping(30_000)
    else if (one.do === 'open') open(one.end)
    else act(one)
  }

  // Both have heard all, and now read and end what is left.
  for (const session of [pair.client, pair.server]) await session.ping(30_000)
  for (const { ends } of streams) for (const own of ends) own?.resume().end()
  for (const { ends, twins, isReset } of streams) {
    await Promise.all(ends.map((own) => own && waitFor(own, 'close')))
    for (const { written, read, sawEnd } of twins) {
      const [all, got] = [Buffer.concat(written), Buffer.concat(read)]
      const due = isReset ? all.subarray(0, got.length) : all
      expect(got.equals(due), `${got.length} of ${all.length} bytes`).toBe(true)
      if (!isReset) expect(sawEnd).toBe(true)
    }
    for (const own of ends) {
      if (own?.errored) expect([isReset, own.errored]).toMatchObject([true, { code: 'ECONNRESET' }])
    }
  }
  expect([pair.client.streamCount, pair.server.streamCount]).toEqual([0, 0])
  expect(await pair.client.ping(30_000)).toBeGreaterThan(0)

  function open(end: 0 | 1) {
    const near = [pair.client, pair.server][end]?.open() as YamuxStream
    const made: Stream = { ends: [near, undefined], twins: [twin(), twin()], isReset: false }
    streams.push(made)
    observe(near, made.twins[1])
  }

  function onStream(far: YamuxStream) {
    const made = streams.find(({ ends: [near] }) => near.id === far.id) as Stream
    made.ends[1] = far
    observe(far, made.twins[0])
  }

  function act({ do: what, end, stream, size }: Action) {
    const made = streams[stream]
    const own = made?.ends[end]
    if (!made || !own || own.destroyed) return
    if (what === 'pause') own.pause()
    else if (what === 'resume') own.resume()
    else if (what === 'read') own.read(1 + (size % 1_000))
    else if (what === 'end') own.end()
    else if (what === 'reset') {
      made.isReset = true
      own.destroy()
    } else if (own.writable) {
      const bytes = Buffer.alloc(size, String(count++))
      made.twins[end].written.push(bytes)
      own.write(bytes)
    }
  }

  function cut(chunk: Buffer): Buffer[] {
    const pieces: Buffer[] = []
    for (let at = 0; at < chunk.length; ) {
      const size = sizes[piece++ % sizes.length] as number
      pieces.push(chunk.subarray(at, at + size))
      at += size
    }
    return pieces
  }
}

function twin(): Twin {
  return { written: [], read: [], sawEnd: false }
}

/** Notes what a reader sees. It takes nothing by itself, so that actions decide when. */
function observe(stream: YamuxStream, seen: Twin): void {
  stream.pause()
  stream.on('data', (chunk) => seen.read.push(chunk))
  stream.on('end', () => {
    seen.sawEnd = true
  })
}
