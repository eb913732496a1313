/** The administration of pipe server, through the command and over HTTP. */
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import http from 'node:http'
import net from 'node:net'
import { join } from 'node:path'
import { pEvent } from 'p-event'
import { openTunnel, type Tunnel } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { pipe, pipeToEnd, temporaryFolder } from './helpers/command.js'
import { tableUnder } from './helpers/snippets.js'
import { echoTarget, httpTarget, readAll } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

const SECRET = 'correct horse battery staple'
const soon = { timeout: 30_000 }

/** A pipe server with administration, and where both are. */
async function startServer(words: string[] = [], env: Record<string, string> = {}) {
  const program = pipe(['server', '--port', '0', '--admin-port', '0', ...words], { env })
  const address = await program.stdout.line(/^pipe:/)
  const line = await program.stderr.line(/administration at/)
  const url = /administration at (http:\S+?)(;|$)/.exec(line)?.[1] ?? ''
  return { program, address, url, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() }
}

/** An answer, with its body as JSON where that is what it is. */
async function request(
  url: string,
  { method = 'GET', headers = {} as Record<string, string>, body = '' } = {},
) {
  // fetch does not let a caller say Host, Origin and Sec-Fetch-Site.
  const sent = http.request(url, { method, headers, agent: false }).end(body)
  const [response] = (await once(sent, 'response')) as [http.IncomingMessage]
  const text = `${await readAll(response)}`
  const isJson = response.headers['content-type'] === 'application/json'
  return {
    status: response.statusCode,
    headers: response.headers,
    text,
    json: isJson && text ? JSON.parse(text) : undefined,
  }
}

/** What Prometheus would make of a text: the samples by their name and labels. Throws at whatever breaks its format. */
function parseMetrics(text: string): Map<string, number> {
  const samples = new Map<string, number>()
  const types = new Map<string, string>()
  const helped = new Set<string>()
  if (!text.endsWith('\n')) throw new Error('the last line does not end')
  for (const line of text.split('\n')) {
    if (line === '') continue
    const [, helpOf] = /^# HELP ([a-zA-Z_:][\w:]*) \S.*$/.exec(line) ?? []
    const [, typed, type = ''] =
      /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram|summary)$/.exec(line) ?? []
    if (helpOf !== undefined) {
      if (helped.has(helpOf)) throw new Error(`${helpOf} has two helps`)
      helped.add(helpOf)
      continue
    }
    if (typed !== undefined) {
      if (types.has(typed) || !helped.has(typed))
        throw new Error(`${typed} is typed twice, or before its help`)
      // What prom-client itself brings has names of its own.
      if (typed.startsWith('pipe_') && (type === 'counter') !== typed.endsWith('_total'))
        throw new Error(`${typed} is a ${type}`)
      types.set(typed, type)
      continue
    }
    const label = '[a-zA-Z_]\\w*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"'
    const sample = new RegExp(
      `^([a-zA-Z_:][\\w:]*)(\\{${label}(?:,${label})*\\})? (-?[\\d.e+-]+|NaN|Nan|[+-]Inf)$`,
    )
    const [, name, labels = '', value] = sample.exec(line) ?? []
    if (name === undefined) throw new Error(`this is no sample: ${line}`)
    const family = types.has(name) ? name : name.replace(/_(bucket|sum|count)$/, '')
    if (!types.has(family)) throw new Error(`${name} has no type`)
    if (samples.has(name + labels)) throw new Error(`${name}${labels} is there twice`)
    samples.set(name + labels, Number(value))
  }
  return samples
}

/** A visitor that was answered, and stays. */
async function stay(tunnel: Tunnel) {
  const visitor = await visit(tunnel)
  visitor.write('hello')
  await pEvent(visitor, 'data')
  return visitor
}

const scrape = async (url: string) => parseMetrics((await request(`${url}/metrics`)).text)

describe('the API', () => {
  test('lists tunnels and visitors, and closes a tunnel', async () => {
    await using server = await startServer()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server: server.address })
    const visitor = await stay(tunnel)

    const { tunnels } = (await request(`${server.url}/api/tunnels`)).json
    expect(tunnels).toEqual([
      {
        id: expect.stringMatching(/^[0-9a-z]{8}$/),
        protocol: 'tcp',
        address: `127.0.0.1:${tunnel.port}`,
        host: '127.0.0.1',
        port: tunnel.port,
        path: null,
        hostname: null,
        url: null,
        client: { address: '127.0.0.1', port: expect.any(Number) },
        secretName: null,
        openedAt: expect.stringMatching(/^\d{4}-.*Z$/),
        connections: 1,
        stats: { connections: 1, rejections: 0, bytesIn: 5, bytesOut: 5, drops: 0 },
      },
    ])
    const [{ id }] = tunnels
    const listed = await request(`${server.url}/api/connections?tunnel=${id}`)
    expect(listed.json).toEqual({
      connections: [
        {
          id: expect.stringMatching(/^[0-9a-f-]{36}$/),
          tunnel: id,
          visitor: { address: '127.0.0.1', port: visitor.localPort },
          joinedAt: expect.stringMatching(/^\d{4}-.*Z$/),
          bytesIn: 5,
          bytesOut: 5,
        },
      ],
      total: 1,
    })
    expect((await request(`${server.url}/api/connections?tunnel=other`)).json.total).toBe(0)

    const cut = ending(visitor)
    const closed = await request(`${server.url}/api/tunnels/${id}`, { method: 'DELETE' })
    expect(closed).toMatchObject({ status: 200, json: { tunnel: { id } } })
    expect((await tunnel.closed)?.code).toBe('closed-by-server')
    expect(await cut).toBe('reset')
    const again = await request(`${server.url}/api/tunnels/${id}`, { method: 'DELETE' })
    expect(again).toMatchObject({ status: 404, json: { error: { code: 'not-found' } } })
    expect((await request(`${server.url}/api/tunnels`)).json).toEqual({ tunnels: [] })
    await vi.waitFor(async () => {
      expect((await request(`${server.url}/api/connections`)).json).toEqual({ connections: [], total: 0 })
    }, soon)
  })

  test.each([
    ['POST', '/api/tunnels', 405, 'GET, HEAD'],
    ['DELETE', '/metrics', 405, 'GET, HEAD'],
    ['PUT', '/api/tunnels/k7f3q9xm', 405, 'GET, HEAD, DELETE'],
    ['OPTIONS', '/healthz', 405, 'GET, HEAD'],
    ['GET', '/api/tunnels/k7f3q9xm', 404, undefined],
    ['GET', '/api/tunnels/', 404, undefined],
    ['GET', '/api/tunnels/../../healthz', 404, undefined],
    ['GET', '/constructor', 404, undefined],
    ['GET', '//', 404, undefined],
  ])('answers %s %s with %i and a sentence', async (method, path, status, allow) => {
    await using server = await startServer()
    const socket = net.connect(Number(new URL(server.url).port), '127.0.0.1')
    socket.end(`${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    const [head = '', body = ''] = `${await readAll(socket)}`.split('\r\n\r\n')

    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    expect(/^allow: (.*)$/im.exec(head)?.[1]).toBe(allow)
    expect(JSON.parse(body)).toEqual({ error: { code: expect.any(String), message: expect.any(String) } })
  })

  test('answers HEAD with a head alone, also where an answer would go on', async () => {
    await using server = await startServer()
    for (const path of ['/', '/metrics', '/api/events']) {
      const { status, text } = await request(`${server.url}${path}`, { method: 'HEAD' })
      expect([path, status, text]).toEqual([path, 200, ''])
    }
  })

  test('goes on through what is no request', async () => {
    await using server = await startServer()
    const port = Number(new URL(server.url).port)
    const lines = [
      '\x16\x03\x01garbage\r\n\r\n',
      `GET /${'x'.repeat(100_000)} HTTP/1.1\r\n\r\n`,
      'GET / HTTP/1.1\r\n',
    ]
    for (const line of lines) {
      const socket = net.connect(port, '127.0.0.1').on('error', () => {})
      socket.end(line)
      expect(`${await readAll(socket).catch(() => '')}`).not.toContain('200 OK')
    }
    const body = 'x'.repeat(1_000_000)
    const refused = await request(`${server.url}/api/tunnels`, { method: 'POST', body }).catch(
      () => undefined,
    )
    if (refused) expect(refused).toMatchObject({ status: 405, headers: { connection: 'close' } })

    expect((await request(`${server.url}/healthz`)).json).toEqual({ status: 'alive' })
  })

  test('does not wait for who says nothing', async () => {
    await using server = await startServer()
    const socket = net.connect(Number(new URL(server.url).port), '127.0.0.1')
    socket.write('GET /healthz HTTP/1.1\r\n')
    expect(`${await readAll(socket)}`).toMatch(/^(HTTP\/1.1 408 |$)/)
  })
})

describe('who may ask', () => {
  test.each([
    ['whose name leads here', { host: 'evil.example' }],
    ['that asks by itself', { origin: 'http://evil.example' }],
    ['of a file', { origin: 'null' }],
    ['that has an image of it', { 'sec-fetch-site': 'cross-site' }],
    ['of another port', { origin: 'http://127.0.0.1:3000', 'sec-fetch-site': 'same-site' }],
  ])('is no page of another site %s', async (_, headers: Record<string, string>) => {
    await using server = await startServer()
    await using tunnel = await openTunnel(3000, { server: server.address })
    const [{ id }] = (await request(`${server.url}/api/tunnels`)).json.tunnels
    for (const [method, path] of [
      ['GET', '/api/tunnels'],
      ['GET', '/metrics'],
      ['DELETE', `/api/tunnels/${id}`],
    ]) {
      const { status, json, headers: answered } = await request(`${server.url}${path}`, { method, headers })
      expect([status, json]).toEqual([403, { error: { code: 'refused', message: expect.any(String) } }])
      expect(answered['access-control-allow-origin']).toBeUndefined()
    }
    expect((await request(`${server.url}/api/tunnels/${id}`)).status).toBe(200)
    await tunnel.close()
  })

  test('is whoever names this machine, or an address of it', async () => {
    await using server = await startServer()
    const { port } = new URL(server.url)
    for (const host of [`localhost:${port}`, '127.0.0.1', `[::1]:${port}`, '192.0.2.7:80']) {
      expect([host, (await request(`${server.url}/api/tunnels`, { headers: { host } })).status]).toEqual([
        host,
        200,
      ])
    }
    const origin = `http://localhost:${port}`
    const headers = { host: `localhost:${port}`, origin, 'sec-fetch-site': 'same-origin' }
    expect((await request(`${server.url}/api/tunnels`, { headers })).status).toBe(200)
  })

  test('is who shows the secret, where there is one, by whatever name; health is open', async () => {
    await using server = await startServer(['--admin-host', '0.0.0.0'], { PIPE_ADMIN_SECRET: SECRET })
    const { url } = server
    // One that a browser can open, though it listens at all of them.
    expect(new URL(url).hostname).toBe('127.0.0.1')
    const get = async (path: string, authorization?: string) => {
      const headers = { host: 'tunnel.example', ...(authorization !== undefined && { authorization }) }
      const { status, json, headers: answered } = await request(`${url}${path}`, { headers })
      return [status, json?.error?.code, answered['www-authenticate']]
    }

    expect(await get('/api/tunnels', `Bearer ${SECRET}`)).toEqual([200, undefined, undefined])
    expect(await get('/metrics', `bearer ${SECRET}`)).toEqual([200, undefined, undefined])
    const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`
    expect(await get('/api/tunnels', basic(`anybody:${SECRET}`))).toEqual([200, undefined, undefined])
    expect(await get('/', basic(`:${SECRET}`))).toEqual([200, undefined, undefined])
    const asked = expect.stringMatching(/^Bearer, Basic realm=/)
    expect(await get('/api/tunnels')).toEqual([401, 'secret-required', asked])
    expect(await get('/')).toEqual([401, 'secret-required', asked])
    expect(await get('/app.js', `Digest ${SECRET}`)).toEqual([401, 'secret-required', asked])
    expect(await get('/metrics', `Basic ${SECRET}`)).toEqual([401, 'secret-required', asked])
    expect(await get('/api/tunnels', basic(`${SECRET}:x`))).toEqual([401, 'secret-wrong', asked])
    expect(await get('/api/tunnels', `Bearer ${SECRET}x`)).toEqual([401, 'secret-wrong', asked])
    expect(await get('/nothing')).toEqual([401, 'secret-required', asked])
    expect(await get('/healthz')).toEqual([200, undefined, undefined])
    expect(await get('/readyz')).toEqual([200, undefined, undefined])
    server.program.signal('SIGTERM')
    const { stdout, stderr } = await server.program.ended()
    expect(stdout + stderr).not.toContain(SECRET)
  })

  test.each([
    [
      'an address of others without a secret',
      ['--admin-port', '0', '--admin-host', '0.0.0.0'],
      {},
      /PIPE_ADMIN_SECRET/,
    ],
    [
      'a short secret',
      ['--admin-port', '0'],
      { PIPE_ADMIN_SECRET: 'short' },
      /PIPE_ADMIN_SECRET must have 8/,
    ],
    ['a port that is none', ['--admin-port', '80a'], {}, /admin port .*0 to 65535, not "80a"/],
    ['a secret for nothing', ['--admin-secret-file', 'package.json'], {}, /--admin-port/],
  ])('%s is wrong usage', async (_, words, env, sentence) => {
    const { code, stderr } = await pipeToEnd(['server', '--port', '0', ...words], { env })
    expect([code, stderr]).toEqual([2, expect.stringMatching(sentence)])
  })

  test('a port that is taken ends the server with a sentence', async () => {
    await using other = await echoTarget()
    const { code, stderr } = await pipeToEnd(['server', '--port', '0', '--admin-port', `${other.port}`])
    expect([code, stderr]).toEqual([1, expect.stringMatching(/is taken by another program/)])
  })
})

describe('health', () => {
  test('is ready until the server is told to end, and alive until it has', async () => {
    await using server = await startServer()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server: server.address })
    const visitor = await stay(tunnel)
    expect(await request(`${server.url}/readyz`)).toMatchObject({ status: 200, json: { status: 'ready' } })

    server.program.signal('SIGTERM')
    await server.program.stderr.line(/closing; waiting/)

    const unready = { status: 503, json: { error: { code: 'server-closed' } } }
    expect(await request(`${server.url}/readyz`)).toMatchObject(unready)
    expect((await request(`${server.url}/healthz`)).status).toBe(200)
    visitor.end()
    expect((await server.program.ended()).code).toBe(0)
  })
})

describe('metrics', () => {
  test('are what Prometheus reads, and add up with what was sent, of visitors inside too', async () => {
    await using server = await startServer()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server: server.address })
    await using down = await openTunnel(1, { server: server.address })
    await ask(tunnel, 'x'.repeat(100_000))
    const visitor = await stay(tunnel)
    await ending(await visit(down))
    await openTunnel(3000, { server: server.address, port: 80 }).catch(() => {})
    const stranger = await visit({ port: Number(new URL(server.address).port) })
    stranger.write('what is this?')
    await ending(stranger)

    const expected = {
      'pipe_tunnels{protocol="tcp"}': 2,
      'pipe_tunnels{protocol="udp"}': 0,
      pipe_visitors: 1,
      'pipe_opened_tunnels_total{protocol="tcp"}': 2,
      'pipe_exchanges_total{result="joined"}': 2,
      'pipe_exchanges_total{result="target-unreachable"}': 1,
      'pipe_relayed_bytes_total{direction="in"}': 100_005,
      'pipe_relayed_bytes_total{direction="out"}': 100_005,
      'pipe_refusals_total{code="protocol-violation"}': 1,
      pipe_dropped_datagrams_total: 0,
      pipe_lost_clients_total: 0,
      pipe_reconnects_total: 0,
    }
    await vi.waitFor(async () => {
      expect(Object.fromEntries(await scrape(server.url))).toMatchObject(expected)
    }, soon)
    const samples = await scrape(server.url)
    expect(samples.get('nodejs_eventloop_lag_p99_seconds')).toBeGreaterThan(0)
    await vi.waitFor(async () => {
      expect((await scrape(server.url)).get('pipe_heartbeats_total')).toBeGreaterThan(0)
    }, soon)
    visitor.destroy()
  })

  test('are those that docs/admin.md has, with their types', async () => {
    await using server = await startServer()
    const { text } = await request(`${server.url}/metrics`)
    const served = [...text.matchAll(/^# TYPE (pipe_\w+) (\w+)$/gm)].map(([, ...words]) => words)
    const documented = (await tableUnder('docs/admin.md', 'Metrics')).map(([name, type]) => [name, type])

    expect(documented.length).toBeGreaterThan(5)
    expect(served.sort()).toEqual(documented.sort())
  })

  test('have no label that a client or a visitor chooses', async () => {
    await using server = await startServer()
    await using target = await echoTarget()
    const series = async () =>
      [...(await scrape(server.url)).keys()].filter((name) => name.startsWith('pipe_'))
    const before = await series()
    for (let round = 0; round < 10; round++) {
      await using tunnel = await openTunnel(target.port, { server: server.address })
      await ask(tunnel, 'hello')
    }
    expect(before.length).toBeGreaterThan(10)
    expect(await series()).toEqual(before)
  })
})

describe('pipe status and pipe close', () => {
  test('show the tunnels in columns, and close one', async () => {
    await using server = await startServer()
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server: server.address })
    await ask(tunnel, 'hello')
    const env = { PIPE_ADMIN: server.url }

    const { code, stdout } = await pipeToEnd(['status'], { env })
    expect(code).toBe(0)
    const [headings = '', row = ''] = stdout.split('\n')
    expect(row).toMatch(/^[0-9a-z]{8} {2}127\.0\.0\.1:\d+ +127\.0\.0\.1:\d+ +\d+ s +0 +5 B +5 B$/)
    expect(row.indexOf('127.0.0.1')).toBe(headings.indexOf('ADDRESS'))
    expect(row.lastIndexOf('5 B')).toBe(headings.indexOf('OUT'))
    const shown = JSON.parse((await pipeToEnd(['status', '--json', '--admin', server.url])).stdout)
    expect(shown).toEqual((await request(`${server.url}/api/tunnels`)).json)

    const id = row.slice(0, 8)
    expect(await pipeToEnd(['close', id], { env })).toEqual({
      code: 0,
      stdout: '',
      stderr: `closed 127.0.0.1:${tunnel.port}\n`,
    })
    expect((await tunnel.closed)?.code).toBe('closed-by-server')
    const again = await pipeToEnd(['close', id, '--json'], { env })
    expect([again.code, again.stderr]).toEqual([
      1,
      `pipe: no tunnel ${id} is open at this server: pipe status lists those that are\n`,
    ])
    expect(JSON.parse(again.stdout)).toEqual({
      error: { code: 'refused', message: expect.stringContaining(id) },
    })
    expect(await pipeToEnd(['status'], { env })).toEqual({
      code: 0,
      stdout: '',
      stderr: 'no tunnels are open\n',
    })
  })

  test('name the secret of a client, where there are several', async () => {
    await using folder = await temporaryFolder()
    const file = join(folder.path, 'server.json')
    await writeFile(file, JSON.stringify({ server: { secrets: { alice: { secret: SECRET } } } }))
    await using server = await startServer(['--config', file])
    await using tunnel = await openTunnel(3000, { server: server.address, secret: SECRET })

    const { stdout } = await pipeToEnd(['status', '--admin', server.url])
    expect(stdout).toMatch(new RegExp(`127.0.0.1:${tunnel.port} +alice 127\\.0\\.0\\.1:\\d+ `))
  })

  test('show the secret, from a file or the environment, and say what is wrong with it', async () => {
    await using folder = await temporaryFolder()
    const file = join(folder.path, 'admin-secret')
    await writeFile(file, `${SECRET}\n`)
    await using server = await startServer(['--admin-secret-file', file])
    const words = ['status', '--admin', server.url]

    expect((await pipeToEnd([...words, '--admin-secret-file', file])).code).toBe(0)
    expect((await pipeToEnd(words, { env: { PIPE_ADMIN_SECRET: SECRET } })).code).toBe(0)
    const without = await pipeToEnd(words)
    expect([without.code, without.stderr]).toEqual([
      1,
      expect.stringMatching(/asks for its secret: set PIPE_ADMIN_SECRET/),
    ])
    const wrong = await pipeToEnd(words, { env: { PIPE_ADMIN_SECRET: 'not the secret' } })
    expect([wrong.code, wrong.stderr]).toEqual([
      1,
      expect.stringMatching(/is not that of the administration/),
    ])
  })

  test('show a secret of any letters, as programs do that send it in UTF-8', async () => {
    const secret = 'pässword 漢字\nof two lines'
    await using server = await startServer([], { PIPE_ADMIN_SECRET: secret })
    const env = { PIPE_ADMIN: server.url, PIPE_ADMIN_SECRET: secret }
    expect(await pipeToEnd(['status'], { env })).toMatchObject({ code: 0 })

    await using other = await startServer([], { PIPE_ADMIN_SECRET: 'pässword 漢字' })
    const authorization = Buffer.from('Bearer pässword 漢字').toString('latin1')
    expect((await request(`${other.url}/metrics`, { headers: { authorization } })).status).toBe(200)
  })

  test('say so where nothing answers, or something else', async () => {
    const nobody = await pipeToEnd(['status', '--admin', 'http://127.0.0.1:1', '--json'])
    expect([nobody.code, nobody.stderr]).toEqual([
      1,
      expect.stringMatching(/is the server started with --admin-port/),
    ])
    expect(JSON.parse(nobody.stdout).error.code).toBe('server-unreachable')
    await using web = await httpTarget((_request, response) =>
      response.writeHead(302, { location: '/' }).end(),
    )
    const other = await pipeToEnd(['status', '--admin', `http://127.0.0.1:${web.port}`])
    expect([other.code, other.stderr]).toEqual([1, expect.stringMatching(/^pipe: no administration answers/)])
    await using page = await httpTarget((_request, response) => response.end('<html>\x1b[31m'))
    const html = await pipeToEnd(['close', 'k7f3q9xm', '--admin', `http://127.0.0.1:${page.port}`])
    expect([html.code, html.stderr]).toEqual([1, expect.stringMatching(/is no administration of a server/)])
  })

  test.each([
    ['a URL that is none', ['status', '--admin', '127.0.0.1'], /--admin must be a URL/],
    ['a path for an id', ['close', '../../healthz'], /the id must be one that pipe status shows/],
    ['no id', ['close'], /missing required argument/],
  ])('%s is wrong usage', async (_, words, sentence) => {
    const { code, stderr } = await pipeToEnd(words)
    expect([code, stderr]).toEqual([2, expect.stringMatching(sentence)])
  })
})
