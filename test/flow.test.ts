/** When a flow hands on the datagrams that it has received. */
import { once } from 'node:events'
import { describe, expect, test, vi } from 'vitest'
import { Flow } from '../src/flow.js'

describe('a burst of datagrams', () => {
  test('is handed on in one piece for each turn of the event loop', async () => {
    const { flow, chunks } = await inBurst()
    for (const turns of [1, 2, 3]) {
      for (let i = 0; i < 30; i++) flow.receive(Buffer.alloc(1_200))
      await turn()
      expect(chunks).toEqual(Array(turns).fill(30 * 1_202))
    }
  })

  test('waits for no end of the turn where it is large, and so loses nothing', async () => {
    const { flow, chunks, drops } = await inBurst()
    for (let i = 0; i < 40; i++) {
      flow.receive(Buffer.alloc(65_507))
      // What hands it on asks for more, as in the callback of a socket.
      await Promise.resolve()
      await new Promise<void>((resolve) => process.nextTick(resolve))
    }

    expect(chunks.reduce((sum, size) => sum + size, 0)).toBeGreaterThanOrEqual(39 * 65_509)
    await turn()
    expect(chunks.reduce((sum, size) => sum + size, 0)).toBe(40 * 65_509)
    expect(drops).toEqual([])
  })

  test('is over with a datagram that comes alone: the next is handed on at once', async () => {
    const { flow, chunks } = await inBurst()
    flow.receive(Buffer.alloc(1))
    expect(chunks).toEqual([])
    await turn()
    flow.receive(Buffer.alloc(2))
    expect(chunks).toEqual([3, 4])
  })

  test('is handed on also where a test has stopped the timers of its process', async () => {
    const { flow, chunks } = await inBurst()
    vi.useFakeTimers()
    try {
      flow.receive(Buffer.alloc(1))
      await once(flow, 'data')
    } finally {
      vi.useRealTimers()
    }
    expect(chunks).toEqual([3])
  })

  test('is handed on before the end of its flow', async () => {
    const { flow, chunks } = await inBurst()
    flow.receive(Buffer.alloc(1))
    flow.finish()
    await once(flow, 'end')
    expect(chunks).toEqual([3])
    flow.destroy()
  })
})

/** A flow in the middle of a burst, with the sizes of what it hands on from now on. */
async function inBurst() {
  const drops: string[] = []
  const flow = new Flow({ send: (_, done) => done(null), onDrop: (_, reason) => drops.push(reason) })
  const chunks: number[] = []
  flow.on('data', ({ length }: Buffer) => chunks.push(length))
  await turn()
  for (let i = 0; i < 2; i++) flow.receive(Buffer.alloc(10))
  await turn()
  expect(chunks.splice(0).reduce((sum, size) => sum + size, 0)).toBe(24)
  return { flow, chunks, drops }
}

/** Until the event loop has turned. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
