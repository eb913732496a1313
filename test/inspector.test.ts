/** The requests of a tunnel: recorded, exported, sent again; and that recording changes nothing of them. */
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import http from 'node:http'
import { join } from 'node:path'
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { forward, openTunnel, type RecordedRequest, type Tunnel } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import packageJson from '../package.json' with { type: 'json' }
import { decodeBody, pictureType } from '../src/inspector/decode.js'
import { maskHeaders, maskUrl } from '../src/inspector/mask.js'
import { runToEnd, temporaryFolder } from './helpers/command.js'
import {
  answerAtEndTarget,
  echoTarget,
  httpTarget,
  readAll,
  silentTarget,
  tcpTarget,
} from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

/** Answers with the method, the path and the body that it got. */
const mirror = () =>
  httpTarget(async (request, response) => {
    const body = await readAll(request)
    response.setHeader('Set-Cookie', 'sid=secret; Path=/')
    response.end(`${request.method} ${request.url} ${body}`)
  })

describe('tunnel.requests', () => {
  test('has what was asked and answered', async () => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    await fetch(`${tunnel.url}/form?a=b`, { method: 'POST', body: 'hello' })

    const request = await next(tunnel)
    expect(request).toMatchObject({
      method: 'POST',
      url: '/form?a=b',
      state: 'complete',
      replayOf: undefined,
    })
    expect(request.body.bytes.toString()).toBe('hello')
    expect(request.visitor.address).toBe('127.0.0.1')
    expect(request.response).toMatchObject({ status: 200, statusText: 'OK' })
    expect(request.response?.body.bytes.toString()).toBe('POST /form?a=b hello')
    expect(tunnel.requests.all).toEqual([request])
  })

  test('tells of each by the event, too, and by the connection it came by', async () => {
    await using target = await mirror()
    await using tunnel = await forward(0, target.address, { inspect: true })
    const told = Promise.all([once(tunnel, 'request'), once(tunnel, 'connection')])
    await fetch(tunnel.url)
    const [[request], [connection]] = await told
    expect(request.connection).toBe(connection.id)
  })

  test('shows what the target got, where that is made to differ', async () => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true, hostHeader: 'app.test' })
    await fetch(tunnel.url)
    const { headers } = await next(tunnel)
    expect(headers.filter(([name]) => /^host$/i.test(name)).map(([, value]) => value)).toEqual(['app.test'])
  })

  test('shows a request that the visitor gave up as aborted', async () => {
    await using target = await httpTarget((_request, response) => response.write('beginning'))
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const response = await fetch(tunnel.url)
    const reader = response.body?.getReader()
    await reader?.read()
    await reader?.cancel()
    expect(await next(tunnel)).toMatchObject({ state: 'aborted', response: { status: 200 } })
  })

  test('shows a WebSocket as one request, with its bytes', async () => {
    await using target = await httpTarget(() => {})
    new WebSocketServer({ server: target.server as http.Server }).on('connection', (socket) => {
      socket.on('message', (message) => socket.send(message))
    })
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const socket = new WebSocket(tunnel.url.replace('http', 'ws'))
    await once(socket, 'open')
    socket.send('x'.repeat(1_000))
    await once(socket, 'message')
    expect(tunnel.requests.all[0]?.state).toBe('open')
    socket.close()
    const request = await next(tunnel)
    expect(request).toMatchObject({ state: 'complete', response: { status: 101 } })
    expect(request.body.size).toBeGreaterThan(1_000)
    expect(request.response?.body.size).toBeGreaterThan(1_000)
  })

  test('ends with the tunnel', async () => {
    await using target = await mirror()
    const tunnel = await openTunnel(target.address, { inspect: true })
    await fetch(tunnel.url)
    const reading = (async () => {
      let count = 0
      for await (const _request of tunnel.requests) count++
      return count
    })()
    await tunnel.close()
    expect(await reading).toBe(1)
  })

  test('is refused where nothing is recorded', async () => {
    await using tunnel = await openTunnel(3000)
    expect(() => tunnel.requests).toThrow('requests are not recorded: open the tunnel with inspect: true')
    await expect(openTunnel(3000, { inspect: 1 as never })).rejects.toThrow(
      'inspect must be true, false or an object, not 1',
    )
    await expect(openTunnel(3000, { inspect: { maxBodySize: -1 } })).rejects.toThrow(
      'inspect.maxBodySize must be',
    )
    await expect(openTunnel(3000, { inspect: { max: 1 } as never })).rejects.toThrow(
      'inspect must be made of',
    )
  })
})

describe('recording changes nothing', () => {
  test('of bytes that are no HTTP, both ways', async () => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const bytes = Buffer.alloc(3_000_000, 'GET nothing\r\n')
    expect((await ask(tunnel, bytes)).equals(bytes)).toBe(true)
    expect(tunnel.requests.all).toEqual([])
  })

  test('of a large body', async () => {
    const bytes = Buffer.alloc(5_000_000, 'abcdefg')
    await using target = await httpTarget((request, response) => request.pipe(response))
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const response = await fetch(tunnel.url, { method: 'POST', body: bytes })
    expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true)
    const { body, response: answer } = await next(tunnel)
    expect([body, answer?.body].map((one) => [one?.size, one?.bytes.length])).toEqual([
      [5_000_000, 1_048_576],
      [5_000_000, 1_048_576],
    ])
  })

  test('of a half-close: who answers at the end is heard', async () => {
    await using target = await answerAtEndTarget((request) => `HTTP/1.1 200 OK\r\n\r\n${request.length}`)
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const request = 'POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello'
    expect((await ask(tunnel, request)).toString()).toBe(`HTTP/1.1 200 OK\r\n\r\n${request.length}`)
    expect(await next(tunnel)).toMatchObject({ state: 'complete', response: { status: 200 } })
  })

  test('of what follows an upgrade that is refused by an answer without a length, and is no request', async () => {
    const answer = 'HTTP/1.0 200 OK\r\n\r\nno upgrade'
    await using target = await answerAtEndTarget(() => answer)
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const request = 'GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nno request\r\n\r\n'
    expect((await ask(tunnel, request)).toString()).toBe(answer)
    expect(await next(tunnel)).toMatchObject({ state: 'complete', response: { status: 200 } })
  })

  test('of a reset, after which the request is aborted', async () => {
    await using target = await tcpTarget((socket) => socket.once('data', () => socket.resetAndDestroy()))
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const visitor = await visit(tunnel)
    visitor.write('GET / HTTP/1.1\r\n\r\n')
    expect(await ending(visitor)).toBe('reset')
    expect(await next(tunnel)).toMatchObject({ state: 'aborted', response: undefined })
  })

  test('of back-pressure: a target that does not read stops its visitor', async () => {
    await using target = await silentTarget()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const visitor = await visit(tunnel)
    visitor.write('POST / HTTP/1.1\r\nContent-Length: 900000000\r\n\r\n')
    while (visitor.write(Buffer.alloc(65_536))) await new Promise(setImmediate)
    expect(visitor.writableLength).toBeGreaterThan(0)
    expect(tunnel.requests.all[0]?.body.bytes.length).toBeLessThanOrEqual(1_048_576)
    visitor.destroy()
  })
})

describe('replay', () => {
  test('sends a request to the target again, as its visitor did', async () => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true, deny: ['192.0.2.0/24'] })
    await fetch(`${tunnel.url}/a`, { method: 'PUT', body: 'hello', headers: { 'X-Own': 'yes' } })
    const request = await next(tunnel)
    const again = await tunnel.requests.replay(request)
    expect(again).toMatchObject({
      replayOf: request.id,
      visitor: request.visitor,
      url: '/a',
      state: 'complete',
    })
    expect(again.headers).toContainEqual(['X-Own', 'yes'])
    expect(again.response?.body.bytes.toString()).toBe('PUT /a hello')
    expect(tunnel.requests.all).toEqual([request, again])
  })

  test('with what is to differ', async () => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    await fetch(tunnel.url)
    const again = await tunnel.requests.replay(await next(tunnel), {
      method: 'PATCH',
      url: '/other?x',
      headers: [['Host', 'a.test']],
      body: 'new',
    })
    expect(again.headers).toEqual([
      ['Host', 'a.test'],
      ['Content-Length', '3'],
      ['Connection', 'close'],
    ])
    expect(again.response?.body.bytes.toString()).toBe('PATCH /other?x new')
  })

  test('of a request that came in chunks has a length', async () => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const sent = http.request(tunnel.url, { method: 'POST', headers: { 'Transfer-Encoding': 'chunked' } })
    sent.write('in ')
    sent.end('chunks')
    const [answer] = await once(sent, 'response')
    answer.resume()
    const again = await tunnel.requests.replay(await next(tunnel))
    expect(again.response?.body.bytes.toString()).toBe('POST / in chunks')
  })

  test('of a request of HTTP/1.0, which names no host, is one of HTTP/1.0', async () => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    await ask(tunnel, 'GET /old HTTP/1.0\r\n\r\n')
    const again = await tunnel.requests.replay(await next(tunnel))
    expect(again).toMatchObject({ httpVersion: '1.0', response: { status: 200 } })
  })

  test('fails where the target is gone, is silent, or the request is none', async () => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: { maxBodySize: 3 } })
    await fetch(tunnel.url, { method: 'POST', body: 'long' })
    const request = await next(tunnel)
    const { requests } = tunnel
    await expect(requests.replay(request)).rejects.toThrow('the beginning alone was kept')
    await expect(requests.replay(request, { body: '', method: 'get' })).rejects.toThrow('method must be')
    await expect(requests.replay(request, { body: '', url: '/a b' })).rejects.toThrow('url must be')
    await expect(requests.replay(request, { body: '', headers: [['a', 'b\r\nc: d']] })).rejects.toThrow(
      'a header cannot be sent',
    )
    await target[Symbol.asyncDispose]()
    await expect(requests.replay(request, { body: '' })).rejects.toMatchObject({ code: 'target-unreachable' })
  })

  test('fails at once where the answer is to something that is no clear request', async () => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    await fetch(tunnel.url)
    const headers: [string, string][] = [
      ['Host', 'one.test'],
      ['Host', 'two.test'],
    ]
    await expect(tunnel.requests.replay(await next(tunnel), { headers })).rejects.toMatchObject({
      code: 'connection-lost',
      message: expect.stringMatching(/was not clear$/),
    })
    await expect.poll(() => tunnel.connections, { timeout: 30_000 }).toBe(0)
  })

  test('of a tunnel that is closed does not reach the target', async () => {
    await using target = await mirror()
    const tunnel = await openTunnel(target.address, { inspect: true })
    await fetch(tunnel.url)
    const request = await next(tunnel)
    await tunnel.close()
    let count = 0
    target.server.on('connection', () => count++)
    await expect(tunnel.requests.replay(request)).rejects.toMatchObject({ code: 'closed' })
    expect(count).toBe(0)
  })

  test('gives up in time, and cuts what it has opened', async () => {
    let count = 0
    await using target = await httpTarget((_request, response) => {
      if (count++ === 0) response.end()
    })
    await using tunnel = await openTunnel(target.address, { inspect: true })
    await fetch(tunnel.url, { headers: { connection: 'close' } })
    const request = await next(tunnel)
    await expect(tunnel.requests.replay(request, { timeout: 200 })).rejects.toMatchObject({ code: 'timeout' })
    await expect.poll(() => tunnel.requests.all.at(-1)?.state, { timeout: 30_000 }).toBe('aborted')
    await expect.poll(() => tunnel.connections, { timeout: 30_000 }).toBe(0)
  })
})

describe('har', () => {
  test('has all requests, without their secrets', async () => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const headers = { Authorization: 'Bearer abc', Cookie: 'a=1; b=2', 'X-Api-Key': 'k', 'X-Other': 'seen' }
    await fetch(`${tunnel.url}/a?token=t&page=2`, { method: 'POST', body: 'hello', headers })

    const { log } = await tunnel.requests.har()
    expect(log).toMatchObject({
      version: '1.2',
      creator: { name: 'pipe-tunnel', version: packageJson.version },
    })
    expect(log.entries).toHaveLength(1)
    const [entry] = log.entries
    expect(entry).toMatchObject({
      request: {
        method: 'POST',
        url: `${tunnel.url}/a?token=***&page=2`,
        httpVersion: 'HTTP/1.1',
        queryString: [
          { name: 'token', value: '***' },
          { name: 'page', value: '2' },
        ],
        cookies: [
          { name: 'a', value: '***' },
          { name: 'b', value: '***' },
        ],
        bodySize: 5,
        postData: { text: 'hello', mimeType: 'text/plain;charset=UTF-8' },
      },
      response: {
        status: 200,
        cookies: [{ name: 'sid', value: '***', path: '/', httpOnly: false, secure: false }],
        content: { text: 'POST /a?token=t&page=2 hello' },
      },
    })
    const shown = (list: { name: string; value: string }[] | undefined, name: string) =>
      list?.find((one) => one.name.toLowerCase() === name)?.value
    expect(
      ['authorization', 'cookie', 'x-api-key', 'x-other'].map((name) => shown(entry?.request.headers, name)),
    ).toEqual(['Bearer ***', 'a=***; b=***', '***', 'seen'])
    expect(shown(entry?.response.headers, 'set-cookie')).toBe('sid=***; Path=/')

    const open = await tunnel.requests.har({ showSecrets: true })
    expect(shown(open.log.entries[0]?.request.headers, 'authorization')).toBe('Bearer abc')
    expect(open.log.entries[0]?.request.url).toContain('token=t')
    expect(open.log.entries[0]?.request.cookies).toEqual([
      { name: 'a', value: '1' },
      { name: 'b', value: '2' },
    ])
  })

  test('has all that a cookie is set with', async () => {
    const cookies = ['a=1=2; Domain=a.test; Expires=Thu, 01 Jan 2026 00:00:00 GMT; SECURE; HttpOnly', 'bare']
    await using target = await httpTarget((_request, response) => {
      response.setHeader('Set-Cookie', cookies).end()
    })
    await using tunnel = await openTunnel(target.address, { inspect: true })
    await fetch(tunnel.url)
    const { log } = await tunnel.requests.har({ showSecrets: true })
    const expires = '2026-01-01T00:00:00.000Z'
    expect(log.entries[0]?.response.cookies).toEqual([
      { name: 'a', value: '1=2', domain: 'a.test', expires, httpOnly: true, secure: true },
      { name: '', value: 'bare', httpOnly: false, secure: false },
    ])
  })

  test('decodes bodies up to a bound for all of them together', async () => {
    const bomb = gzipSync(Buffer.alloc(4_194_304))
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    for (let count = 0; count < 20; count++) {
      const headers = { 'Content-Encoding': 'gzip', 'Content-Type': 'image/png' }
      await (await fetch(tunnel.url, { method: 'POST', body: bomb, headers })).text()
    }
    const { log } = await tunnel.requests.har()
    const texts = log.entries.map(({ request }) => request.postData?.text ?? '')
    const [coded, whole] = [bomb.toString('base64'), Buffer.alloc(4_194_304).toString('base64')]
    expect(texts.filter((text) => text === whole)).toHaveLength(15)
    expect(texts.filter((text) => text === coded)).toHaveLength(4)
  })

  test('has what is no text in base64, and says what is missing', async () => {
    const bytes = Buffer.from('000102ff', 'hex')
    await using target = await httpTarget((_request, response) => response.end(bytes))
    await using tunnel = await openTunnel(target.address, { inspect: { maxBodySize: 3 } })
    await fetch(tunnel.url)
    const { log } = await tunnel.requests.har()
    expect(log.entries[0]).toMatchObject({
      response: { content: { text: 'AAEC', encoding: 'base64', size: 3 }, bodySize: 4 },
      comment: 'of the answer the beginning alone was kept',
    })
  })
})

describe('curl', () => {
  test('sends the same again', async (context) => {
    if (process.platform === 'win32') context.skip('a POSIX shell reads the command')
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const body = `it's "quoted" $HOME \`id\` @file\n`
    await fetch(`${tunnel.url}/a/[1]?q={x}`, {
      method: 'POST',
      body,
      headers: { 'X-Empty': '', Authorization: 'Basic abc' },
    })
    const request = await next(tunnel)

    expect(await tunnel.requests.curl(request)).toContain("'Authorization: Basic ***'")
    await runToEnd('sh', ['-c', `${await tunnel.requests.curl(request, { showSecrets: true })} --silent`])
    const again = tunnel.requests.all.at(-1)
    expect(again?.id).not.toBe(request.id)
    expect([again?.method, again?.url, again?.body.bytes.toString()]).toEqual(['POST', request.url, body])
    const names = (one: RecordedRequest | undefined) =>
      one?.headers.map(([name, value]) => `${name.toLowerCase()}: ${value}`)
    expect(names(again)).toEqual(expect.arrayContaining(['x-empty: ', 'authorization: Basic abc']))
  })

  test('sends the same bytes, whatever a shell or curl would make of them', async (context) => {
    if (process.platform === 'win32') context.skip('a POSIX shell reads the command')
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    const character = fc.oneof(
      fc.integer({ min: 0x21, max: 0x7e }),
      fc.integer({ min: 0x80, max: 0xff }),
      fc.constantFrom(...Buffer.from(`'"\\$\`#?%@<&{}[]^|~`)),
    )
    const word = (max: number) =>
      fc.array(character, { maxLength: max }).map((codes) => String.fromCharCode(...codes))
    const letters = fc.array(fc.constantFrom('é', '\ufeff', '漢', '\n', '\r\n', "'", '@', '$(id)', '\t'), {
      maxLength: 8,
    })
    const body = fc.oneof(
      letters.map((all) => Buffer.from(all.join(''))),
      word(8).map((text) => Buffer.from(text, 'latin1')),
    )
    const value = fc.array(word(6), { maxLength: 3 }).map((words) => words.join(' ').trim())
    const property = fc.asyncProperty(word(12), value, body, async (path, own, sent) => {
      const type = sent.length % 2 === 0 ? 'text/plain; charset=latin1' : 'application/json'
      const lines = [
        `POST /${path} HTTP/1.1`,
        'Host: a.test',
        `X-Own: ${own}`,
        `Content-Type: ${type}`,
        `Content-Length: ${sent.length}`,
      ]
      const head = Buffer.from(`${lines.join('\r\n')}\r\nConnection: close\r\n\r\n`, 'latin1')
      tunnel.requests.clear()
      await ask(tunnel, Buffer.concat([head, sent]))
      const request = await next(tunnel)
      const command = await tunnel.requests.curl(request, { showSecrets: true })
      await using folder = await temporaryFolder()
      await writeFile(join(folder.path, 'body'), request.body.bytes)
      await runToEnd('sh', ['-c', `${command} --silent --show-error`], { cwd: folder.path })
      const again = tunnel.requests.all.at(-1)
      expect(again?.id).not.toBe(request.id)
      const ownOf = (one: RecordedRequest | undefined) => one?.headers.find(([name]) => name === 'X-Own')
      expect([again?.url, ownOf(again), again?.body.bytes]).toEqual([
        request.url,
        ownOf(request),
        request.body.bytes,
      ])
    })
    await fc.assert(property, { numRuns: 40 })
  })

  test.each([
    ['bytes that are no text', Buffer.from([0xff, 0xfe])],
    ['a NUL', Buffer.from('a\0b')],
    ['what a terminal acts on', Buffer.from('\x1b[201~\x03')],
    ['more than fits into an argument', Buffer.alloc(200_000, 'a')],
  ])('has a body in a file that has %s', async (_, body) => {
    await using target = await mirror()
    await using tunnel = await openTunnel(target.address, { inspect: true })
    await fetch(tunnel.url, { method: 'POST', body, headers: { 'Content-Type': 'text/plain' } })
    expect(await tunnel.requests.curl(await next(tunnel))).toMatch(/^# Its body .*--data-binary @body$/s)
  })
})

describe('secrets are masked', () => {
  test.each([
    ['/a?token=x&page=1', '/a?token=***&page=1'],
    ['/a?access_token=x', '/a?access_token=***'],
    ['/a?apiKey=x&key=y&monkey=z', '/a?apiKey=***&key=***&monkey=z'],
    ['/a?%74oken=x', '/a?%74oken=***'],
    ['/a?client-secret=a?b#token=c', '/a?client-secret=***#token=***'],
    ['/a?%=x', '/a?%=x'],
    ['https://a.test/#access_token=x', 'https://a.test/#access_token=***'],
    ['/token=x', '/token=x'],
    ['http://ann:secret@a.test/b@c', 'http://***@a.test/b@c'],
    ['/a//b@c', '/a//b@c'],
  ])('in %s', (url, masked) => {
    expect(maskUrl(url)).toBe(masked)
  })

  test('in headers', () => {
    expect(
      maskHeaders([
        ['PROXY-authorization', 'Digest a="b", c'],
        ['X-CSRF-Token', 'a'],
        ['Authorization', 'bare'],
        ['Location', '/?token=x'],
        ['X-Original-URL', '/?token=x&page=2'],
        ['Cookie', 'a=1=2; bare; =b;'],
        ['Set-Cookie', 'bare; Path=/'],
        ['Accept', '*'],
      ]),
    ).toEqual([
      ['PROXY-authorization', 'Digest ***'],
      ['X-CSRF-Token', '***'],
      ['Authorization', '***'],
      ['Location', '/?token=***'],
      ['X-Original-URL', '/?token=***&page=2'],
      ['Cookie', 'a=***; ***; =***;'],
      ['Set-Cookie', '***; Path=/'],
      ['Accept', '*'],
    ])
  })

  test('in a time that grows no faster than a URL does', () => {
    const url = `/?${'a'.repeat(1_000_000)}`
    expect(maskUrl(`${url}&token=x`)).toBe(`${url}&token=***`)
  })
})

describe('the coding of a body is undone', () => {
  const text = 'hello, hello, hello, hello'.repeat(100)
  test.each([
    ['gzip', gzipSync(text)],
    ['br', brotliCompressSync(text)],
    ['deflate', deflateSync(text)],
    ['deflate', deflateRawSync(text)],
    ['gzip, BR', brotliCompressSync(gzipSync(text))],
    ['identity', Buffer.from(text)],
  ])('of %s', async (coding, bytes) => {
    expect(await decode(bytes, coding)).toMatchObject({ text, isTruncated: false, coded: undefined })
  })

  test('as far as it was kept', async () => {
    const coded = gzipSync(
      Buffer.from(Array.from({ length: 20_000 }, (_, index) => `${index * 7919}\n`).join('')),
    )
    const { text, isTruncated } = await decode(coded.subarray(0, coded.length / 2), 'gzip')
    expect(text).toMatch(/^0\n7919\n/)
    expect(isTruncated).toBe(true)
  })

  test('but not to gigabytes', async () => {
    const bomb = brotliCompressSync(gzipSync(Buffer.alloc(200_000_000)))
    const { bytes, isTruncated } = await decode(bomb, 'gzip, br')
    expect(bytes).toHaveLength(4_194_304)
    expect(isTruncated).toBe(true)
  })

  test('and left where it is unknown or a lie', async () => {
    expect(await decode(Buffer.from('hello'), 'zstd')).toMatchObject({ coded: 'zstd', text: undefined })
    expect(await decode(Buffer.from('hello'), 'gzip')).toMatchObject({ coded: 'gzip', text: undefined })
    expect(await decode(Buffer.from('hello'), 'gzip, gzip, gzip, gzip')).toMatchObject({ text: undefined })
  })

  test('a picture is known by its bytes alone', async () => {
    expect(pictureType(await decode(Buffer.from('GIF89a...'), ''))).toBe('image/gif')
    expect(pictureType(await decode(Buffer.from('<svg onload="alert(1)">'), ''))).toBeUndefined()
  })

  const decode = (bytes: Buffer, coding: string) =>
    decodeBody({ bytes, size: bytes.length, isTruncated: false }, [['Content-Encoding', coding]])
})

describe('a recorded body', () => {
  test('is text and JSON, whatever its coding and that of the answer', async () => {
    const answer = gzipSync('{"thanks":true}')
    await using tunnel = await openTunnel(
      (request, response) => {
        request.resume()
        response.writeHead(200, { 'content-encoding': 'gzip', 'content-type': 'application/json' })
        response.end(answer)
      },
      { inspect: true },
    )
    const body = gzipSync('{"paid":true}')
    await fetch(tunnel.url, { method: 'POST', body, headers: { 'content-encoding': 'gzip' } })
    const request = await next(tunnel)

    expect(await request.body.text()).toBe('{"paid":true}')
    expect(await request.body.json()).toEqual({ paid: true })
    expect(await request.response?.body.text()).toBe('{"thanks":true}')
    expect(await request.response?.body.json()).toEqual({ thanks: true })
    // What went over the wire stays to be seen.
    expect(request.response?.body.bytes).toEqual(answer)
  })

  test('of which the beginning is kept is text, and no JSON', async () => {
    const handler: http.RequestListener = (request, response) =>
      request.on('end', () => response.end()).resume()
    await using tunnel = await openTunnel(handler, { inspect: { maxBodySize: 4 } })
    await fetch(tunnel.url, { method: 'POST', body: '[1,2,3]' })
    const { body } = await next(tunnel)

    expect(await body.text()).toBe('[1,2')
    await expect(body.json()).rejects.toMatchObject({
      code: 'limit-reached',
      message: expect.stringContaining('inspect.maxBodySize'),
    })
  })

  test('that says what it is not is told so', async () => {
    const handler: http.RequestListener = (request, response) =>
      request.on('end', () => response.end()).resume()
    await using tunnel = await openTunnel(handler, { inspect: true })
    await fetch(tunnel.url, { method: 'POST', body: 'hello', headers: { 'content-encoding': 'gzip' } })
    const { body } = await next(tunnel)

    await expect(body.text()).rejects.toThrow(
      new TypeError("the body is in the coding gzip, which can't be undone"),
    )
  })
})

/** The first request that ends. */
async function next({ requests }: Tunnel): Promise<RecordedRequest> {
  for await (const request of requests) return request
  throw new Error('the tunnel was closed')
}
