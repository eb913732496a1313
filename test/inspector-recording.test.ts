/** What is recorded of a connection, by its bytes alone, and that nothing of it keeps too much. */
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { valuesOf } from '../src/inspector/record.js'
import { type InspectOptions, Recorder } from '../src/inspector/recorder.js'
import type { Recording } from '../src/inspector/recording.js'
import { HttpTap } from '../src/inspector/tap.js'
import type { Direction } from '../src/lane.js'
import type { Tap } from '../src/relay.js'

const ORIGIN = { connection: 'a-connection', visitor: { address: '192.0.2.1', port: 5_000 } }

/** What goes over a connection: bytes by direction, in their order. */
type Talk = [direction: Direction, bytes: Buffer | string][]

const GET: Talk = [
  ['in', 'GET /a?b=c HTTP/1.1\r\nHost: a.test\r\nX-Two: 1\r\nx-two: 2\r\n\r\n'],
  ['out', 'HTTP/1.1 200 Very OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello'],
]
const POST: Talk = [
  [
    'in',
    'POST /form HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n',
  ],
  ['out', 'HTTP/1.1 100 Continue\r\n\r\n'],
  ['out', 'HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmade\r\n0\r\n\r\n'],
]
const CHUNKS: Talk = [
  ['in', 'PUT /chunks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n'],
  [
    'in',
    '1\r\na\r\n01\r\nb\r\nA\r\n0123456789\r\n00000000f\r\n0123456789abc\r\n\r\n2;x\r\n\r\n\r\n0\r\n\r\n',
  ],
  ['out', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n'],
  ['out', '1\r\n!\r\n000\r\n\r\n'],
]
const HEAD: Talk = [
  ['in', 'HEAD / HTTP/1.1\r\n\r\n'],
  ['out', 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n'],
]
const NOT_MODIFIED: Talk = [
  ['in', 'GET /cached HTTP/1.1\r\n\r\n'],
  ['out', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n'],
]

describe('a request is recorded', () => {
  test('with its head, its body, and those of its answer', async () => {
    const [request] = await record([...POST, ...GET])
    expect(summary(request)).toEqual(['POST', '/form', 'abcde', 201, 'made', 'complete'])
    const [, second] = await record([...POST, ...GET])
    expect(second).toMatchObject({
      ...ORIGIN,
      httpVersion: '1.1',
      headers: [
        ['Host', 'a.test'],
        ['X-Two', '1'],
        ['x-two', '2'],
      ],
      response: { statusText: 'Very OK', httpVersion: '1.1' },
    })
    expect(valuesOf(second?.response?.headers ?? [], 'content-type')).toEqual(['text/plain'])
    expect(second?.duration).toBeGreaterThanOrEqual(second?.response?.after ?? Number.NaN)
  })

  test.each<[string, Talk, unknown[][]]>([
    [
      'of HEAD, whose answer has a length and no body',
      [...HEAD, ...GET],
      [
        ['HEAD', '/', '', 200, '', 'complete'],
        ['GET', '/a?b=c', '', 200, 'hello', 'complete'],
      ],
    ],
    [
      'of an answer without a body',
      [...NOT_MODIFIED, ...GET],
      [
        ['GET', '/cached', '', 304, '', 'complete'],
        ['GET', '/a?b=c', '', 200, 'hello', 'complete'],
      ],
    ],
    [
      'of those that are sent before others are answered',
      [
        ...[...GET, ...HEAD, ...POST].filter(([direction]) => direction === 'in'),
        ...[...GET, ...HEAD, ...POST].filter(([direction]) => direction === 'out'),
      ],
      [
        ['GET', '/a?b=c', '', 200, 'hello', 'complete'],
        ['HEAD', '/', '', 200, '', 'complete'],
        ['POST', '/form', 'abcde', 201, 'made', 'complete'],
      ],
    ],
    [
      'in chunks of every kind',
      CHUNKS,
      [['PUT', '/chunks', 'ab01234567890123456789abc\r\n\r\n', 200, 'ok!', 'complete']],
    ],
    [
      'in chunks, one of which is longer than it says',
      [
        ['in', 'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nabc\r\n0\r\n\r\n'],
        ...GET,
      ],
      [['POST', '/', 'aab', undefined, undefined, 'aborted']],
    ],
    [
      'that is answered before it is sent in full',
      [
        ['in', 'PUT / HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc'],
        ['out', 'HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n'],
      ],
      [['PUT', '/', 'abc', 413, '', 'complete']],
    ],
    [
      'that breaks off',
      [['in', 'PUT / HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc']],
      [['PUT', '/', 'abc', undefined, undefined, 'aborted']],
    ],
    [
      'whose answer breaks off',
      [
        ['in', 'GET / HTTP/1.1\r\n\r\n'],
        ['out', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'],
      ],
      [['GET', '/', '', 200, 'abc', 'aborted']],
    ],
    [
      'in front of one that is none',
      [...GET, ['in', 'not a request\r\n\r\n']],
      [['GET', '/a?b=c', '', 200, 'hello', 'complete']],
    ],
    [
      'whose answer is none',
      [
        ['in', 'GET / HTTP/1.1\r\n\r\n'],
        ['out', 'SSH-2.0-OpenSSH\r\n\r\n'],
      ],
      [['GET', '/', '', undefined, undefined, 'aborted']],
    ],
    [
      'whose upgrade is accepted, with what is said from then on',
      [
        ['in', 'GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'],
        ['out', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello'],
        ['in', 'GET / HTTP/1.1\r\n\r\n'],
        ['out', 'bye'],
      ],
      [['GET', '/chat', 'GET / HTTP/1.1\r\n\r\n', 101, 'hellobye', 'complete']],
    ],
    [
      'whose upgrade is refused, and the next one',
      [
        ['in', 'GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'],
        ['in', 'GET /a?b=c HTTP/1.1\r\n\r\n'],
        ['out', 'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n'],
        ...GET.slice(1),
      ],
      [
        ['GET', '/chat', '', 400, '', 'complete'],
        ['GET', '/a?b=c', '', 200, 'hello', 'complete'],
      ],
    ],
    [
      'of CONNECT, with what goes through',
      [
        ['in', 'CONNECT a.test:443 HTTP/1.1\r\n\r\n'],
        ['out', 'HTTP/1.1 200 OK\r\n\r\n'],
        ['in', 'ping'],
        ['out', 'pong!'],
      ],
      [['CONNECT', 'a.test:443', 'ping', 200, 'pong!', 'complete']],
    ],
  ])('%s', async (_, talk, wanted) => {
    expect((await record(talk)).map(summary)).toEqual(wanted)
    const splits = talk.flatMap(
      ([direction, bytes]): Talk => [...Buffer.from(bytes)].map((byte) => [direction, Buffer.of(byte)]),
    )
    expect((await record(splits)).map(summary)).toEqual(wanted)
  })

  test('whose answer ends with the connection', async () => {
    const { tap, recorder } = await start()
    play(tap, [
      ['in', 'GET / HTTP/1.0\r\n\r\n'],
      ['out', 'HTTP/1.0 200 OK\r\n\r\nall of it'],
    ])
    expect(recorder.all[0]?.state).toBe('open')
    tap.end('out')
    expect(recorder.all.map((one) => summary(one))).toEqual([['GET', '/', '', 200, 'all of it', 'complete']])
  })

  test('the same, however its bytes are split', async () => {
    const one = fc.constantFrom(GET, POST, CHUNKS, HEAD, NOT_MODIFIED)
    const property = fc.asyncProperty(
      fc.array(one, { minLength: 1, maxLength: 6 }),
      fc.array(fc.nat(200)),
      async (talks, cuts) => {
        const whole = (await record(talks.flat())).map(summary)
        expect(whole).toHaveLength(talks.length)
        const split = talks
          .flat()
          .flatMap(
            ([direction, bytes]): Talk => cut(Buffer.from(bytes), cuts).map((piece) => [direction, piece]),
          )
        expect((await record(split)).map(summary)).toEqual(whole)
      },
    )
    await fc.assert(property, { numRuns: 200 })
  })
})

describe('what is no HTTP/1 is not recorded', () => {
  test.each<[string, Talk]>([
    ['a handshake of TLS', [['in', Buffer.from('160301020001', 'hex')]]],
    ['HTTP/2', [['in', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']]],
    [
      'a server that speaks first',
      [
        ['out', '220 mail.test\r\n'],
        ['in', 'GET / HTTP/1.1\r\n\r\n'],
      ],
    ],
    ['a line that ends in another way', [['in', 'GET / HTTP/1.1\n\n']]],
    ['text', [['in', 'GETTING / HTTP/1.1\r\n\r\n']]],
  ])('%s', async (_, talk) => {
    expect(await record(talk)).toEqual([])
  })

  test('nor does any of it throw, or go on for ever', async () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      fc
        .constantFrom(
          'GET / HTTP/1.1\r\n',
          'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n',
          'Content-Length: -5\r\n',
          'Content-Length: 5\r\n',
          '\r\n',
          '-6\r\n',
          '0\r\n',
          'ffffffffffffffff\r\n',
          'HTTP/1.1 200 OK\r\n',
          'HTTP/1.1 101 \r\n\r\n',
          'HTTP/1.1 100 \r\n\r\n',
          'Upgrade: x\r\nConnection: upgrade\r\n',
          ' folded\r\n',
        )
        .map((text) => Buffer.from(text)),
    )
    const step = fc.tuple(fc.constantFrom<Direction>('in', 'out'), piece)
    const property = fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (talk) => {
      const { tap, recorder } = await start()
      play(tap, [['in', 'GET / HTTP/1.1\r\n'], ...talk])
      tap.end('out')
      tap.close()
      for (const request of recorder.all) expect(request.state).not.toBe('open')
    })
    await fc.assert(property, { numRuns: 1_000 })
  })
})

describe('memory is bounded', () => {
  test('of a body, of which the beginning is kept', async () => {
    const [request] = await record(answered('x'.repeat(5_000)), { maxBodySize: 1_000 })
    expect(request?.response?.body).toMatchObject({ size: 5_000, isTruncated: true })
    expect(request?.response?.body.bytes).toHaveLength(1_000)
  })

  test('of a body that comes in single bytes', async () => {
    const { tap, recorder } = await start({ maxBodySize: 100_000 })
    play(tap, [['in', 'POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n']])
    for (let sent = 0; sent < 200_000; sent++) tap.bytes('in', Buffer.of(120))
    expect((recorder.all[0] as Recording).cost).toBeLessThan(110_000)
  })

  test('of the number of requests, the oldest of which make room', async () => {
    const talk = Array.from({ length: 10 }, () => GET).flat()
    const { tap, recorder } = await start({ maxRequests: 3 })
    play(tap, talk)
    const ids = recorder.all.map(({ id }) => id)
    expect(ids).toHaveLength(3)
    expect(ids).toEqual([...ids].sort((one, other) => one - other))
  })

  test('of all bodies together', async () => {
    const { tap, recorder } = await start({ maxBodySize: 10_000_000 })
    for (let count = 0; count < 12; count++) play(tap, answered('x'.repeat(8_000_000)))
    const kept = recorder.all.reduce((sum, one) => sum + (one.response?.body.bytes.length ?? 0), 0)
    expect(kept).toBeGreaterThan(40_000_000)
    expect(kept).toBeLessThanOrEqual(67_108_864)
  })

  test('of requests that are never answered: what had to make room keeps nothing', async () => {
    const { tap, recorder } = await start({ maxRequests: 0 })
    const told: Recording[] = []
    recorder.on('change', (request) => told.push(request as Recording))
    play(tap, [
      [
        'in',
        `POST /${'a'.repeat(5_000)} HTTP/1.1\r\nX: ${'b'.repeat(5_000)}\r\nContent-Length: 3\r\n\r\nabc`,
      ],
    ])
    expect(recorder.all).toEqual([])
    expect(told[0]?.headers).toEqual([])
    expect(told[0]?.url).toHaveLength(1_024)
    expect(told[0]?.body).toMatchObject({ size: 3, isTruncated: true })
  })

  test('of headers that are many and small', async () => {
    const headers = 'a:\r\n'.repeat(16_000)
    const { recorder } = await start()
    for (let count = 0; count < 100; count++) {
      play(new HttpTap(recorder, ORIGIN), [
        ['in', `GET / HTTP/1.1\r\n${headers}\r\n`],
        ['out', `HTTP/1.1 204 No Content\r\n${headers}\r\n`],
      ])
    }
    const kept = recorder.all.flatMap((one) => [...one.headers, ...(one.response?.headers ?? [])])
    expect(kept.length).toBeGreaterThan(100_000)
    expect(kept.length).toBeLessThan(67_108_864 / 100)
  })

  test('of requests that go on and had to make room, the heads of which are forgotten', async () => {
    const { recorder } = await start({ maxRequests: 0 })
    const taps = Array.from({ length: 5 }, () => new HttpTap(recorder, ORIGIN))
    const before = heap()
    for (const tap of taps) {
      for (let count = 0; count < 200; count++)
        play(tap, [
          ['in', `GET /${'a'.repeat(2_000)} HTTP/1.1\r\nX: ${'b'.repeat(60_000)}\r\n\r\n`],
          ...(count === 0 ? ([['out', `HTTP/1.1 200 ${'c'.repeat(60_000)}\r\n\r\n`]] as Talk) : []),
        ])
    }
    expect(heap() - before).toBeLessThan(20_000_000)
    for (const tap of taps) tap.close()
  })

  test('of a head without an end, and of a line of chunks', async () => {
    for (const beginning of [
      'GET / HTTP/1.1\r\nX: ',
      'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;',
    ]) {
      const { tap, recorder } = await start()
      play(tap, [
        ['in', beginning],
        ...Array.from({ length: 10 }, (): Talk[number] => ['in', 'x'.repeat(10_000)]),
      ])
      for (const request of recorder.all) expect(request.state).toBe('aborted')
      // It is over: nothing that comes now is a request.
      play(tap, GET)
      expect(recorder.all.filter(({ url }) => url === '/a?b=c')).toEqual([])
    }
  })

  test('of requests that wait for their answers', async () => {
    const { tap, recorder } = await start()
    for (let count = 0; count < 1_000; count++) play(tap, GET.slice(0, 1))
    expect(recorder.all.length).toBeLessThanOrEqual(256)
  })
})

test('a body is a copy: the memory that it came in is used again', async () => {
  const { tap, recorder } = await start()
  const memory = Buffer.from('POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc')
  tap.bytes('in', memory)
  memory.fill(0)
  expect(recorder.all[0]?.body.bytes.toString()).toBe('abc')
})

test('a head that comes in two pieces does not depend on the memory of the first', async () => {
  const { tap, recorder } = await start()
  const memory = Buffer.from('GET /there HTTP/1.1\r\nHo')
  tap.bytes('in', memory)
  memory.fill(0)
  tap.bytes('in', Buffer.from('st: a.test\r\n\r\n'))
  expect(recorder.all[0]).toMatchObject({ url: '/there', headers: [['Host', 'a.test']] })
})

test('requests are read as they end, by any number of readers, until the recorder is closed', async () => {
  const { tap, recorder } = await start()
  play(tap, GET)
  const urls = async () => {
    const seen: string[] = []
    for await (const { url } of recorder) seen.push(url)
    return seen
  }
  const readers = [urls(), urls()]
  await new Promise(setImmediate)
  play(tap, POST)
  recorder.close()
  expect(await Promise.all(readers)).toEqual([
    ['/a?b=c', '/form'],
    ['/a?b=c', '/form'],
  ])
})

test('a reader can be left while it waits for the next request, and the others read on', async () => {
  const { tap, recorder } = await start()
  const [reader, other] = [recorder[Symbol.asyncIterator](), recorder[Symbol.asyncIterator]()]
  const [waiting, read] = [reader.next(), other.next()]
  await reader.return?.()
  expect(await waiting).toEqual({ value: undefined, done: true })
  play(tap, GET)
  expect(await read).toMatchObject({ value: { url: '/a?b=c' } })
  expect(await reader.next()).toEqual({ value: undefined, done: true })
})

test('a value keeps the bytes of its letters, also one that looks like a space in Latin-1', async () => {
  const [request] = await record([
    ['in', 'GET / HTTP/1.1\r\nX-Name: \t voilà\t \r\n\r\n'],
    ['out', 'HTTP/1.1 204 \r\n\r\n'],
  ])
  expect(Buffer.from(request?.headers[0]?.[1] ?? '', 'latin1').toString()).toBe('voilà')
})

test('a coded body is kept as it came', async () => {
  const coded = gzipSync('hello')
  const [request] = await record(answered(coded, 'Content-Encoding: gzip\r\n'))
  expect(request?.response?.body.bytes).toEqual(coded)
})

/** What is kept on the heap, in bytes. */
function heap(): number {
  global.gc?.()
  return process.memoryUsage().heapUsed
}

function answered(body: Buffer | string, headers = ''): Talk {
  return [
    ['in', 'GET / HTTP/1.1\r\n\r\n'],
    ['out', `HTTP/1.1 200 OK\r\n${headers}Content-Length: ${body.length}\r\n\r\n`],
    ['out', body],
  ]
}

async function start(options: InspectOptions = {}) {
  const recorder = new Recorder({ maxBodySize: 1_048_576, maxRequests: 1_000, ...options })
  return { recorder, tap: new HttpTap(recorder, ORIGIN) }
}

function play(tap: Tap, talk: Talk): void {
  for (const [direction, bytes] of talk) tap.bytes(direction, Buffer.from(bytes))
}

/** All that is recorded of a connection that is closed behind this. */
async function record(talk: Talk, options?: InspectOptions) {
  const { tap, recorder } = await start(options)
  play(tap, talk)
  tap.close()
  return recorder.all
}

function summary(request: Awaited<ReturnType<typeof record>>[number] | undefined) {
  const { method, url, body, response, state } = request ?? {}
  return [method, url, body?.bytes.toString(), response?.status, response?.body.bytes.toString(), state]
}

/** In pieces, of which the sizes are given in turn. */
function cut(bytes: Buffer, sizes: number[]): Buffer[] {
  const pieces: Buffer[] = []
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = 1 + (sizes[turn % sizes.length] ?? bytes.length)
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}
