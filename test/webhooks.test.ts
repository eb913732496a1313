/** What a receiver of webhooks does with what real senders send. */
import { once } from 'node:events'
import http from 'node:http'
import type net from 'node:net'
import { PassThrough } from 'node:stream'
import { createServer, type Visitor } from 'pipe-tunnel'
import { receiveWebhooks } from 'pipe-tunnel/webhooks'
import { describe, expect, test, vi } from 'vitest'
import { readBody } from '../fixtures/webhooks/request.js'
import { visitorServer } from '../fixtures/webhooks/visitors.js'
import { needs, run } from './helpers/programs.js'
import { readAll } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'
import { placeOf, post } from './helpers/webhooks.js'

/** How long what must happen may take on a slow machine, in milliseconds. */
const timeout = 30_000

/** Makes curl show the answer, with its head. */
const shown = ['--silent', '--show-error', '--include']

describe('a receiver', () => {
  test('gives a request as it was sent', async () => {
    await using hook = await receiveWebhooks()
    const sent = post(`${hook.url}/orders?id=1&id=2`, '{"type":"paid"}', { 'X-Event': 'order' })

    const request = await hook.waitFor({}, { timeout })
    expect((await sent).status).toBe(200)
    expect(request).toMatchObject({
      method: 'POST',
      url: '/orders?id=1&id=2',
      path: '/orders',
      state: 'complete',
    })
    expect(request.query.getAll('id')).toEqual(['1', '2'])
    expect(request.header('x-event')).toBe('order')
    expect(request.header('x-other')).toBeUndefined()
    expect(request.json()).toEqual({ type: 'paid' })
    expect(request.receivedAt.getTime()).toBeLessThanOrEqual(Date.now())
    expect(request.verified).toBeUndefined()
  })

  test('keeps headers in the order and the letters in which they were sent', async () => {
    await using hook = await receiveWebhooks()
    await ask(
      placeOf(hook),
      'GET /a%20b/../c HTTP/1.1\r\nhost: x\r\nX-One: 1\r\nx-ONE: 2\r\nConnection: close\r\n\r\n',
    )

    const request = await hook.waitFor()
    expect(request.path).toBe('/a%20b/../c')
    expect(request.headers).toEqual([
      ['host', 'x'],
      ['X-One', '1'],
      ['x-ONE', '2'],
      ['Connection', 'close'],
    ])
    expect(request.header('X-one')).toBe('1, 2')
  })

  test('knows the address of its visitor, and not that of the tunnel', async () => {
    await using hook = await receiveWebhooks()
    const socket = await visit(placeOf(hook))
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')

    const { visitor } = await hook.waitFor({}, { timeout })
    expect(visitor).toEqual({ address: '127.0.0.1', port: socket.localPort })
    socket.destroy()
  })

  test('gives every byte of a body, whatever it says of itself', async () => {
    await using hook = await receiveWebhooks()
    const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, i) => i % 256))
    await post(hook.url, bytes, { 'Content-Type': 'application/json; charset=utf-8' })

    expect((await hook.waitFor()).body.equals(bytes)).toBe(true)
  })

  test('takes chunks from curl, and its question whether to go on', async (context) => {
    needs(context, 'curl')
    await using hook = await receiveWebhooks()
    const body = Buffer.alloc(300_000, 'chunk')
    const asked = ['--header', 'Transfer-Encoding: chunked', '--header', 'Expect: 100-continue']
    const { stdout } = await run('curl', [...shown, ...asked, '--data-binary', '@-', hook.url], {
      input: body,
    })

    expect(String(stdout)).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
    const request = await hook.waitFor()
    expect(request.body.equals(body)).toBe(true)
    expect(request.header('transfer-encoding')).toBe('chunked')
  })

  test('takes a request with an expectation that it does not know, or that asks to upgrade', async () => {
    await using hook = await receiveWebhooks()
    for (const header of ['Expect: the best', 'Connection: Upgrade\r\nUpgrade: h2c']) {
      const answer = await ask(
        placeOf(hook),
        `POST / HTTP/1.1\r\nHost: x\r\n${header}\r\nContent-Length: 2\r\n\r\nhi`,
      )
      expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /)
    }
    expect(hook.requests.map((request) => request.text())).toEqual(['hi', 'hi'])
  })

  test('answers requests that come together on one connection, in their order', async () => {
    await using hook = await receiveWebhooks()
    hook.reply(200, 'one', { delay: 50 }).reply(200, 'two')
    const socket = await visit(placeOf(hook))
    socket.write('GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')

    expect((await readAll(socket)).toString().match(/one|two/g)).toEqual(['one', 'two'])
    expect(hook.requests.map(({ path }) => path)).toEqual(['/1', '/2'])
  })

  test('loses none of many senders at once, and does not meet those of another receiver', async () => {
    await using server = await createServer()
    await using first = await receiveWebhooks({ server })
    await using second = await receiveWebhooks({ server })
    const numbers = Array.from({ length: 40 }, (_, i) => String(i))
    await Promise.all(numbers.flatMap((i) => [post(`${first.url}/1`, i), post(`${second.url}/2`, i)]))

    for (const [hook, path] of [
      [first, '/1'],
      [second, '/2'],
    ] as const) {
      const requests = await hook.waitForCount(40, { timeout })
      expect(new Set(requests.map((one) => one.path))).toEqual(new Set([path]))
      expect(requests.map((one) => one.text()).sort()).toEqual([...numbers].sort())
    }
  })

  test('goes through the server that the environment names, as in CI', async ({ onTestFinished }) => {
    await using server = await createServer({ secret: 'correct-horse-battery' })
    onTestFinished(() => void vi.unstubAllEnvs())
    vi.stubEnv('PIPE_SERVER', server.address)
    vi.stubEnv('PIPE_SECRET', 'correct-horse-battery')
    await using hook = await receiveWebhooks()
    await post(hook.url, 'through')

    expect((await hook.waitFor()).text()).toBe('through')
    expect(server.tunnels.map(({ port }) => port)).toEqual([placeOf(hook).port])
  })

  test('keeps the last requests, and forgets them when told to', async () => {
    await using hook = await receiveWebhooks({ maxRequests: 2 })
    for (const i of ['1', '2', '3']) await post(hook.url, i)

    expect(hook.requests.map((one) => one.text())).toEqual(['2', '3'])
    hook.clear()
    expect(hook.requests).toEqual([])
  })

  test('refuses options that can not be', async () => {
    const options = [
      { maxBodySize: -1 },
      { maxRequests: 0 },
      { port: 99_999 },
      { reply: { status: 99 } },
      { reply: { headers: { 'bad name': '' } } },
      { verify: { provider: 'nobody', secret: 'x' } as never },
      { verify: { provider: 'github', secret: '' } as const },
      { verify: { provider: 'standard', secret: 'whsec_?' } as const },
    ]
    for (const one of options)
      await expect(receiveWebhooks(one)).rejects.toMatchObject({
        name: 'TunnelError',
        code: 'invalid-option',
      })
    for (const verify of ['github', null] as never[])
      await expect(receiveWebhooks({ verify })).rejects.toThrow(
        "verify must be an object such as { provider: 'github', secret }",
      )
  })
})

describe('closing', () => {
  test('is not held up by a connection that is kept, or an answer that hangs', async () => {
    const hook = await receiveWebhooks()
    hook.reply(200).reply({ hang: true }).reply(200, 'late', { delay: 100_000 })
    const agent = new http.Agent({ keepAlive: true })
    const [kept] = await once(http.get(hook.url, { agent }), 'response')
    await once(kept.resume(), 'end')
    const hanging = expect(post(hook.url, 'hang')).rejects.toThrow()
    await hook.waitFor({ body: 'hang' }, { timeout })
    const delayed = expect(post(hook.url, 'delay')).rejects.toThrow()
    await hook.waitFor({ body: 'delay' }, { timeout })

    await hook.close()
    await Promise.all([hanging, delayed])
    await expect(visit(placeOf(hook))).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    agent.destroy()
  })

  test('ends who waits, and leaves what was received', async () => {
    const hook = await receiveWebhooks()
    await post(hook.url, 'before')
    const waiting = expect(hook.waitFor({ path: '/never' }, { timeout })).rejects.toMatchObject({
      code: 'closed',
    })
    const noneIn = expect(
      hook.expectNone({ within: timeout, matching: { path: '/never' } }),
    ).rejects.toMatchObject({ code: 'closed' })
    await hook.close()
    await Promise.all([waiting, noneIn, hook.close()])

    expect((await hook.waitFor({ body: 'before' })).text()).toBe('before')
    await expect(hook.waitFor({ path: '/never' })).rejects.toMatchObject({ code: 'closed' })
  })

  test('of the server ends who waits, with the reason', async () => {
    const server = await createServer()
    await using hook = await receiveWebhooks({ server })
    const waiting = expect(hook.waitFor({}, { timeout })).rejects.toMatchObject({ code: 'server-closed' })
    await server.close()
    await waiting
  })
})

describe('a request that does not come whole', () => {
  test.each(['end', 'resetAndDestroy'] as const)('is noted as aborted, by %s', async (leave) => {
    await using hook = await receiveWebhooks()
    const socket = await visit(placeOf(hook))
    socket.write('GET /whole HTTP/1.1\r\nHost: x\r\n\r\n')
    // Who resets before anybody has answered was never there.
    await once(socket, 'data')
    socket.write('POST /half HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf', () => socket[leave]())

    const request = await hook.waitFor(({ state }) => state === 'aborted', { timeout })
    expect([request.path, request.text()]).toEqual(['/half', 'half'])
    await expect(hook.waitFor({ path: '/half' }, { timeout: 1 })).rejects.toThrow(
      'its sender left in the middle',
    )
    await expect(hook.expectNone({ within: 1 })).rejects.toMatchObject({ code: 'unexpected-request' })
  })

  test.each([
    ['says how long it is', 'Content-Length: 2000\r\n\r\n', 'x'.repeat(2_000)],
    ['comes in chunks', 'Transfer-Encoding: chunked\r\n\r\n', `7d0\r\n${'x'.repeat(2_000)}\r\n0\r\n\r\n`],
  ])('is answered with 413 where it is too large and %s', async (_how, header, body) => {
    await using hook = await receiveWebhooks({ maxBodySize: 1_999 })
    const answer = await ask(placeOf(hook), `POST /large HTTP/1.1\r\nHost: x\r\n${header}${body}`)

    expect(answer.toString()).toMatch(/^HTTP\/1\.1 413 /)
    expect(hook.requests).toMatchObject([{ path: '/large', state: 'too-large', body: Buffer.alloc(0) }])
    await expect(hook.waitFor({}, { timeout: 1 })).rejects.toThrow(
      'POST /large (too large): its body is too large',
    )
  })

  test('takes no more memory where it comes byte by byte', async () => {
    const message = new PassThrough({ highWaterMark: 1 })
    const reading = readBody(message as unknown as http.IncomingMessage, 1_000_000)
    global.gc?.()
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < 300_000; i++) if (!message.write('x')) await once(message, 'drain')
    global.gc?.()
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(10_000_000)

    message.end()
    expect((await reading).body.toString()).toBe('x'.repeat(300_000))
  })

  test('is read to its end where it is not much too large, so that its sender gets the answer', async () => {
    await using hook = await receiveWebhooks({ maxBodySize: 200_000 })
    expect((await post(hook.url, Buffer.alloc(5_000_000))).status).toBe(413)
    expect(hook.requests).toMatchObject([{ state: 'too-large', body: Buffer.alloc(0) }])
  })

  test('is not read to its end where it is much too large', async () => {
    await using hook = await receiveWebhooks({ maxBodySize: 10 })
    const socket = await visit(placeOf(hook))
    socket.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n')
    socket.write(Buffer.alloc(20_000_000))

    expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1\.1 413 /)
    await ending(socket)
  })

  test('is not even sent where curl asks first', async (context) => {
    needs(context, 'curl')
    await using hook = await receiveWebhooks({ maxBodySize: 10 })
    const asked = ['--header', 'Expect: 100-continue', '--data', 'x'.repeat(1_000)]
    const { stdout } = await run('curl', [...shown, ...asked, hook.url])

    expect(String(stdout)).toMatch(/^HTTP\/1\.1 413 /)
    expect(hook.requests).toMatchObject([{ state: 'too-large' }])
  })

  test('is told where its connection is one too many', async () => {
    await using hook = await receiveWebhooks()
    const sockets: net.Socket[] = []
    for (let i = 0; i < 256; i++) sockets.push(await visit(placeOf(hook)))
    for (const socket of sockets) socket.write('GET /inside HTTP/1.1\r\nHost: x\r\n\r\n')
    await hook.waitForCount(256, { timeout })

    await expect(post(hook.url, '')).rejects.toThrow()
    await expect(hook.waitFor({ method: 'POST' }, { timeout: 1 })).rejects.toThrow(
      'one too many: 256 are open',
    )
    for (const socket of sockets) socket.destroy()
  })

  test('is told where it is no HTTP at all', async () => {
    await using hook = await receiveWebhooks()
    expect((await ask(placeOf(hook), '\x16\x03\x01 hello\r\n\r\n')).toString()).toMatch(/^HTTP\/1\.1 400 /)

    await expect(hook.waitFor({}, { timeout: 1 })).rejects.toThrow(
      'a connection that is no HTTP: Parse Error',
    )
  })
})

describe('the line that tells of a visitor', () => {
  const line = 'PROXY TCP4 192.0.2.7 127.0.0.1 50123 41234\r\n'

  /** A server on a port, the visitors that it handed over and what they said behind the line, and a connection to it. */
  async function connected() {
    const visitors: Visitor[] = []
    const said: string[] = []
    const server = visitorServer((socket, visitor) => {
      visitors.push(visitor)
      socket.on('data', (chunk) => said.push(String(chunk)))
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const peer = await visit(server.address() as net.AddressInfo)
    return {
      peer: peer.setNoDelay(),
      visitors,
      said,
      async [Symbol.asyncDispose]() {
        peer.resetAndDestroy()
        await once(server.close(), 'close')
      },
    }
  }

  test('is taken off, wherever its bytes are split', async () => {
    await using one = await connected()
    for (const byte of `${line}POST`) await new Promise((sent) => one.peer.write(byte, sent))

    await vi.waitFor(() => expect(one.said.join('')).toBe('POST'), { timeout })
    expect(one.visitors).toEqual([{ address: '192.0.2.7', port: 50_123 }])
  })

  test('may say that the visitor is unknown', async () => {
    await using one = await connected()
    one.peer.write('PROXY UNKNOWN\r\n')
    await vi.waitFor(() => expect(one.visitors).toEqual([{ address: 'unknown', port: 0 }]), { timeout })
  })

  test.each([
    ['another line', 'GET / HTTP/1.1\r\n'],
    ['a line without an end', 'PROXY '.padEnd(200, 'x')],
    ['an end before the line', 'PROXY TCP4'],
  ])('cuts who sends %s', async (_what, sent) => {
    await using one = await connected()
    one.peer.end(sent)
    await ending(one.peer)
    expect(one.visitors).toEqual([])
  })
})
