/** The inspector's page: whom it answers, and what it does in a real browser. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import http from 'node:http'
import { gzipSync } from 'node:zlib'
import type { Browser, Page } from '@playwright/test'
import { type InspectOptions, openTunnel, type Tunnel } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { bytes } from '../src/cli/report.js'
import { type RequestsApi, requestsApi } from '../src/inspector-page.js'
import { serveWeb, type WebPage } from '../src/web/server.js'
import { useChromium } from './helpers/browser.js'
import { pipe } from './helpers/command.js'
import { httpTarget, readAll, type SampleTarget } from './helpers/targets.js'

const DOT = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=='
const SCRIPT = '<script>document.title = "broken in"</script><img src=x onerror="document.title=1">'

describe('the page answers', () => {
  const ask = async (given: http.RequestOptions = {}, body?: string) => {
    await using world = await start()
    const url = new URL(world.page.url)
    return await send(url, { path: url.pathname, ...given }, body)
  }

  test('who has its URL, with headers that let nothing else run', async () => {
    const { status, headers, text } = await ask()
    expect([status, text.slice(0, 15)]).toEqual([200, '<!doctype html>'])
    expect(headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self'; /)
    expect(headers['content-security-policy']).not.toMatch(/unsafe|data:|\*/)
    expect(headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cache-control': 'no-store',
      'cross-origin-resource-policy': 'same-origin',
    })
    expect(headers['access-control-allow-origin']).toBeUndefined()
  })

  test.each<[string, number, http.RequestOptions]>([
    ['without the token', 404, { path: '/' }],
    ['with another token', 404, { path: `/${'x'.repeat(32)}/` }],
    ['with another token, for a file', 404, { path: `/${'x'.repeat(32)}/app.js` }],
    ['by a name that leads here', 421, { headers: { host: 'evil.test' } }],
    ['by that name with the port', 421, { headers: { host: 'evil.test:80' } }],
    ['from another site', 403, { headers: { origin: 'http://evil.test' } }],
    ['from a page without an origin', 403, { headers: { origin: 'null' } }],
    ['from another port', 403, { headers: { origin: 'http://127.0.0.1:1' } }],
    ['from another site, without an origin', 403, { headers: { 'sec-fetch-site': 'cross-site' } }],
    ['from a page of another port', 403, { headers: { 'sec-fetch-site': 'same-site' } }],
    ['by a form', 415, { method: 'POST', headers: { 'content-type': 'text/plain' } }],
    ['by another method', 405, { method: 'DELETE' }],
  ])('nobody %s', async (_, status, given) => {
    expect((await ask(given)).status).toBe(status)
  })

  test('no files but its own, and no more than it has', async () => {
    await using world = await start()
    const url = new URL(world.page.url)
    const json = { method: 'POST', headers: { 'content-type': 'application/json' } }
    await world.post('/', 'x')
    const id = world.tunnel.requests.all[0]?.id
    const wanted: [string, http.RequestOptions?, string?][] = [
      ['../server.ts'],
      ['%2e%2e/server.ts'],
      ['constructor'],
      ['api/constructor'],
      ['api/request?id=999999999'],
      ['api/replay'],
      ['api/replay', json, '{"id":null}'],
      ['api/replay', json, `{"id":${id},"edits":null}`],
      ['api/clear', json, 'no json'],
      ['api/clear', json, 'null'],
      ['api/clear', json, '[]'],
      ['api/clear', json, '1'.repeat(17_000_000)],
    ]
    for (const [path, given, body] of wanted) {
      const { status } = await send(url, { path: url.pathname + path, ...given }, body)
      expect([path, status]).toEqual([path, 400])
    }
  })

  test('what is too long only when all of it was sent, so that whoever sends it hears why', async () => {
    await using world = await start()
    const { hostname, port, pathname } = new URL(world.page.url)
    const headers = { 'content-type': 'application/json' }
    const request = http.request({ hostname, port, path: `${pathname}api/clear`, method: 'POST', headers })
    request.end(Buffer.alloc(50_000_000))
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    expect([response.statusCode, (await readAll(response)).toString()]).toEqual([
      400,
      expect.stringMatching(/more than/),
    ])
    if (!request.writableFinished) await once(request, 'finish')
  })

  test('with the beginning of a long URL in a list, and the whole of it in the request', async () => {
    await using world = await start()
    await world.post(`/${'a'.repeat(10_000)}`, 'x')
    const urlAt = async (path: string) => {
      const text = await (await fetch(`${world.page.url}api/${path}`)).text()
      return /"url":"([^"]*)"/.exec(text)?.[1]
    }
    expect(await urlAt('requests')).toBe(`/${'a'.repeat(1_023)}…`)
    expect(await urlAt(`request?id=${world.tunnel.requests.all[0]?.id}`)).toBe(`/${'a'.repeat(10_000)}`)
  })

  test('pages that listen, up to a bound', async () => {
    await using world = await start()
    const streams = Array.from({ length: 33 }, () => fetch(`${world.page.url}api/events`))
    const states = (await Promise.all(streams)).map(({ status }) => status)
    expect(states.filter((status) => status === 200)).toHaveLength(32)
    expect(states.filter((status) => status === 400)).toHaveLength(1)
  })
})

test('pipe expose --inspect prints its URL', async () => {
  await using target = await httpTarget((_request, response) => response.end('hello'))
  await using client = pipe(['expose', target.address, '--inspect'])
  const line = await client.stderr.line(/requests are shown at /)
  const [page = ''] = /http:\S+/.exec(line) ?? []
  const url = await client.stdout.line(/^http:/)
  await (await fetch(`${url}/there`)).text()
  expect(await (await fetch(`${page}api/requests`)).json()).toMatchObject([
    { url: '/there', status: 200, bytesIn: 0, bytesOut: 5 },
  ])
})

describe('in Chromium', () => {
  const browser = useChromium()

  test('requests appear as they come, and are shown', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await view.page.getByText('No requests yet').waitFor()
    await world.post('/form?a=b', '{"a":[1]}', { 'Content-Type': 'application/json' })

    await view.row('/form?a=b').click()
    await view.detail.getByText('POST /form?a=b', { exact: true }).waitFor()
    expect(await view.detail.getByLabel('Request body').textContent()).toBe('{\n  "a": [\n    1\n  ]\n}')
    expect(await view.detail.getByLabel('Response headers').textContent()).toContain('X-Served')
    await expect.poll(() => view.page.getByRole('listitem').count()).toBe(1)
    view.expectNoErrors()
  })

  test('requests that come before it listens are shown', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world, {}, async (page) => {
      const asked = page.waitForResponse(/api\/requests$/)
      await page.route(/api\/events$/, async (route) => {
        await asked
        const listening = new AbortController()
        const { body } = await fetch(`${world.page.url}api/events`, { signal: listening.signal })
        await world.post('/early', 'x')
        // Who listens already is told, and that is all.
        for (let told = ''; !told.includes('"complete"'); ) told += await readSome(body)
        listening.abort()
        await route.continue()
      })
    })
    await view.row('/early').waitFor()
    view.expectNoErrors()
  })

  test('what others have sent is text, and runs nowhere', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/<script>', SCRIPT, { 'Content-Type': 'text/html', 'X-Html': SCRIPT })
    await world.post('/svg', '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', {
      'Content-Type': 'image/svg+xml',
    })
    for (const path of ['/%3Cscript%3E', '/svg']) {
      await view.row(path).click()
      await view.detail.getByLabel('Request body').waitFor()
    }
    expect(await view.page.locator('main script, main svg, main img').count()).toBe(0)
    expect(await view.page.title()).toContain('– pipe')
    view.expectNoErrors()
  })

  test('JSON is indented, and what it is made of stays as it was sent', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    const json = '{"id":9007199254740993,"of":[],"in":{},"all":[1.0,"{\\"a\\": [1,"],"id":1e2}'
    await world.post('/json', json, { 'Content-Type': 'application/json' })
    await view.row('/json').click()
    expect(await view.detail.getByLabel('Request body').textContent()).toBe(
      [
        '{',
        '  "id": 9007199254740993,',
        '  "of": [],',
        '  "in": {},',
        '  "all": [',
        '    1.0,',
        '    "{\\"a\\": [1,"',
        '  ],',
        '  "id": 1e2',
        '}',
      ].join('\n'),
    )
    view.expectNoErrors()
  })

  test('JSON that would take too much when it is indented is not', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    const block = '['.repeat(1_000) + ']'.repeat(1_000)
    const json = `[${Array.from({ length: 100 }, () => block).join(',')}]`
    await world.post('/json', json, { 'Content-Type': 'application/json' })
    await view.row('/json').click()
    const shown = await view.detail.getByLabel('Request body').textContent()
    expect(shown?.length).toBe(json.length)
    view.expectNoErrors()
  })

  test('a picture is shown, and other bytes in hex', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/picture', Buffer.from(DOT, 'base64'), { 'Content-Type': 'text/html' })
    await world.post('/bytes', Buffer.from('00ff41', 'hex'))
    await view.row('/picture').click()
    const picture = view.detail.getByAltText('Request body, a picture')
    await expect
      .poll(() => picture.evaluate((image) => (image as unknown as { naturalWidth: number }).naturalWidth))
      .toBe(1)
    await view.row('/bytes').click()
    await expect
      .poll(() => view.detail.getByLabel('Request body').textContent())
      .toMatch(/^000000 {2}00 ff 41 +\.\.A$/)
    view.expectNoErrors()
  })

  test('works by keys alone', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    for (const path of ['/one', '/two', '/three']) await world.post(path, path)
    await view.row('/three').waitFor()
    const { keyboard } = view.page
    const heading = () => view.detail.getByRole('heading', { level: 2 }).textContent()

    await keyboard.press('j')
    await expect.poll(heading).toBe('POST /three')
    await keyboard.press('ArrowDown')
    await expect.poll(heading).toBe('POST /two')
    await keyboard.press('k')
    await expect.poll(heading).toBe('POST /three')
    await keyboard.press('/')
    await keyboard.type('one')
    await expect.poll(() => view.page.getByRole('listitem').count()).toBe(1)
    await keyboard.press('Escape')
    expect(await view.page.getByRole('listitem').count()).toBe(1)
    await keyboard.press('Escape')
    await expect.poll(() => view.page.getByRole('listitem').count()).toBe(3)
    expect(await heading()).toBe('POST /three')
    await keyboard.press('r')
    await expect.poll(() => view.page.getByRole('listitem').count()).toBe(4)
    expect(world.tunnel.requests.all.at(-1)).toMatchObject({ url: '/three', replayOf: expect.any(Number) })
    await keyboard.press('c')
    await expect.poll(() => view.clipboard()).toMatch(/^curl http:\S+\/three .*--data-raw \/three$/s)
    await keyboard.press('Escape')
    await expect.poll(() => view.detail.getByRole('heading').count()).toBe(0)
    view.expectNoErrors()
  })

  test('the filter leads to what matches it, and says where nothing does', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    for (const path of ['/a/one', '/b', '/a/two', '/c']) await world.post(path, path)
    await view.row('/c').waitFor()
    const { keyboard } = view.page
    const heading = () => view.detail.getByRole('heading', { level: 2 }).textContent()

    await keyboard.press('/')
    await keyboard.type('/a/')
    await keyboard.press('Enter')
    await expect.poll(heading).toBe('POST /a/two')
    await keyboard.press('j')
    await expect.poll(heading).toBe('POST /a/one')
    await keyboard.press('/')
    await keyboard.press('ArrowDown')
    await expect.poll(heading).toBe('POST /a/two')
    expect(await view.page.getByRole('listitem').count()).toBe(2)

    await view.page.getByLabel('Filter requests').fill('zzzz')
    await view.page.getByText('No request matches «zzzz»').waitFor()
    await view.page.getByLabel('Filter requests').fill('')
    await expect.poll(() => view.page.getByRole('listitem').count()).toBe(4)
    expect(await view.page.getByText(/^No request/).isVisible()).toBe(false)
    view.expectNoErrors()
  })

  test('who was turned away is shown, and why', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/there', 'x')
    await world.target.stop()
    for (const socket of world.target.sockets) socket.destroy()
    await expect(world.post('/form', 'lost')).rejects.toThrow()
    await view.row('not reached').click()
    await view.detail.getByText(/can't be reached/).waitFor()
    expect(await view.page.getByRole('listitem').first().textContent()).toMatch(
      /can't be reached.*not reached/,
    )
    await view.page.reload()
    await view.row('not reached').waitFor()
    expect(await view.page.getByRole('listitem').first().textContent()).toContain('not reached')
    await view.page.getByRole('button', { name: 'Clear' }).click()
    await view.page.getByText('No requests yet').waitFor()
    view.expectNoErrors()
  })

  test('where visitors come to is shown, and what keys do', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    const { url } = world.tunnel
    await view.page.getByRole('link', { name: url }).waitFor()
    await view.page.getByText(`No requests yet. They appear as they come to ${url}.`).waitFor()
    await view.detail.getByText('Choose a request').waitFor()
    await view.detail.getByRole('row', { name: 'r sends the request again' }).waitFor()
    view.expectNoErrors()
  })

  test('a row has the time and what went either way, in the words of the terminal', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/large', 'x'.repeat(3_145_728))
    const row = view.row('/large').filter({ hasText: /\d\d:\d\d:\d\d · .* · 3 MB in · 3 MB out/ })
    await row.click()
    await view.detail.getByText('the first 1 MB of 3 MB').first().waitFor()

    const counts = [0, 1, 999, 1_000, 1_023, 1_024, 1_075, 16_077, 1_048_575, 1_048_576, 5_242_880, 7e9, 3e12]
    const words = await view.page.evaluate(
      `import('./dom.js').then(({ bytes }) => ${JSON.stringify(counts)}.map(bytes))`,
    )
    expect(words).toEqual(counts.map(bytes))
    view.expectNoErrors()
  })

  test('a request that is not kept any more has no row, unless it is being looked at', async () => {
    await using world = await start({ maxRequests: 2 })
    await using view = await openPage(browser(), world)
    for (const path of ['/one', '/two', '/three']) await world.post(path, path)
    await view.row('/one').waitFor({ state: 'detached' })
    await view.row('/two').click()
    await view.detail.getByText('POST /two', { exact: true }).waitFor()
    await world.post('/four', '/four')
    await view.row('/four').waitFor()
    expect(await view.row('/two').isVisible()).toBe(true)
    await view.row('/four').click()
    await view.row('/two').waitFor({ state: 'detached' })
    expect(await view.page.getByRole('listitem').count()).toBe(2)
    view.expectNoErrors()
  })

  test('that pipe has ended is said after some tries, and where it is asked for something', {
    timeout: 120_000,
  }, async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/form', 'before')
    await view.row('/form').click()
    await view.detail.getByText('POST /form', { exact: true }).waitFor()
    await world.page.close()
    const link = view.page.locator('#link')
    await link.filter({ hasText: 'The link to pipe is lost; trying again…' }).waitFor()
    await view.page.keyboard.press('r')
    const hasText = 'pipe has ended, it seems; its next start has a page at another address'
    await view.page.locator('#say').filter({ hasText }).waitFor()
    // A browser waits for some seconds between two tries.
    await link.filter({ hasText }).waitFor({ timeout: 90_000 })
    view.expectNoErrors(/ERR_/)
  })

  test('a replay leads to the request that it repeats', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/form', 'before')
    await view.row('/form').click()
    await view.detail.getByText('POST /form', { exact: true }).waitFor()
    await view.page.keyboard.press('r')
    await expect.poll(() => world.tunnel.requests.all).toHaveLength(2)
    const [first, again] = world.tunnel.requests.all
    await view.detail.getByText(`request ${again?.id} ·`).waitFor()
    await view.detail.getByRole('button', { name: `request ${first?.id}` }).click()
    await view.detail.getByText(`request ${first?.id} ·`).waitFor()
    expect(await view.detail.getByText('repeats').count()).toBe(0)
    view.expectNoErrors()
  })

  test('why a request broke off stands in front of it', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await expect(world.post('/broken', 'x')).rejects.toThrow()
    await view.row('/broken').click()
    await view.detail.getByText(/^It broke off without an answer: .*ECONNRESET/).waitFor()
    const text = await view.detail.textContent()
    expect(text?.indexOf('It broke off')).toBeLessThan(text?.indexOf('HTTP/1.1') ?? 0)
    view.expectNoErrors()
  })

  test('a connection that speaks another protocol is not sent again', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    world.target.server.on('upgrade', (_request, socket) => {
      socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n')
    })
    const headers = { Connection: 'Upgrade', Upgrade: 'echo' }
    http.get(`${world.tunnel.url}/socket`, { headers }).on('upgrade', (_response, socket) => socket.destroy())
    await view.row('/socket').click()
    await view.detail.getByText('GET /socket', { exact: true }).waitFor()
    for (const key of ['r', 'e', 'c']) await view.page.keyboard.press(key)
    await view.page.getByText('Copied as curl').waitFor()
    expect(await view.page.getByRole('dialog').count()).toBe(0)
    expect(world.tunnel.requests.all).toHaveLength(1)
    view.expectNoErrors()
  })

  test('a request that goes on looks so, in a row of the same height', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    const ended = world.post('/events', 'x')
    const row = view.row('/events')
    await row.filter({ hasText: '200 …' }).filter({ hasText: 'running' }).waitFor()
    const before = await row.boundingBox()
    world.release()
    await ended
    await row.filter({ hasText: /200\d\d:.* out/ }).waitFor()
    expect((await row.boundingBox())?.height).toBe(before?.height)
    view.expectNoErrors()
  })

  test('queries and forms are shown without their coding', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
    await world.post('/form?q=a%20b&q=%C3%BC', 'name=J+R&tea=%26', headers)
    await view.row('/form').click()
    const rows = (name: string) =>
      view.detail.getByLabel(name, { exact: true }).getByRole('row').allTextContents()
    await expect.poll(() => rows('Query')).toEqual(['qa b', 'qü'])
    expect(await rows('Request form')).toEqual(['nameJ R', 'tea&'])
    expect(await view.detail.getByLabel('Request body').textContent()).toBe('name=J+R&tea=%26')
    view.expectNoErrors()
  })

  test('a request is changed and sent again', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/form', 'before', { 'X-Own': 'yes' })
    await view.row('/form').click()
    await view.page.getByRole('button', { name: 'Edit and replay' }).click()
    await view.page.getByRole('dialog').getByLabel('Method').fill('PUT')
    await view.page.getByRole('dialog').getByLabel('Path').fill('/other')
    await view.page.getByRole('dialog').getByLabel('Body').fill('after')
    await view.page.getByRole('button', { name: 'Send' }).click()

    await view.detail.getByText('PUT /other', { exact: true }).waitFor()
    const again = world.tunnel.requests.all.at(-1)
    expect(again?.headers).toContainEqual(['X-Own', 'yes'])
    expect(again?.response?.body.bytes.toString()).toBe('PUT /other after')
    view.expectNoErrors()
  })

  test('a body that is not edited is sent again as it came, and one that is keeps its line ends', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    const coded = gzipSync('line\r\n')
    await world.post('/coded', coded, { 'Content-Encoding': 'gzip', 'Content-Type': 'text/plain' })
    await world.post('/lines', 'one\r\ntwo\r\n', { 'Content-Type': 'text/plain' })
    const dialog = view.page.getByRole('dialog')
    const send = async (path: string, body?: string) => {
      await view.row(path).last().click()
      await view.page.getByRole('button', { name: 'Edit and replay' }).click()
      if (body !== undefined) await dialog.getByLabel('Body').fill(body)
      await view.page.getByRole('button', { name: 'Send' }).click()
      await dialog.waitFor({ state: 'detached' })
      await view.detail.getByText('repeats request').waitFor()
      return world.tunnel.requests.all.at(-1)
    }
    const again = await send('/coded')
    expect(again?.body.bytes).toEqual(coded)
    expect(again?.headers.filter(([name]) => /^content-encoding$/i.test(name))).toHaveLength(1)
    expect((await send('/lines'))?.body.bytes.toString()).toBe('one\r\ntwo\r\n')
    expect((await send('/lines', 'one\nthree\n'))?.body.bytes.toString()).toBe('one\r\nthree\r\n')
    expect((await send('/coded', 'line'))?.body.bytes.toString()).toBe('line')
    view.expectNoErrors()
  })

  test('edits that cannot be sent stay, and the dialog says why', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/form', 'before')
    await view.row('/form').click()
    await view.page.getByRole('button', { name: 'Edit and replay' }).click()
    const dialog = view.page.getByRole('dialog')
    await dialog.getByLabel('Method').fill('BAD METHOD')
    await dialog.getByLabel('Body').fill('after')
    await dialog.getByRole('button', { name: 'Send' }).click()
    const failure = dialog.getByRole('alert')
    await failure.getByText('method must be a method such as GET or POST, not "BAD METHOD"').waitFor()
    await dialog.getByLabel('Method').fill('PUT')
    await dialog.getByLabel('Headers').fill('nonsense header')
    await view.page.keyboard.press('Control+Enter')
    await failure.getByText(/nonsense header/).waitFor()
    expect(await dialog.getByLabel('Body').inputValue()).toBe('after')
    await dialog.getByLabel('Headers').fill('X-Own: yes')
    await view.page.keyboard.press('Control+Enter')

    await view.detail.getByText('PUT /form', { exact: true }).waitFor()
    expect(await dialog.count()).toBe(0)
    expect(world.tunnel.requests.all).toHaveLength(2)
    expect(world.tunnel.requests.all.at(-1)?.body.bytes.toString()).toBe('after')
    view.expectNoErrors(/400/)
  })

  test('a replay that fails is told', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/form', 'before')
    await view.row('/form').click()
    await view.detail.getByText('POST /form', { exact: true }).waitFor()
    await world.target.stop()
    for (const socket of world.target.sockets) socket.destroy()
    await view.page.keyboard.press('r')
    await view.page.getByText(/can't be reached/).waitFor()
    view.expectNoErrors(/400/)
  })

  test('requests are saved as HAR, without their secrets unless they are wanted, and cleared', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world)
    await world.post('/a', 'b', { Authorization: 'Bearer abc' })
    await view.row('/a').waitFor()
    const saved = async () => {
      const download = view.page.waitForEvent('download')
      await view.page.getByRole('button', { name: 'HAR' }).click()
      return readFile((await (await download).path()) ?? '', 'utf8')
    }
    const masked = await saved()
    expect(JSON.parse(masked).log.entries).toHaveLength(1)
    expect(masked).toContain('Bearer ***')
    await view.page.getByLabel('export secrets').check()
    expect(await saved()).toContain('Bearer abc')

    await view.page.getByRole('button', { name: 'Clear' }).click()
    await view.page.getByText('No requests yet').waitFor()
    expect(world.tunnel.requests.all).toEqual([])
    view.expectNoErrors()
  })

  test('the requests of a tunnel that is gone leave the page, which goes on showing another', async () => {
    await using world = await start()
    await using other = await openTunnel(world.target.address, { inspect: true })
    world.api.add(other)
    await using view = await openPage(browser(), world)
    await world.post('/stays', 'x')
    await (await fetch(`${other.url}/goes`, { method: 'POST' })).text()
    await view.row('/goes').waitFor()
    await view.row('/stays').click()
    world.api.remove(other)
    await view.row('/goes').waitFor({ state: 'detached' })
    await view.detail.getByText('POST /stays', { exact: true }).waitFor()
    await world.post('/later', 'x')
    await view.row('/later').waitFor()
    expect(other.requests.all).toEqual([])
    view.expectNoErrors()
  })

  test('a phone shows the list or the request', async () => {
    await using world = await start()
    await using view = await openPage(browser(), world, { viewport: { width: 360, height: 640 } })
    await world.post('/a/long/path/that/does/not/fit/into/the/width/of/a/phone', 'x')
    await view.row('/a/long').click()
    await view.detail.getByRole('heading', { level: 2 }).waitFor()
    expect(await view.row('/a/long').isVisible()).toBe(false)
    const overflow = await view.page.evaluate('document.documentElement.scrollWidth - innerWidth')
    expect(overflow).toBe(0)
    await view.page.getByRole('button', { name: '← Back' }).click()
    await expect.poll(() => view.row('/a/long').isVisible()).toBe(true)
    // The browser's own button does the same.
    await view.row('/a/long').click()
    await view.detail.getByRole('heading', { level: 2 }).waitFor()
    await view.page.goBack()
    await expect.poll(() => view.row('/a/long').isVisible()).toBe(true)
    await view.page.goForward()
    await view.detail.getByRole('heading', { level: 2 }).waitFor()
    view.expectNoErrors()
  })
})

interface World extends AsyncDisposable {
  target: SampleTarget
  tunnel: Tunnel
  page: WebPage
  api: RequestsApi
  post(path: string, body: string | Buffer, headers?: Record<string, string>): Promise<void>
  /** Ends the answers to `/events`. */
  release(): void
}

/** A target, a tunnel to it, and the page that shows its requests. */
async function start(inspect: InspectOptions = {}): Promise<World> {
  const held: http.ServerResponse[] = []
  const target = await httpTarget(async (request, response) => {
    if (request.url === '/broken') return request.socket.resetAndDestroy()
    if (request.url === '/events') {
      held.push(response)
      return response.writeHead(200).write('data: 1\n\n')
    }
    response.setHeader('X-Served', 'yes')
    response.end(`${request.method} ${request.url} ${await readAll(request)}`)
  })
  const tunnel = await openTunnel(target.address, { inspect })
  const api = requestsApi([tunnel])
  const page = await serveWeb(api)
  return {
    target,
    tunnel,
    page,
    api,
    async post(path, body, headers = {}) {
      await (await fetch(tunnel.url + path, { method: 'POST', body: Buffer.from(body), headers })).text()
    },
    release() {
      for (const response of held) response.end()
    },
    async [Symbol.asyncDispose]() {
      await page.close()
      await tunnel.close()
      await target[Symbol.asyncDispose]()
    },
  }
}

/** The next piece of a stream, as text. */
async function readSome(stream: ReadableStream<Uint8Array> | null): Promise<string> {
  const reader = stream?.getReader()
  const { value } = (await reader?.read()) ?? {}
  reader?.releaseLock()
  if (!value) throw new Error('the stream has ended')
  return Buffer.from(value).toString()
}

async function openPage(
  browser: Browser,
  { page: { url } }: World,
  options = {},
  before?: (page: Page) => Promise<void>,
) {
  const permissions = ['clipboard-read', 'clipboard-write']
  const context = await browser.newContext({ permissions, ...options })
  const page: Page = await context.newPage()
  page.setDefaultTimeout(30_000)
  const errors: string[] = []
  page.on('pageerror', (error) => errors.push(String(error)))
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()))
  await before?.(page)
  await page.goto(url)
  return {
    page,
    detail: page.getByRole('region', { name: 'Request', exact: true }),
    row: (path: string) => page.getByRole('button', { name: path }),
    clipboard: () => page.evaluate('navigator.clipboard.readText()') as Promise<string>,
    /** A violation of the content security policy is one, too. */
    expectNoErrors(but = /^$/) {
      expect(errors.filter((error) => !but.test(error))).toEqual([])
    },
    async [Symbol.asyncDispose]() {
      await context.close()
    },
  }
}

/** As no browser would. */
function send({ hostname, port }: URL, options: http.RequestOptions, body?: string) {
  return new Promise<{ status: number | undefined; headers: http.IncomingHttpHeaders; text: string }>(
    (resolve, reject) => {
      const request = http.request({ hostname, port, ...options }, async (response) => {
        const text = (await readAll(response)).toString()
        resolve({ status: response.statusCode, headers: response.headers, text })
      })
      request.on('error', reject).end(body)
    },
  )
}
