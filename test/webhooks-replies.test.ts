/** What senders of webhooks get for an answer, and how a request is sent again. */
import { once } from 'node:events'
import { TunnelError } from 'pipe-tunnel'
import { receiveWebhooks } from 'pipe-tunnel/webhooks'
import { describe, expect, test } from 'vitest'
import { echoTarget, silentTarget, tcpTarget } from './helpers/targets.js'
import { ending, visit } from './helpers/visitor.js'
import { placeOf, post } from './helpers/webhooks.js'

/** How long what must happen may take on a slow machine, in milliseconds. */
const timeout = 30_000

describe('replies', () => {
  test('come in the order in which they were scripted, and 200 behind them', async () => {
    await using hook = await receiveWebhooks()
    hook
      .reply(500)
      .reply(429, 'later', { headers: { 'Retry-After': '1', 'Set-Cookie': ['a=1', 'b=2'] } })
      .reply(201, { id: 7 })

    expect((await post(hook.url, '')).status).toBe(500)
    const second = await post(hook.url, '')
    expect([second.status, await second.text()]).toEqual([429, 'later'])
    expect(second.headers.get('retry-after')).toBe('1')
    expect(second.headers.getSetCookie()).toEqual(['a=1', 'b=2'])
    const third = await post(hook.url, '')
    expect([third.status, await third.json(), third.headers.get('content-type')]).toEqual([
      201,
      { id: 7 },
      'application/json',
    ])
    expect((await post(hook.url, '')).status).toBe(200)
  })

  test('test the retries of a sender', async () => {
    await using hook = await receiveWebhooks()
    hook.reply(500).reply(500).reply(200)
    for (let attempt = 0; attempt < 5; attempt++) if ((await post(hook.url, '{}')).ok) break

    expect(await hook.waitForCount(3)).toHaveLength(3)
    await hook.expectNone({ within: 1, matching: { path: '/other' } })
    expect(hook.requests).toHaveLength(3)
  })

  test('may be made of the request', async () => {
    await using hook = await receiveWebhooks({ reply: (request) => ({ body: request.text().toUpperCase() }) })
    hook.reply(async ({ path }) => ({ status: 404, body: path }))

    const first = await post(`${hook.url}/x`, 'a')
    expect([first.status, await first.text()]).toEqual([404, '/x'])
    expect(await (await post(hook.url, 'a')).text()).toBe('A')
  })

  test('may be late', async () => {
    await using hook = await receiveWebhooks()
    hook.reply(200, 'late', { delay: 60 })
    const start = performance.now()

    expect(await (await post(hook.url, '')).text()).toBe('late')
    expect(performance.now() - start).toBeGreaterThan(50)
  })

  test('that are late do not keep the process of a receiver that was closed', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
    const hook = await receiveWebhooks({ reply: { delay: 60_000 } })
    const before = timers()
    const socket = await visit(placeOf(hook))
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(20))
    await hook.waitForCount(20, { timeout })
    await hook.close()

    expect(timers()).toBeLessThan(before + 10)
  })

  test('may never come', async () => {
    await using hook = await receiveWebhooks()
    hook.reply({ hang: true })
    const controller = new AbortController()
    const sent = expect(fetch(hook.url, { signal: controller.signal })).rejects.toThrow(/abort/)
    await hook.waitFor({}, { timeout })
    controller.abort()
    await sent
  })

  test('may break off in the middle', async () => {
    await using hook = await receiveWebhooks()
    hook.reply({ body: 'whole', reset: true, status: 201 }).reply({ reset: true })
    const socket = await visit(placeOf(hook))
    let answer = ''
    socket.on('data', (chunk) => {
      answer += chunk
    })
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')

    expect(await ending(socket)).toBe('reset')
    expect(answer).toMatch(/^HTTP\/1\.1 201 Created\r\nContent-Length: 5\r\n[\s\S]*\r\n\r\nwh$/)
    await expect(post(hook.url, '')).rejects.toThrow()
    expect((await post(hook.url, '')).status).toBe(200)
  })

  test('are 500 where the function that makes them fails, which surfaces as an uncaught exception', async () => {
    await using hook = await receiveWebhooks()
    const others = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    const uncaught = once(process, 'uncaughtException')
    try {
      hook.reply(() => {
        throw new Error('of the function')
      })
      expect((await post(hook.url, '')).status).toBe(500)
      expect(await uncaught).toMatchObject([{ message: 'of the function' }, 'uncaughtException'])
    } finally {
      for (const other of others) process.on('uncaughtException', other)
    }
  })

  test('are refused where they can not be sent', async () => {
    await using hook = await receiveWebhooks()
    expect(() => hook.reply(1_000)).toThrow('status must be a whole number from 200 to 599, not 1000')
    expect(() => hook.reply({ delay: -1 })).toThrow(TunnelError)
    expect(() => hook.reply(200, '', { headers: { a: 'b\n' } })).toThrow(TunnelError)
    expect(() => hook.reply(undefined as never)).toThrow(TunnelError)
    const circular = {}
    Object.assign(circular, { circular })
    expect(() => hook.reply(200, circular)).toThrow('body must be a text, bytes or JSON')
    expect((await post(hook.url, '')).status).toBe(200)
  })
})

describe('replay', () => {
  test('sends the same method, path, headers and bytes', async () => {
    await using hook = await receiveWebhooks()
    await using app = await receiveWebhooks()
    app.reply(202, 'taken', { headers: { 'X-Reply': 'b' } })
    const body = Buffer.from([0, 255, 10, 13])
    await post(`${hook.url}/in%20/../box?a=1`, body, { 'X-Signature': 'abc', Connection: 'close' })
    const [request] = hook.requests

    const answer = await hook.replay(await hook.waitFor(), { to: app.url })
    expect([answer.status, answer.body.toString()]).toEqual([202, 'taken'])
    expect(answer.headers).toContainEqual(['X-Reply', 'b'])
    const [again] = app.requests
    expect(again).toMatchObject({ method: 'POST', url: request?.url, body })
    const own = (pairs = request?.headers) => pairs?.filter(([name]) => !/^(host|connection)$/i.test(name))
    expect(own(again?.headers)).toEqual(own())
    expect(again?.header('host')).toBe(new URL(app.url).host)
  })

  test('leaves out what concerned the first connection alone, and tells the length of what came in chunks', async () => {
    await using hook = await receiveWebhooks()
    await using app = await receiveWebhooks()
    const socket = await visit(placeOf(hook))
    socket.write(
      'PUT /chunks HTTP/1.1\r\nHost: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nX-End: 2\r\n' +
        'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n',
    )
    await hook.replay(await hook.waitFor({}, { timeout }), { to: app.url })

    const [again] = app.requests
    expect(again?.text()).toBe('abcde')
    expect(again?.headers.map(([name]) => name)).toEqual(['Host', 'X-End', 'Content-Length', 'Connection'])
    socket.destroy()
  })

  test.each([
    ['', '/in?a=1'],
    ['/hooks', '/hooks?a=1'],
    ['/hooks?b=2', '/hooks?b=2'],
  ])('takes the path of its target where that has one: %s', async (path, url) => {
    await using hook = await receiveWebhooks()
    await using app = await receiveWebhooks()
    await post(`${hook.url}/in?a=1`, '')
    await hook.replay(await hook.waitFor(), { to: `${app.url}${path}` })

    expect(app.requests[0]?.url).toBe(url)
  })

  test('has a deadline, and can be given up', async () => {
    await using hook = await receiveWebhooks()
    await using silent = await silentTarget()
    await post(hook.url, 'x')
    const request = await hook.waitFor()
    const to = `http://127.0.0.1:${silent.port}`

    await expect(hook.replay(request, { to, timeout: 20 })).rejects.toMatchObject({ code: 'timeout' })
    const signal = AbortSignal.abort()
    await expect(hook.replay(request, { to, signal })).rejects.toMatchObject({ code: 'aborted' })
  })

  test('tells why there is no answer', async () => {
    await using hook = await receiveWebhooks()
    await using echo = await echoTarget()
    await using cut = await tcpTarget((socket) => {
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf')
    })
    await post(hook.url, 'x')
    const request = await hook.waitFor()
    const gone = await receiveWebhooks()
    await gone.close()

    for (const to of [gone.url, `http://127.0.0.1:${echo.port}`, `http://127.0.0.1:${cut.port}`])
      await expect(hook.replay(request, { to, timeout })).rejects.toMatchObject({
        code: 'target-unreachable',
      })
    for (const to of ['ftp://x', 'localhost', ''])
      await expect(hook.replay(request, { to })).rejects.toMatchObject({ code: 'invalid-option' })
  })

  test('refuses a request that was not awaited', async () => {
    await using hook = await receiveWebhooks()
    await post(hook.url, '')

    await expect(hook.replay(hook.waitFor() as never, { to: hook.url })).rejects.toThrow(
      'request is a promise: did you forget await?',
    )
  })

  test('refuses a request that did not come whole', async () => {
    await using hook = await receiveWebhooks({ maxBodySize: 1 })
    await post(hook.url, 'too large')
    const request = await hook.waitFor(() => true)

    await expect(hook.replay(request, { to: hook.url })).rejects.toThrow(
      'one that came whole, not "too-large"',
    )
  })
})
