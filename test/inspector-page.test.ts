/** The inspector's page: whom it answers, and what it does in a real browser. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import http from 'node:http'
import { gzipSync } from 'node:zlib'
import type { Browser, Page } from '@playwright/test'
import { openTunnel, type Tunnel } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
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
    { url: '/there', status: 200, size: 5 },
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
        await world.post('/early', 'x')
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
    await expect.poll(() => view.page.getByRole('listitem').count()).toBe(3)
    await keyboard.press('r')
    await expect.poll(() => view.page.getByRole('listitem').count()).toBe(4)
    expect(world.tunnel.requests.all.at(-1)).toMatchObject({ url: '/three', replayOf: expect.any(Number) })
    await keyboard.press('c')
    await expect.poll(() => view.clipboard()).toMatch(/^curl http:\S+\/three .*--data-raw \/three$/s)
    await keyboard.press('Escape')
    await expect.poll(() => view.detail.getByRole('heading').count()).toBe(0)
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
    view.expectNoErrors()
  })
})

interface World extends AsyncDisposable {
  target: SampleTarget
  tunnel: Tunnel
  page: WebPage
  api: RequestsApi
  post(path: string, body: string | Buffer, headers?: Record<string, string>): Promise<void>
}

/** A target, a tunnel to it, and the page that shows its requests. */
async function start(): Promise<World> {
  const target = await httpTarget(async (request, response) => {
    response.setHeader('X-Served', 'yes')
    response.end(`${request.method} ${request.url} ${await readAll(request)}`)
  })
  const tunnel = await openTunnel(target.address, { inspect: true })
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
    async [Symbol.asyncDispose]() {
      await page.close()
      await tunnel.close()
      await target[Symbol.asyncDispose]()
    },
  }
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
