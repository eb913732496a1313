/** Many visitors, much data, many tunnels: nothing is lost, mixed up or left behind. */
import { createCipheriv, createHash, randomBytes } from 'node:crypto'
import { getEventListeners, once } from 'node:events'
import { readdirSync } from 'node:fs'
import type net from 'node:net'
import { Readable } from 'node:stream'
import { createServer, openTunnel } from 'pipe-tunnel'
import { expect, test } from 'vitest'
import { echoTarget, readAll, tcpTarget } from './helpers/targets.js'
import { ask, visit } from './helpers/visitor.js'

const MiB = 1_048_576

/**
 * Each visitor takes three connections. Linux gives a port of its own to several connections if they go to different
 * places; other systems do not, and would run out of ports.
 */
const IN_TURN = process.platform === 'linux' ? 10_000 : 1_000
const AT_ONCE = process.platform === 'linux' ? 1_000 : 100

/** For what is looked at again and again, in milliseconds. */
const soon = { timeout: 20_000, interval: 50 }

/**
 * Bytes of heap that 10,000 visitors may leave behind: 100 each. An exchange id in a map and what it stands for take
 * more, a forgotten socket takes thousands. What V8 itself keeps of so many connections was 300 kB at the most.
 */
const LEFT_BEHIND = 1_000_000

test(`${IN_TURN} visitors one after another leave memory and handles as they were`, async () => {
  await using target = await echoTarget()
  await using server = await createServer()
  await using tunnel = await openTunnel(target.port, { server })
  const handles = await openHandles()
  const visitInTurn = async (count: number) => {
    for (let i = 0; i < count; i++) expect(`${await ask(tunnel, `visitor ${i}`)}`).toBe(`visitor ${i}`)
    await expect.poll(openHandles, soon).toEqual(handles)
  }
  // What is compiled, cached and grown only once does not count.
  await visitInTurn(IN_TURN / 4)
  const memory = await heapInUse()

  await visitInTurn(IN_TURN)

  await expect.poll(async () => (await heapInUse()) - memory, soon).toBeLessThan(LEFT_BEHIND)
})

test(`${IN_TURN} visitors that break off in every way leave memory and handles as they were`, async () => {
  await using target = await tcpTarget((socket) => {
    socket.once('end', () => socket.end())
    socket.on('data', (request) => {
      if (`${request}` === 'reset me') socket.resetAndDestroy()
      else socket.end('a reply')
    })
  })
  await using server = await createServer()
  await using tunnel = await openTunnel(target.port, { server })
  await using nowhere = await openTunnel(await portOfNobody(), { server })
  const waysToBreakOff: ((visitor: net.Socket) => void)[] = [
    // Before the exchange can be made.
    (visitor) => visitor.resetAndDestroy(),
    (visitor) => visitor.destroy(),
    (visitor) => visitor.end(),
    // By the target, where a reply is due.
    (visitor) => visitor.write('reset me'),
    // By the visitor, in the middle of the reply.
    (visitor) => {
      visitor.write('answer me')
      visitor.once('data', () => visitor.resetAndDestroy())
    },
  ]
  const breakOff = async (place: { host: string; port: number }, how: (visitor: net.Socket) => void) => {
    const visitor = await visit(place)
    const closed = whenClosed(visitor)
    how(visitor)
    visitor.resume()
    await closed
  }
  const handles = await openHandles()
  const visitInTurn = async (count: number) => {
    for (let i = 0; i < count; i += waysToBreakOff.length + 1) {
      for (const how of waysToBreakOff) await breakOff(tunnel, how)
      // Turned away, as its target can't be reached.
      await breakOff(nowhere, () => {})
    }
    await expect.poll(openHandles, soon).toEqual(handles)
  }
  await visitInTurn(IN_TURN / 4)
  const memory = await heapInUse()

  await visitInTurn(IN_TURN)

  await expect.poll(async () => (await heapInUse()) - memory, soon).toBeLessThan(LEFT_BEHIND)
})

test.for([
  ['one tunnel', 1],
  ['10 tunnels', 10],
] as const)(`${AT_ONCE} visitors at once of %s all get their own bytes back`, async ([, count]) => {
  await using targets = await group(count, (number) => namedTarget(`target ${number}`))
  await using server = await createServer()
  await using tunnels = await group(count, (number) => openTunnel(targets.at(number).port, { server }))
  await using visitors = await group(AT_ONCE, async (i) => {
    const number = i % count
    const socket = await visit(tunnels.at(number))
    const bytes = randomBytes(50_000)
    const close = async () => void socket.destroy()
    return { socket, bytes, wanted: named(`target ${number}`, bytes), [Symbol.asyncDispose]: close }
  })
  const inside = () => tunnels.members.reduce((sum, { connections }) => sum + connections, 0)
  await expect.poll(inside, soon).toBe(AT_ONCE)

  const replies = await Promise.all(
    visitors.members.map(({ socket, bytes }) => {
      socket.end(bytes)
      return readAll(socket)
    }),
  )

  expect(visitors.members.filter(({ wanted }, i) => !replies[i]?.equals(wanted))).toHaveLength(0)
  await expect.poll(inside, soon).toBe(0)
})

test(`${AT_ONCE} visitors who send and finish before they are let in all get their own bytes back`, async () => {
  await using target = await namedTarget('target')
  await using tunnel = await openTunnel(target.port)
  const requests = Array.from({ length: AT_ONCE }, () => randomBytes(50_000))

  const replies = await Promise.all(requests.map((request) => ask(tunnel, request)))

  expect(requests.filter((bytes, i) => !replies[i]?.equals(named('target', bytes)))).toHaveLength(0)
})

/** Bytes offered to a reader that stalls. */
const OFFERED = 512 * MiB
/**
 * How many of those may be under way: three connections in a row, and Linux keeps up to 6 MiB where one is read and
 * 4 MiB where it is written.
 */
const UNDER_WAY = 48 * MiB
/** How many of those may be in the process: a chunk and a full buffer, 64 KiB each, for each of six sockets; and a margin. */
const IN_PROCESS = 2 * MiB

test('a visitor that stops reading makes the target stop, and gets everything once it reads on', async () => {
  const offer = pseudorandom(OFFERED)
  let visitors = 0
  await using target = await tcpTarget((socket) => {
    visitors++
    if (visitors === 1) offer.stream.pipe(socket)
    else socket.pipe(socket)
  })
  await using tunnel = await openTunnel(target.port)
  const memory = await memoryInUse()
  const visitor = await visit(tunnel)

  await whenSteady(offer.sent)
  expect(offer.sent()).toBeLessThan(UNDER_WAY)
  expect((await memoryInUse()) - memory).toBeLessThan(IN_PROCESS)
  expect(`${await ask(tunnel, 'nobody else waits')}`).toBe('nobody else waits')

  visitor.end()
  expect(await hashOf(visitor)).toBe(offer.hash())
})

test('a target that stops reading makes the visitor stop, and gets everything once it reads on', async () => {
  const offer = pseudorandom(OFFERED)
  let stalled: net.Socket | undefined
  await using target = await tcpTarget((socket) => {
    if (stalled) socket.pipe(socket)
    else stalled = socket.pause()
  })
  await using tunnel = await openTunnel(target.port)
  const memory = await memoryInUse()
  const visitor = await visit(tunnel)
  offer.stream.pipe(visitor)

  await whenSteady(offer.sent)
  expect(offer.sent()).toBeLessThan(UNDER_WAY)
  expect((await memoryInUse()) - memory).toBeLessThan(IN_PROCESS)
  expect(`${await ask(tunnel, 'nobody else waits')}`).toBe('nobody else waits')

  const socket = stalled as net.Socket
  socket.end(await hashOf(socket))
  expect(`${await readAll(visitor)}`).toBe(offer.hash())
})

test(`20 clients at once that open and close ${AT_ONCE} tunnels of one server leave nothing behind`, async () => {
  await using target = await echoTarget()
  await using server = await createServer()
  const signals = Array.from({ length: 20 }, () => new AbortController().signal)
  const handles = await openHandles()
  const openAndClose = async (signal: AbortSignal, count: number) => {
    for (let i = 0; i < count; i++) {
      const tunnel = await openTunnel(target.port, { server, signal })
      expect(`${await ask(tunnel, `visitor ${i}`)}`).toBe(`visitor ${i}`)
      // Two more, of whom the tunnel knows nothing yet.
      const visitors = [await visit(tunnel), await visit(tunnel)]
      const left = visitors.map((visitor) => whenClosed(visitor.resume()))
      await tunnel.close()
      await Promise.all(left)
    }
  }
  const openAndCloseAtOnce = async (count: number) => {
    await Promise.all(signals.map((signal) => openAndClose(signal, count)))
    expect(server.tunnels).toHaveLength(0)
    await expect.poll(openHandles, soon).toEqual(handles)
  }
  await openAndCloseAtOnce(AT_ONCE / 20)
  const memory = await heapInUse()

  await openAndCloseAtOnce(AT_ONCE / 20)

  await expect.poll(async () => (await heapInUse()) - memory, soon).toBeLessThan(LEFT_BEHIND)
  expect(signals.flatMap((signal) => getEventListeners(signal, 'abort'))).toHaveLength(0)
})

/** What the process has open: sockets and the like by kind, and on Linux its file descriptors. */
async function openHandles(): Promise<Record<string, number>> {
  // What was closed a moment ago counts until the event loop has turned.
  await collect()
  const handles: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) {
    // The test runner has timers of its own.
    if (/^(TCP|Pipe|Shutdown|GetAddr)/.test(kind)) handles[kind] = (handles[kind] ?? 0) + 1
  }
  if (process.platform === 'linux') handles.files = readdirSync('/proc/self/fd').length
  return handles
}

/** Bytes of JavaScript objects that are still in use. */
async function heapInUse(): Promise<number> {
  await collect()
  return process.memoryUsage().heapUsed
}

/** The same with what lies outside the heap: the bytes in buffers. */
async function memoryInUse(): Promise<number> {
  await collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** Frees what nobody uses. Some of it is let go by callbacks of the collection before, hence the turns. */
async function collect(): Promise<void> {
  if (!global.gc) throw new Error('run with --expose-gc')
  for (let turn = 0; turn < 5; turn++) {
    global.gc()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** Resolves when a socket is closed, in whatever way. */
function whenClosed(socket: net.Socket): Promise<unknown> {
  return new Promise((resolve) => socket.once('close', resolve))
}

/** Resolves when a number has begun to grow and stopped again. */
async function whenSteady(read: () => number): Promise<void> {
  let last = 0
  const isSteady = () => {
    const before = last
    last = read()
    return last > 0 && last === before
  }
  await expect.poll(isSteady, { timeout: 20_000, interval: 500 }).toBe(true)
}

/** Pseudorandom bytes, made as they are taken. */
function pseudorandom(size: number) {
  const cipher = createCipheriv('aes-128-ctr', randomBytes(16), randomBytes(16))
  const zeros = Buffer.alloc(65_536)
  const hash = createHash('sha256')
  let sent = 0
  function* chunks() {
    for (; sent < size; sent += zeros.length) {
      const chunk = cipher.update(zeros)
      hash.update(chunk)
      yield chunk
    }
  }
  return { stream: Readable.from(chunks()), sent: () => sent, hash: () => hash.digest('hex') }
}

/** SHA-256 of all bytes until the end. */
async function hashOf(stream: Readable): Promise<string> {
  const hash = createHash('sha256')
  stream.on('data', (chunk) => hash.update(chunk)).resume()
  await once(stream, 'end')
  return hash.digest('hex')
}

/** Says its name, then sends back what it gets. */
function namedTarget(name: string) {
  return tcpTarget((socket) => {
    socket.write(named(name, ''))
    socket.pipe(socket)
  })
}

function named(name: string, bytes: Buffer | string): Buffer {
  return Buffer.concat([Buffer.from(`${name}: `), Buffer.from(bytes)])
}

/** A port that refuses. */
async function portOfNobody(): Promise<number> {
  await using target = await echoTarget()
  return target.port
}

/** Opens so many at once, and closes them all at the end of the scope. */
async function group<T extends AsyncDisposable>(count: number, open: (index: number) => Promise<T>) {
  const members = await Promise.all(Array.from({ length: count }, (_, index) => open(index)))
  return {
    members,
    at: (index: number) => members[index] as T,
    async [Symbol.asyncDispose]() {
      await Promise.all(members.map((member) => member[Symbol.asyncDispose]()))
    },
  }
}
