/** How a test waits for webhooks, and what it is told where they do not come. */
import { TunnelError } from 'pipe-tunnel'
import { type RequestPattern, receiveWebhooks } from 'pipe-tunnel/webhooks'
import { describe, expect, test } from 'vitest'
import { History } from '../fixtures/webhooks/history.js'
import { post } from './helpers/webhooks.js'

/** How long what must happen may take on a slow machine, in milliseconds. */
const timeout = 30_000

describe('waitFor', () => {
  test('finds what came before, each time, and the oldest first', async () => {
    await using hook = await receiveWebhooks()
    await post(`${hook.url}/a`, '1')
    await post(`${hook.url}/a`, '2')

    const first = await hook.waitFor({ path: '/a' })
    expect(first.text()).toBe('1')
    expect(await hook.waitFor({ path: '/a' })).toBe(first)
  })

  test('finds what comes later', async () => {
    await using hook = await receiveWebhooks()
    const waiting = hook.waitFor({ path: '/b' }, { timeout })
    await post(`${hook.url}/a`, '1')
    await post(`${hook.url}/b`, '2')

    expect((await waiting).text()).toBe('2')
  })

  const order = { type: 'paid', order: { id: 7, lines: [{ sku: 'a', count: 2 }] }, note: null }

  test.each<[string, RequestPattern, string | undefined]>([
    ['a method in small letters', { method: 'post' }, undefined],
    ['another method', { method: 'GET' }, "method is 'POST', wanted 'GET'"],
    ['a path', { path: '/hooks/1' }, undefined],
    ['a part of a path', { path: '/hooks' }, "path is '/hooks/1', wanted '/hooks'"],
    ['a pattern that keeps its place', { path: /\d/g }, undefined],
    ['a function', { path: (path) => path.endsWith('1') }, undefined],
    ['a function that says no', { path: () => false }, "the function says no to path '/hooks/1'"],
    ['headers', { header: { 'x-event': /^order/, 'Content-Type': 'application/json' } }, undefined],
    [
      'a header with another value',
      { header: { 'x-event': 'x' } },
      "header x-event is 'order.paid', wanted 'x'",
    ],
    ['a header that it has not', { header: { 'x-id': /./ } }, 'header x-id is missing'],
    ['the text of the body', { body: JSON.stringify(order) }, undefined],
    ['a part of JSON', { body: { order: { id: 7 } } }, undefined],
    ['JSON with null', { body: { note: null } }, undefined],
    ['JSON with a pattern', { body: { type: /^p/ } }, undefined],
    ['JSON with a matcher of the runner', { body: { order: { id: expect.any(Number) } } }, undefined],
    ['an item of a list', { body: { order: { lines: [{ sku: 'a' }] } } }, undefined],
    ['JSON with another value', { body: { order: { id: 8 } } }, 'body.order.id is 7, wanted 8'],
    ['JSON that it has not', { body: { order: { sum: 1 } } }, 'body.order.sum is missing'],
    [
      'another item',
      { body: { order: { lines: [{ count: 1 }] } } },
      'body.order.lines[0].count is 2, wanted 1',
    ],
    [
      'a longer list',
      { body: { order: { lines: [{}, {}] } } },
      "body.order.lines is [ { sku: 'a', count: 2 } ], wanted [ {}, {} ]",
    ],
    ['an object for a value', { body: { type: {} } }, "body.type is 'paid', wanted {}"],
  ])('compares with %s', async (_what, pattern, reason) => {
    await using hook = await receiveWebhooks()
    const headers = { 'X-Event': 'order.paid', 'Content-Type': 'application/json' }
    await post(`${hook.url}/hooks/1`, JSON.stringify(order), headers)
    // Twice, as a pattern may have a memory.
    for (const _time of [1, 2]) {
      const found = hook.waitFor(pattern, { timeout: reason ? 1 : timeout })
      if (reason === undefined) await expect(found).resolves.toMatchObject({ path: '/hooks/1' })
      else await expect(found).rejects.toThrow(`: ${reason}`)
    }
  })

  test('asks a function about every request, and takes an error for a no', async () => {
    await using hook = await receiveWebhooks()
    await post(`${hook.url}/text`, 'no JSON')
    await post(`${hook.url}/json`, '{"id":7}')
    const isSeven = ({ json }: { id?: number; json?: unknown }) => json === 7

    const found = await hook.waitFor((request) => isSeven({ json: (request.json() as { id: number }).id }))
    expect(found.path).toBe('/json')
  })

  test('takes an error or a promise of a matcher in a pattern for a no, and its sender is answered', async () => {
    await using hook = await receiveWebhooks()
    const failing = { asymmetricMatch: () => expect.fail('a bug') }
    const slow = { asymmetricMatch: async () => true } as unknown as typeof failing
    const waits = [failing, slow].map((type) => hook.waitFor({ body: { type } }, { timeout: 500 }))
    const reasons = Promise.all(waits.map((wait) => wait.catch(({ message }) => message.split(': ').pop())))

    expect((await post(hook.url, '{"type":"paid"}')).status).toBe(200)
    expect(await reasons).toEqual([
      "the function throws 'a bug' at body.type 'paid'",
      'the function gives a promise, where true or false is wanted',
    ])
  })

  test('tells what came, and why it did not match', async () => {
    await using hook = await receiveWebhooks()
    await post(`${hook.url}/orders?id=1`, '{"type":"paid"}')
    await fetch(`${hook.url}/health`)
    await post(`${hook.url}/orders`, 'no JSON')

    const late = hook.waitFor({ method: 'POST', body: { type: 'refunded' } }, { timeout: 1 })
    await expect(late).rejects.toBeInstanceOf(TunnelError)
    await expect(late).rejects.toMatchObject({
      code: 'timeout',
      message: `no webhook matched within 1 ms; these came:
  POST /orders?id=1 (15 bytes): body.type is 'paid', wanted 'refunded'
  GET /health (0 bytes): method is 'GET', wanted 'POST'
  POST /orders (7 bytes): body is no JSON: 'no JSON'`,
    })
    await expect(hook.waitFor(() => false, { timeout: 1 })).rejects.toThrow(': the function says no to it')
    await expect(hook.waitFor((async () => false) as never, { timeout: 1 })).rejects.toThrow(
      'gives a promise',
    )
  })

  test('lists the last ten, and how many were before', async () => {
    await using hook = await receiveWebhooks({ maxRequests: 11 })
    for (let i = 1; i <= 13; i++) await post(`${hook.url}/${i}`, '')

    const { message } = await hook.waitFor({ path: '/x' }, { timeout: 1 }).catch((error) => error)
    expect(message.split('\n').slice(1, 3)).toEqual([
      '  3 before these',
      expect.stringMatching(/^ {2}POST \/4 /),
    ])
    expect(message.split('\n')).toHaveLength(12)
  })

  test('tells that nothing came, and what to look at', async () => {
    await using hook = await receiveWebhooks()
    await expect(hook.waitFor({}, { timeout: 1 })).rejects.toThrow(
      'no webhook came within 1 ms: does its sender have hook.url, and can it reach that address?',
    )
  })

  test('can be given up', async () => {
    await using hook = await receiveWebhooks()
    const controller = new AbortController()
    const waiting = hook.waitFor({}, { timeout, signal: controller.signal })
    controller.abort(new Error('enough'))

    await expect(waiting).rejects.toMatchObject({ code: 'aborted', cause: new Error('enough') })
    await expect(hook.waitFor({}, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'aborted' })
  })

  test('may be given the same signal any number of times', async () => {
    await using hook = await receiveWebhooks()
    const warnings: Error[] = []
    const processOnWarning = (warning: Error) => warnings.push(warning)
    process.on('warning', processOnWarning)
    const { signal } = new AbortController()
    const waiting = Array.from({ length: 20 }, () => hook.waitFor({}, { timeout, signal }))
    await post(hook.url, '')
    await Promise.all(waiting)

    process.off('warning', processOnWarning)
    expect(warnings).toEqual([])
  })

  test('refuses what it can not understand', async () => {
    await using hook = await receiveWebhooks()
    for (const wrong of [{ pfad: '/' }, null, '/path'])
      await expect(hook.waitFor(wrong as never)).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(hook.waitFor({}, { timeout: 0 })).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(hook.expectNone({ within: -1 })).rejects.toThrow('within must be a whole number')
    await expect(hook.waitForCount(0)).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(hook.waitFor({}, 100 as never)).rejects.toThrow(
      'options must be { timeout, signal }, not 100',
    )
    await expect(hook.waitForCount(1, { timout: 100 } as never)).rejects.toThrow(
      'options must be { matching, timeout, signal }, not "timout"',
    )
    await expect(hook.expectNone(100 as never)).rejects.toThrow(
      'options must be { within, matching, signal }, not 100',
    )
  })
})

describe('waitForCount', () => {
  test('gives so many, of those before and those to come', async () => {
    await using hook = await receiveWebhooks()
    await post(hook.url, '1')
    const waiting = hook.waitForCount(2, { matching: { body: /^\d$/ }, timeout })
    await post(hook.url, 'x')
    await post(hook.url, '2')
    await post(hook.url, '3')

    expect((await waiting).map((one) => one.text())).toEqual(['1', '2'])
  })

  test('tells how many came', async () => {
    await using hook = await receiveWebhooks()
    await post(`${hook.url}/a`, '')
    await expect(hook.waitForCount(2, { timeout: 1 })).rejects.toThrow(
      '1 of 2 webhooks matched within 1 ms; these came:\n  POST /a (0 bytes): matches',
    )
  })
})

describe('expectNone', () => {
  test('resolves where none comes, or none that matters', async () => {
    await using hook = await receiveWebhooks()
    await hook.expectNone({ within: 1 })
    await post(`${hook.url}/other`, '')
    await hook.expectNone({ within: 1, matching: { path: '/paid' } })
    hook.clear()
    await hook.expectNone({ within: 1 })
  })

  test('rejects for one that came before, and for one that comes', async () => {
    await using hook = await receiveWebhooks()
    const expecting = expect(hook.expectNone({ within: timeout })).rejects.toMatchObject({
      code: 'unexpected-request',
      message: 'POST /paid (2 bytes) came, where none was to come',
    })
    await post(`${hook.url}/paid`, '{}')
    await expecting
    await expect(hook.expectNone({ within: 1 })).rejects.toMatchObject({ code: 'unexpected-request' })
  })

  test('rejects where the tunnel is gone, also where a server that does not answer is the reason', async () => {
    const history = new History(10)
    const expecting = history.expectNone({ within: timeout })
    const reason = new TunnelError('timeout', 'the server does not answer')
    history.end(reason)

    await expect(expecting).rejects.toBe(reason)
    await expect(history.expectNone({ within: timeout })).rejects.toBe(reason)
  })
})
