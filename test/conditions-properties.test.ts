/** Whatever the conditions are, and however often they change: bytes come out whole and in order, and nothing is left behind. */

import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { Network } from '../src/conditions/network.js'
import { type Conditions, readConditions } from '../src/conditions/options.js'

const milliseconds = fc.integer({ min: 0, max: 5 })

/** Conditions under which all that is sent arrives, soon. */
const conditions = fc.record(
  {
    latency: milliseconds,
    jitter: milliseconds,
    bandwidth: fc.integer({ min: 2_000_000, max: 1_000_000_000 }),
    slice: fc.record({ size: fc.integer({ min: 5_000, max: 100_000 }), gap: fc.integer({ min: 0, max: 1 }) }),
    seed: fc.nat(),
  },
  { requiredKeys: [] },
)

const chunks = fc.array(fc.oneof(fc.nat({ max: 40 }), fc.nat({ max: 70_000 })), { maxLength: 12 })

test('bytes arrive whole and in order under any conditions, which change on the way', async () => {
  await fc.assert(
    fc.asyncProperty(chunks, fc.array(conditions, { minLength: 1, maxLength: 4 }), fc.boolean(), check),
    { numRuns: 150 },
  )
}, 120_000)

async function check(sizes: number[], list: Conditions[], isSlow: boolean): Promise<void> {
  const network = networkOf(list[0] as Conditions)
  const stage = network.stages().in
  const sent = sizes.map((size, at) => Buffer.alloc(size, String(at)))
  const came: Buffer[] = []
  const sink = new Writable({
    highWaterMark: 10_000,
    write(chunk: Buffer, _encoding, done) {
      came.push(Buffer.from(chunk))
      const next = list[came.length % list.length] as Conditions
      if (came.length % 3 === 0) network.set(readConditions(next, false))
      if (came.length % 5 === 0) {
        network.pause(true)
        setImmediate(() => network.pause(false))
      }
      if (isSlow) setImmediate(done)
      else done()
    },
  })
  await pipeline(Readable.from(sent.filter((one) => one.length > 0)), stage, sink)

  expect(Buffer.concat(came).equals(Buffer.concat(sent))).toBe(true)
}

test('a stage has one timer however many chunks wait, and none when it is gone', () => {
  vi.useFakeTimers()
  try {
    const stages = networkOf({ latency: 1_000, bandwidth: 100_000_000, closeAfter: 5_000 }).stages()
    for (let i = 0; i < 100; i++) stages.in.write('chunk')
    vi.advanceTimersByTime(500)
    stages.in.resume()
    // One for the direction in which nothing was sent: it is to be closed.
    expect(vi.getTimerCount()).toBe(2)
    for (const stage of [stages.in, stages.out]) stage.destroy()
    expect(vi.getTimerCount()).toBe(0)
  } finally {
    vi.useRealTimers()
  }
})

test('a stage that waits for its turn leaves the line when it is gone', () => {
  vi.useFakeTimers()
  try {
    const { in: stage } = networkOf({ bandwidth: 1 }).stages()
    stage.write('chunk')
    expect(vi.getTimerCount()).toBe(1)
    stage.destroy()
    expect(vi.getTimerCount()).toBe(0)
  } finally {
    vi.useRealTimers()
  }
})

test('a stage holds so many bytes and no more, also of small chunks', () => {
  for (const size of [1, 65_536]) {
    const { in: stage } = networkOf({ latency: 600_000 }).stages()
    let taken = 0
    while (stage.writableLength < size * 2 || stage.writableLength < 2) {
      stage.write(Buffer.alloc(size))
      taken++
      if (taken * size > 64_000_000) break
    }
    expect(taken * (size + 256)).toBeGreaterThan(15_000_000)
    expect(taken * (size + 256)).toBeLessThan(18_000_000)
    stage.destroy()
  }
})

function networkOf(given: Conditions): Network {
  return new Network(readConditions(given, false))
}
