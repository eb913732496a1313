/** A tunnel that records passes on the same bytes and the same ends as one that does not, whatever goes through. */
import { once } from 'node:events'
import type net from 'node:net'
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { pEvent } from 'p-event'
import { openTunnel, type Tunnel } from 'pipe-tunnel'
import { expect, test } from 'vitest'
import { type SampleTarget, tcpTarget } from './helpers/targets.js'
import { ending, visit } from './helpers/visitor.js'

type Side = 'visitor' | 'target'

/** What one side says, in pieces, before the other one may speak. */
interface Turn {
  by: Side
  pieces: Buffer[]
}

/** A connection from its beginning to its end. */
interface Talk {
  turns: Turn[]
  /** Who stops first, and how; the other one still has something to say to an end. */
  first: Side
  firstEnds: 'end' | 'reset'
  late: Buffer
  secondEnds: 'end' | 'reset'
}

const PARTS: Record<Side, string[]> = {
  visitor: [
    'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
    'HEAD /a HTTP/1.1\r\n\r\n',
    'GET /old HTTP/1.0\r\n\r\n',
    'GET /oldest\r\n',
    'POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello',
    'POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!',
    'POST / HTTP/1.1\r\nContent-Length: 50\r\nExpect: 100-continue\r\n\r\n',
    'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n',
    'GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    'CONNECT a.test:443 HTTP/1.1\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    '\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00',
  ],
  target: [
    'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
    'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
    'HTTP/1.0 200 OK\r\n\r\nuntil the end',
    'HTTP/1.1 100 Continue\r\n\r\n',
    'HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00',
    'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n',
    'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n',
    'HTTP/1.1 304 Not Modified\r\n\r\nbut a body',
    '220 mail.test\r\n',
  ],
}
/** What either may say. */
const SHARED = [
  '5;name=value\r\nchunk\r\n',
  '0\r\nTrailer: x\r\n\r\n',
  '0\r\n\r\n',
  'ffffffffffff\r\n',
  '\r\n',
  '-1\r\n',
]

const side = fc.constantFrom<Side>('visitor', 'target')
const end = fc.constantFrom<'end' | 'reset'>('end', 'end', 'reset')
const bytes = fc.uint8Array({ minLength: 1, maxLength: 50 }).map((array) => Buffer.from(array))

const turn = side.chain((by) => {
  const known = fc.constantFrom(...PARTS[by], ...PARTS[by], ...SHARED)
  const part = fc.oneof(
    { weight: 6, arbitrary: known.map((text) => Buffer.from(text, 'latin1')) },
    { weight: 1, arbitrary: bytes },
  )
  const said = fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => Buffer.concat(parts))
  return fc.tuple(said, fc.array(fc.nat(60), { maxLength: 4 })).map(([all, sizes]): Turn => {
    const pieces: Buffer[] = []
    let rest = all
    for (const size of sizes) {
      if (size > 0 && size < rest.length) pieces.push(rest.subarray(0, size))
      if (size > 0 && size < rest.length) rest = rest.subarray(size)
    }
    return { by, pieces: [...pieces, rest] }
  })
})

const talk: fc.Arbitrary<Talk> = fc.record({
  turns: fc.array(turn, { maxLength: 8 }),
  first: side,
  firstEnds: end,
  late: bytes,
  secondEnds: end,
})

test('recording changes no byte and no end of a connection', async () => {
  await using target = await tcpTarget(() => {})
  await using plain = await openTunnel(target.address)
  await using inspected = await openTunnel(target.address, { inspect: true })
  await using told = await openTunnel(target.address, { inspect: { maxBodySize: 0, maxRequests: 0 } })
  let recorded = 0
  inspected.on('request', () => recorded++)
  const property = fc.asyncProperty(talk, async (one) => {
    const wanted = await hold(one, plain, target)
    expect(await hold(one, inspected, target)).toEqual(wanted)
    expect(await hold(one, told, target)).toEqual(wanted)
  })
  await fc.assert(property, { numRuns: 100 })
  // How many of them are requests is a matter of chance.
  expect(recorded).toBeGreaterThan(0)
})

/** Has a talk through a tunnel, and gives back what each side heard and how that ended. */
async function hold(
  { turns, first, firstEnds, late, secondEnds }: Talk,
  tunnel: Tunnel,
  target: SampleTarget,
) {
  const arrival = once(target.server, 'connection')
  const visitor = await visit(tunnel)
  const [served] = (await arrival) as [net.Socket]
  const sockets = { visitor, target: served }
  const heard = { visitor: listen(visitor), target: listen(served) }
  const other = (one: Side) => (one === 'visitor' ? 'target' : 'visitor')
  for (const { by, pieces } of turns) {
    for (const piece of pieces) {
      sockets[by].write(piece)
      await setImmediate()
    }
    await heard[other(by)].more(Buffer.concat(pieces).length)
  }
  const second = other(first)
  const ends: Partial<Record<Side, string>> = {}
  const seen = ending(sockets[second])
  if (firstEnds === 'reset') {
    sockets[first].resetAndDestroy()
    ends[second] = await seen
  } else {
    sockets[first].end()
    ends[second] = await seen
    sockets[second].write(late)
    await heard[first].more(late.length)
    const answered = ending(sockets[first])
    if (secondEnds === 'reset') sockets[second].resetAndDestroy()
    else sockets[second].end()
    ends[first] = await answered
  }
  for (const socket of Object.values(sockets)) socket.destroy()
  return { ends, visitor: heard.visitor.all(), target: heard.target.all() }
}

/** Collects what a socket hears. */
function listen(socket: net.Socket) {
  const chunks: Buffer[] = []
  let [length, wanted] = [0, 0]
  socket.on('data', (chunk) => {
    chunks.push(chunk)
    length += chunk.length
  })
  return {
    all: () => Buffer.concat(chunks).toString('latin1'),
    /** Resolves when so many bytes more have come. */
    async more(count: number) {
      wanted += count
      while (length < wanted) await pEvent(socket, 'data', { timeout: 30_000, rejectionEvents: ['close'] })
    },
  }
}
