/** Requests that are made to name the target's host, and all that must be left as it is. */
import { once } from 'node:events'
import http from 'node:http'
import type net from 'node:net'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import { pEvent } from 'p-event'
import { type Connection, forward, openTunnel, type TunnelOptions } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { hostRewriter } from '../src/host-header.js'
import { parseTarget } from '../src/target.js'
import { pipe } from './helpers/command.js'
import {
  answerAtEndTarget,
  httpTarget,
  readAll,
  silentTarget,
  tcpTarget,
  unixTarget,
} from './helpers/targets.js'
import { ask, ending, settled, visit } from './helpers/visitor.js'

const HOST = 'localhost:3000'

/** A request with these lines, and a body. */
const request = (lines: string[], body = '') => [...lines, '', body].join('\r\n')

const get = request(['GET / HTTP/1.1', 'Host: public.test:20000'])
const gotten = request(['GET / HTTP/1.1', `Host: ${HOST}`])

describe('a request names the host of the target', () => {
  test.each<[string, string, string]>([
    ['alone', get, gotten],
    ['of HTTP/1.0', get.replace('1.1', '1.0'), gotten.replace('1.1', '1.0')],
    ['behind others', get + get + get, gotten + gotten + gotten],
    ['behind empty lines', `${get}\r\n\r\n${get}`, `${gotten}\r\n\r\n${gotten}`],
    [
      'however its header is written, and the others stay as they are',
      request(['M-SEARCH * HTTP/1.1', 'a: \u00e9', 'hOST:public.test', 'b:', 'c:  d ']),
      request(['M-SEARCH * HTTP/1.1', 'a: \u00e9', `hOST: ${HOST}`, 'b:', 'c:  d ']),
    ],
    [
      'behind a body of a length that looks like a request',
      request(['POST / HTTP/1.1', 'Host: public.test', `Content-Length: ${get.length}`], get) + get,
      request(['POST / HTTP/1.1', `Host: ${HOST}`, `Content-Length: ${get.length}`], get) + gotten,
    ],
    [
      'behind chunks that look like a request, with extensions and trailers',
      request(
        ['PUT / HTTP/1.1', 'Host: public.test', 'Transfer-Encoding: Chunked'],
        `${get.length.toString(16)};a="b"\r\n${get}\r\n0A\r\n0123456789\r\n000\r\nHost: public.test\r\n\r\n`,
      ) + get,
      request(
        ['PUT / HTTP/1.1', `Host: ${HOST}`, 'Transfer-Encoding: Chunked'],
        `${get.length.toString(16)};a="b"\r\n${get}\r\n0A\r\n0123456789\r\n000\r\nHost: public.test\r\n\r\n`,
      ) + gotten,
    ],
    [
      'in Origin and Referer, where they named the host that was visited',
      request([
        'GET / HTTP/1.1',
        'Host: Public.test',
        'Origin: https://public.test',
        'Referer: http://public.test/a?b',
      ]),
      request(['GET / HTTP/1.1', `Host: ${HOST}`, `Origin: http://${HOST}`, `Referer: http://${HOST}/a?b`]),
    ],
    [
      'and not in those of other sites',
      request([
        'GET / HTTP/1.1',
        'Origin: http://public.test.evil.test',
        'Host: public.test',
        'Referer: http://evil.test/?http://public.test/',
        'X-Origin: http://public.test',
      ]),
      request([
        'GET / HTTP/1.1',
        'Origin: http://public.test.evil.test',
        `Host: ${HOST}`,
        'Referer: http://evil.test/?http://public.test/',
        'X-Origin: http://public.test',
      ]),
    ],
    [
      'and an Origin that is none stays',
      request(['GET / HTTP/1.1', 'Host: public.test', 'Origin: null', 'Referer: ']),
      request(['GET / HTTP/1.1', `Host: ${HOST}`, 'Origin: null', 'Referer: ']),
    ],
    [
      'and one without a host gets none',
      request(['GET / HTTP/1.0', 'a: b']),
      request(['GET / HTTP/1.0', 'a: b']),
    ],
  ])('%s', async (_, sent, wanted) => {
    expect(await rewritten([sent])).toBe(wanted)
    // Split at every byte.
    expect(await rewritten([...sent])).toBe(wanted)
    for (let at = 1; at < sent.length; at++) {
      expect(await rewritten([sent.slice(0, at), sent.slice(at)])).toBe(wanted)
    }
  })

  test('of any sequence, split anywhere', async () => {
    const body = fc.string({
      unit: fc.constantFrom('a', '\r', '\n', '0', 'GET / HTTP/1.1\r\n', 'Host: x\r\n'),
    })
    const one = fc.oneof(
      fc.constant(['', '']),
      body.map((text) => [`Content-Length: ${text.length}\r\n`, text]),
      fc
        .array(body.filter((text) => text.length > 0))
        .map((chunks) => [
          'Transfer-Encoding: chunked\r\n',
          [...chunks.map((text) => `${text.length.toString(16)}\r\n${text}\r\n`), '0\r\n\r\n'].join(''),
        ]),
    )
    const cuts = fc.array(fc.nat(2_000))
    const property = fc.asyncProperty(fc.array(one, { minLength: 1 }), cuts, async (bodies, cuts) => {
      const all = (host: string) =>
        bodies.map(([header, text]) => `POST / HTTP/1.1\r\nHost: ${host}\r\n${header}\r\n${text}`).join('')
      const sent = all('public.test')
      const places = [0, ...cuts.filter((at) => at < sent.length).sort((a, b) => a - b), sent.length]
      const pieces = places
        .slice(1)
        .map((at, index) => sent.slice(places[index], at))
        .filter(Boolean)
      expect(await rewritten(pieces)).toBe(all(HOST))
    })
    await fc.assert(property, { numRuns: 300 })
  })
})

describe('what is no HTTP/1 is passed at once and unchanged', () => {
  test.each<[string, string | Buffer]>([
    ['a TLS handshake', Buffer.from('1603010200010001fc0303', 'hex')],
    ['the beginning of HTTP/2', `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${get}`],
    ['another version', get.replace('1.1', '2.0')],
    ['HTTP/0.9', 'GET /\r\n'],
    ['lines that end otherwise', get.replaceAll('\r\n', '\n')],
    ['a word', 'HELLO'],
    ['a method that is none', get.replace('GET', 'GOT')],
    ['a mail', 'EHLO public.test\r\nHost: public.test\r\n\r\n'],
    ['a line of a store', 'GET key\r\n'],
    ['spaces', '   '],
    ['bytes', Buffer.from([0, 255, 128, 13, 10, 13, 10, 0])],
  ])('%s', async (_, sent) => {
    await using target = await tcpTarget((socket) => socket.pipe(socket))
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    const visitor = await visit(tunnel)
    visitor.write(sent)

    let seen = Buffer.alloc(0)
    while (seen.length < sent.length) seen = Buffer.concat([seen, ...(await once(visitor, 'data'))])

    expect(seen).toEqual(Buffer.from(sent))
    visitor.end(get)
    expect(`${await readAll(visitor)}`).toBe(get)
  })

  test('the beginning of a request, where no more comes', async () => {
    await using target = await answerAtEndTarget((all) => all)
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    for (const begun of ['', 'G', 'GET', 'GET /', 'GET / HTTP/1.1\r']) {
      expect(`${await ask(tunnel, begun)}`).toBe(begun)
    }
  })
})

describe('a visitor is cut off where two readers could see another end of its request', () => {
  const post = ['POST / HTTP/1.1', 'Host: public.test']
  const chunked = [...post, 'Transfer-Encoding: chunked']
  test.each<[string, string]>([
    ['a length and chunks', request([...chunked, 'Content-Length: 5'], '0\r\n\r\n')],
    [
      'chunks and a length',
      request([...post, 'Content-Length: 5', 'Transfer-Encoding: chunked'], '0\r\n\r\n'),
    ],
    ['two lengths', request([...post, 'Content-Length: 5', 'Content-Length: 6'], '012345')],
    ['the same length twice', request([...post, 'Content-Length: 5', 'content-length: 5'], '01234')],
    ['a list of lengths', request([...post, 'Content-Length: 5, 5'], '01234')],
    ['a length with a sign', request([...post, 'Content-Length: +5'], '01234')],
    ['a length below 0', request([...post, 'Content-Length: -1'])],
    ['a length in hex', request([...post, 'Content-Length: 0x5'], '01234')],
    ['an empty length', request([...post, 'Content-Length: '])],
    ['a length beyond all bounds', request([...post, `Content-Length: ${'9'.repeat(20)}`])],
    ['codings', request([...post, 'Transfer-Encoding: gzip, chunked'], '0\r\n\r\n')],
    ['another coding', request([...post, 'Transfer-Encoding: xchunked'], '0\r\n\r\n')],
    ['chunked twice', request([...chunked, 'Transfer-Encoding: chunked'], '0\r\n\r\n')],
    ['chunks in HTTP/1.0', request(chunked, '0\r\n\r\n').replace('1.1', '1.0')],
    ['a space in front of the colon', request([...post, 'Transfer-Encoding : chunked'], '0\r\n\r\n')],
    ['a header over two lines', request([...post, 'Transfer-Encoding:', ' chunked'], '0\r\n\r\n')],
    ['a header without a name', request([...post, ': chunked'])],
    ['a header without a colon', request([...post, 'chunked'])],
    ['a line that ends with LF', request([...post, 'A: b\nContent-Length: 5'])],
    ['CR within a line', request([...post, 'A: b\rContent-Length: 5'])],
    ['LF in place of an empty line', `${post.join('\r\n')}\r\n\n`],
    ['NUL within a line', request([...post, 'A: b\0'])],
    ['two hosts', request([...post, 'Host: public.test'])],
    ['a chunk without a size', request(chunked, '\r\n\r\n')],
    ['a chunk size with a space', request(chunked, '5 \r\n01234\r\n0\r\n\r\n')],
    ['a chunk size below 0', request(chunked, '-1\r\n')],
    ['a chunk size beyond all bounds', request(chunked, 'f0000000000000005\r\n01234\r\n')],
    ['a chunk size that ends with LF', request(chunked, '5\n01234\r\n0\r\n\r\n')],
    ['a chunk that is longer than its size', request(chunked, '4\r\n01234\r\n0\r\n\r\n')],
    ['something else behind a request', `${get}hello\r\n`],
    ['HTTP/2 behind a request', `${get}PRI * HTTP/2.0\r\n\r\n`],
    ['a head that never ends', `${request([...post, `A: ${'a'.repeat(70_000)}`])}`],
    ['headers without end', `${post.join('\r\n')}\r\n${'a: b\r\n'.repeat(20_000)}`],
    ['a line of chunks that never ends', request(chunked, `5;${'a'.repeat(70_000)}`)],
  ])('%s', async (_, sent) => {
    const seen: Buffer[] = []
    await using target = await tcpTarget((socket) => socket.on('data', (chunk) => seen.push(chunk)))
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    const connected = pEvent<'connection', Connection>(tunnel, 'connection')
    const visitor = await visit(tunnel)
    visitor.write(sent, 'latin1')

    expect(await ending(visitor)).toBe('reset')
    const { error } = await (await connected).closed
    expect(error?.code).toBe('protocol-violation')
    expect(error?.message).toMatch(/^a request of the visitor is not clear, as .*: leave hostHeader out/)
    // Nothing that was unclear got through.
    const passed = Buffer.concat(seen).toString()
    expect([...passed.matchAll(/hello|PRI|Content-Length|a{9}|01234/g)]).toEqual([])
  })

  test('and one that ends in the middle of a head', async () => {
    await using target = await silentTarget()
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    const connected = pEvent<'connection', Connection>(tunnel, 'connection')
    const visitor = await visit(tunnel)
    visitor.end('GET / HTTP/1.1\r\nHost: public')

    expect(await ending(visitor)).toBe('reset')
    expect((await (await connected).closed).error?.message).toContain('it breaks off')
  })
})

test('a server of Node sees no other requests than without a tunnel, whatever bytes come', async () => {
  let seen: string[] = []
  await using target = await httpTarget((request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', () => seen.push(`${request.method} ${request.url} ${body} ${request.rawTrailers}`))
    response.end()
  })
  const seenIn = async (bytes: string) => {
    seen = []
    const visitor = await visit(target)
    visitor.end(bytes, 'latin1')
    await ending(visitor)
    return seen
  }
  let passed = 0
  const property = fc.asyncProperty(fc.array(almostRequest, { minLength: 1, maxLength: 4 }), async (all) => {
    const direct = await seenIn(all.join(''))
    const through = await seenIn(await rewritten([...all.join('')]))
    passed += through.length
    // Who is cut off is not heard any more.
    expect(through).toEqual(direct.slice(0, through.length))
  })
  await fc.assert(property, { numRuns: 1_000 })
  expect(passed).toBeGreaterThan(300)
}, 120_000)

describe('a request for another protocol', () => {
  const upgrade = request([
    'GET / HTTP/1.1',
    'Host: public.test',
    'Connection: keep-alive, Upgrade',
    'Upgrade: echo',
  ])
  const accepted = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n'

  test('is rewritten, and what follows is not, once it is accepted', async () => {
    await using target = await upgradeTarget([accepted])
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    const visitor = await visit(tunnel)
    visitor.write(upgrade)
    await hear(visitor, /\r\n\r\n$/)

    visitor.end(get)

    expect(`${await readAll(visitor)}`).toBe(get)
    expect(target.heads).toEqual([upgrade.replace('public.test', target.address)])
  })

  test('has a body that is no part of what follows', async () => {
    await using target = await upgradeTarget([accepted])
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    const visitor = await visit(tunnel)
    visitor.end(`${upgrade.replace('\r\n\r\n', '\r\nContent-Length: 3\r\n\r\n')}GET${get}`)

    expect(`${await readAll(visitor)}`).toBe(`${accepted}GET${get}`)
  })

  test('holds what comes at once behind it until it is answered', async () => {
    await using target = await upgradeTarget([`HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n${accepted}`])
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })

    expect(`${await ask(tunnel, upgrade + get)}`).toMatch(/101 Switching[\s\S]*public\.test:20000\r\n\r\n$/)
  })

  test('that is refused is followed by requests, which are rewritten', async () => {
    await using target = await httpTarget((request, response) => response.end(`for ${request.headers.host}`))
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    const visitor = await visit(tunnel)
    const again = get.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')

    visitor.end(upgrade + again)

    const answers = `${await readAll(visitor)}`
    expect(answers.split(`for ${target.address}`)).toHaveLength(3)
  })

  test('behind another request is followed by what can not be told', async () => {
    await using target = await answerAtEndTarget((all) => all)
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })

    const seen = `${await ask(tunnel, get + upgrade + get)}`

    expect(seen.endsWith(get)).toBe(true)
    expect(seen.match(/public\.test/g)).toHaveLength(1)
  })

  test('is no concern once the target is gone', async () => {
    await using target = await tcpTarget((socket) => socket.once('data', () => socket.end()))
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    const visitor = await visit(tunnel)
    visitor.end(upgrade + get)

    await readAll(visitor)
  })

  test('CONNECT is followed by anything', async () => {
    await using target = await answerAtEndTarget((all) => all)
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    const connect = request(['CONNECT db.test:443 HTTP/1.1'])

    expect(`${await ask(tunnel, connect + get)}`).toBe(connect + get)
  })
})

describe('an HTTP server', () => {
  const open: [
    string,
    (target: string, options: Pick<TunnelOptions, 'hostHeader' | 'limit'>) => ReturnType<typeof openTunnel>,
  ][] = [
    ['openTunnel', openTunnel],
    ['forward', (target, options) => forward(0, target, options)],
  ]
  test.each(open)('gets requests over one connection for its own host, by %s', async (_, open) => {
    await using target = await httpTarget(async (request, response) => {
      const body = await readAll(request)
      response.end(`${request.headers.host} ${body.length}`)
    })
    await using tunnel = await open(target.address, { hostHeader: 'rewrite' })
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    for (const size of [1, 70_000, 1_000_000]) {
      const sized = { 'content-length': String(size) }
      for (const headers of [
        sized,
        { 'transfer-encoding': 'chunked' },
        { ...sized, expect: '100-continue' },
      ]) {
        const asked = http.request(tunnel.url, { method: 'POST', agent, headers })
        if ('expect' in headers) {
          asked.flushHeaders()
          await once(asked, 'continue')
        }
        asked.end(Buffer.alloc(size))
        const [response] = await once(asked, 'response')
        expect(`${await readAll(response)}`).toBe(`${target.address} ${size}`)
      }
    }
    agent.destroy()
    expect(tunnel.stats.connections).toBe(1)
  })

  test.each([
    ['rewrite', undefined],
    ['app.test:8080', 'app.test:8080'],
    ['[::1]:80', '[::1]:80'],
    ['app_1', 'app_1'],
  ])('is told by hostHeader %j', async (hostHeader, wanted) => {
    await using target = await httpTarget((request, response) => response.end(request.headers.host))
    await using tunnel = await openTunnel(target.address, { hostHeader })

    expect(await (await fetch(tunnel.url)).text()).toBe(wanted ?? target.address)
  })

  test('is localhost where it has no address', async () => {
    await using tunnel = await openTunnel((request, response) => response.end(request.headers.host), {
      hostHeader: 'rewrite',
    })
    expect(await (await fetch(tunnel.url)).text()).toBe('localhost')

    await using target = await unixTarget((socket) => socket.once('data', (head) => socket.end(head)))
    await using other = await forward(0, target.address, { hostHeader: 'rewrite' })
    expect(`${await ask(other, get)}`).toContain('Host: localhost\r\n')
  })

  test.each([
    ['http://localhost', 'localhost'],
    ['http://[::1]:80', '[::1]'],
    ['http://localhost:8080', 'localhost:8080'],
    ['tcp:db.test:5432', 'db.test:5432'],
  ])('at %s is known as %s', (target, host) => {
    expect(parseTarget(target).host).toBe(host)
  })

  test('gets them behind a PROXY header, and within a limit on speed', async () => {
    await using target = await answerAtEndTarget((all) => all)
    await using tunnel = await forward(0, target.port, {
      hostHeader: 'rewrite',
      proxyProtocol: 1,
      limit: '1mb',
    })

    expect(`${await ask(tunnel, get + get)}`).toMatch(
      new RegExp(`^PROXY TCP4 [^\r]+\r\n${gotten}${gotten}$`.replaceAll(HOST, target.address)),
    )
  })

  test('that reads no body stops the visitor that sends it', async () => {
    await using target = await silentTarget()
    await using tunnel = await forward(0, target.port, { hostHeader: 'rewrite' })
    const visitor = await visit(tunnel)
    const size = 100_000_000
    visitor.write(request(['POST / HTTP/1.1', 'Host: public.test', `Content-Length: ${size}`]))
    Readable.from(Array.from({ length: size / 100_000 }, () => Buffer.alloc(100_000))).pipe(visitor)

    const taken = await settled(() => visitor.bytesWritten - visitor.writableLength)

    expect(taken).toBeLessThan(size / 2)
  })

  test.each(['expose', 'forward'])('is told by pipe %s --host-header', async (command) => {
    await using target = await httpTarget((request, response) => response.end(request.headers.host))
    const where = command === 'forward' ? ['0', target.address] : [target.address]
    await using program = pipe([command, ...where, '--host-header', 'rewrite'])

    expect(await (await fetch(await program.stdout.line(/^http:/))).text()).toBe(target.address)
  })
})

describe('hostHeader', () => {
  test.each([
    '',
    'a b',
    'a\r\nX: y',
    'http://app.test',
    'app.test/',
    'app.test:',
    'app.test:port',
    '::1',
    true,
    1,
    null,
    'é',
  ])('is not %j', async (value) => {
    const options = { hostHeader: value as string }
    for (const opening of [openTunnel(3000, options), forward(0, 3000, options)]) {
      await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
      await expect(opening).rejects.toThrow(
        "hostHeader must be 'rewrite', or a host such as 'localhost:3000', not ",
      )
    }
  })

  test.each(['udp:53', 'https://localhost:3000'])('is left out for %s', async (target) => {
    const opening = openTunnel(target, { hostHeader: 'rewrite' })
    await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(opening).rejects.toThrow(
      /hostHeader must be left out for a udp target, and for an https one/,
    )
  })
})

/** Requests, and what comes near to them. */
const almostRequest = fc
  .tuple(
    fc.constantFrom(
      ...Array(9).fill('POST /a HTTP/1.1\r\nHost: x\r\n'),
      'GET / HTTP/1.0\r\n',
      'QUX / HTTP/1.1\r\nHost: x\r\n',
      '\n',
    ),
    fc.array(
      fc.oneof(
        {
          weight: 2,
          arbitrary: fc.constantFrom('Content-Length: 5\r\n', 'Transfer-Encoding: chunked\r\n', 'A: b\r\n'),
        },
        {
          weight: 1,
          arbitrary: fc.constantFrom(
            ...[
              'Content-Length: 0\r\n',
              'content-length:\t5 \r\n',
              'Content-Length: 5,5\r\n',
              'Content-Length: +5\r\n',
            ],
            ...[
              'transfer-encoding:chunked\t\r\n',
              'Transfer-Encoding: gzip, chunked\r\n',
              'Transfer-Encoding : chunked\r\n',
            ],
            ...[
              ' chunked\r\n',
              'Connection: close\r\n',
              'Host: y\r\n',
              'A: b\n',
              'A: b\r',
              'A\r\n',
              '\n',
              'Expect: 100-continue\r\n',
            ],
          ),
        },
      ),
      { maxLength: 2 },
    ),
    fc.constantFrom(...Array(9).fill('\r\n'), '\n', '\r', ''),
    fc.constantFrom(
      ...[
        '',
        '',
        '',
        '01234',
        '01234',
        '0\r\n\r\n',
        '5\r\n01234\r\n0\r\n\r\n',
        '5;a=b\r\n01234\r\n0\r\nT: t\r\n\r\n',
      ],
      ...[
        '5 \r\n01234\r\n0\r\n\r\n',
        '5\n01234\r\n0\r\n\r\n',
        '5\r\n012345\r\n0\r\n\r\n',
        '0x5\r\n01234\r\n0\r\n\r\n',
        '0\r\n\n',
        '\r\n',
      ],
    ),
  )
  .map(([first, headers, end, body]) => [first, ...headers, end, body].join(''))

/** What becomes of bytes that come in these pieces, until it is not clear what they are. */
async function rewritten(pieces: string[]): Promise<string> {
  const { in: incoming } = await hostRewriter(HOST)
  let passed = ''
  incoming.on('data', (chunk) => {
    passed += chunk.toString('latin1')
  })
  const closed = once(incoming, 'close').catch(() => {})
  for (const piece of pieces) incoming.write(piece, 'latin1')
  incoming.end()
  await closed
  return passed
}

/** Answers each head with the next of these, and echoes what comes behind the last. */
async function upgradeTarget(answers: string[]) {
  const heads: string[] = []
  const target = await tcpTarget((socket) => {
    let text = ''
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      for (
        let end = text.indexOf('\r\n\r\n');
        end >= 0 && heads.length < answers.length;
        end = text.indexOf('\r\n\r\n')
      ) {
        socket.write(answers[heads.length] as string)
        heads.push(text.slice(0, end + 4))
        text = text.slice(end + 4)
      }
      if (heads.length < answers.length) return
      socket.write(text)
      text = ''
    })
    socket.on('end', () => socket.end())
  })
  return Object.assign(target, { heads })
}

/** Reads until what came matches. */
async function hear(socket: net.Socket, pattern: RegExp): Promise<string> {
  for (let text = ''; ; ) {
    const [chunk] = await once(socket, 'data')
    text += chunk
    if (pattern.test(text)) return text
  }
}
