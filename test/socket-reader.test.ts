import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type net from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test, vi } from 'vitest'
import { readReused, type Taker, type Verdict } from '../src/socket-reader.js'
import { tcpTarget } from './helpers/targets.js'
import { settled, visit } from './helpers/visitor.js'

/** Accepted sockets, each with the one at its other end. */
async function acceptor() {
  const target = await tcpTarget(() => {})
  return {
    async accept() {
      const accepted = once(target.server, 'connection')
      const outer = await visit({ host: '127.0.0.1', port: target.port })
      const [inner] = (await accepted) as [net.Socket]
      return { inner, outer }
    },
    [Symbol.asyncDispose]: target[Symbol.asyncDispose],
  }
}

test('every Node that is supported lets sockets be read into memory of ours', async () => {
  await using sockets = await acceptor()
  const { inner, outer } = await sockets.accept()
  const chunks: string[] = []
  const take = (chunk: Buffer): Verdict => {
    chunks.push(String(chunk))
    return 'done'
  }
  expect(readReused(inner, takes(take))).toBe(true)
  outer.end('bytes')
  await once(inner, 'end')

  expect(chunks.join('')).toBe('bytes')
  expect(inner.bytesRead).toBe(5)
})

test('a socket that does not let it can be read in any other way', async () => {
  await using sockets = await acceptor()
  const { inner, outer } = await sockets.accept()
  const { _handle } = inner as unknown as { _handle: object }
  Object.assign(_handle, { useUserBuffer: undefined })
  outer.end('bytes')

  expect(
    readReused(
      inner,
      takes(() => 'done'),
    ),
  ).toBe(false)
  const chunks = await inner.toArray()
  expect(String(Buffer.concat(chunks))).toBe('bytes')
})

test('after a chunk that is still needed, nothing is read until somebody resumes', async () => {
  await using sockets = await acceptor()
  const { inner, outer } = await sockets.accept()
  const got: Buffer[] = []
  readReused(
    inner,
    takes((chunk) => {
      got.push(Buffer.from(chunk))
      return 'wait'
    }),
  )
  const sent = Buffer.concat(Array.from({ length: 8 }, (_, i) => Buffer.alloc(131_072, i)))
  outer.end(sent)
  for (let resumed = 0; !inner.readableEnded; resumed++) {
    // More has come meanwhile, and lies in the kernel.
    await settled(() => got.length)
    expect(got.length).toBeLessThanOrEqual(resumed + 1)
    inner.resume()
  }
  expect(Buffer.concat(got).equals(sent)).toBe(true)
})

test('a chunk that somebody keeps is left alone, and reading goes on', async () => {
  await using sockets = await acceptor()
  const { inner, outer } = await sockets.accept()
  const kept: { chunk: Buffer; copy: Buffer; isReused: boolean }[] = []
  readReused(
    inner,
    takes((chunk, isReused) => {
      kept.push({ chunk, copy: Buffer.from(chunk), isReused })
      return 'keep'
    }),
  )
  const sent = randomBytes(8_000_000)
  outer.end(sent)
  await once(inner, 'end')
  expect(Buffer.concat(kept.map(({ chunk }) => chunk)).equals(sent)).toBe(true)
  expect(kept.every(({ chunk, copy }) => chunk.equals(copy))).toBe(true)
  expect(kept.some(({ isReused }) => isReused)).toBe(true)
})

test('a chunk that is still needed is left alone by other sockets', async () => {
  await using sockets = await acceptor()
  const kept: Buffer[] = []
  for (let i = 1; i <= 32; i++) {
    // Some are busy, and have memory of their own.
    const size = i % 2 ? 1_000 : 1_000_000
    const { inner, outer } = await sockets.accept()
    let read = 0
    const last = new Promise<Buffer>((resolve) => {
      readReused(
        inner,
        takes((chunk) => {
          read += chunk.length
          if (read === size) resolve(chunk)
          return read < size ? 'done' : 'wait'
        }),
      )
    })
    outer.write(Buffer.alloc(size, i))
    kept.push(await last)
  }
  for (const [i, chunk] of kept.entries()) expect(chunk.every((byte) => byte === i + 1)).toBe(true)
})

test('sockets that were busy and fall silent hold little memory, however many they are', async () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc')
  await using sockets = await acceptor()
  const size = 1_000_000
  const used = () => {
    collect()
    return process.memoryUsage().arrayBuffers
  }
  const before = used()
  const open = []
  for (let i = 0; i < 64; i++) {
    const pair = await sockets.accept()
    let read = 0
    const whole = new Promise<void>((resolve) => {
      readReused(
        pair.inner,
        takes((chunk) => {
          read += chunk.length
          if (read === size) resolve()
          return 'done'
        }),
      )
    })
    pair.outer.write(Buffer.alloc(size))
    await whole
    open.push(pair)
  }

  await vi.waitFor(() => expect(used() - before).toBeLessThan(12_000_000))
  expect(open.every(({ inner }) => inner.readable)).toBe(true)
})

function takes(take: (chunk: Buffer, isReused: boolean) => Verdict): Taker {
  return { take: ([chunk], isReused) => take(chunk as Buffer, isReused) }
}
