/** What stands in front of the HTTP port, and who may come in. */
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import http from 'node:http'
import { pEvent } from 'p-event'
import {
  type Connection,
  openTunnel,
  type Rejection,
  type ServerOptions,
  type TunnelOptions,
} from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { httpWorld, request, textOf } from './helpers/http.js'
import { needs, run, startProxy } from './helpers/programs.js'

const tellHeaders: http.RequestListener = (incoming, response) =>
  response.end(JSON.stringify(incoming.headers))

async function headersFrom(
  http: ServerOptions['http'],
  sent: http.OutgoingHttpHeaders,
): Promise<Record<string, string>> {
  await using place = await httpWorld(tellHeaders, {}, { http })
  return JSON.parse(
    await textOf(await request(place.tunnel.url, { agent: place.tunnel.agent, headers: sent })),
  )
}

describe('X-Forwarded headers', () => {
  const lies = {
    'X-Forwarded-For': '192.0.2.1',
    'X-Forwarded-Proto': 'https',
    'X-Forwarded-Host': 'elsewhere',
    'X-Forwarded-Port': '1',
    X_Forwarded_For: '192.0.2.1',
    'X-Real-IP': '192.0.2.1',
    Forwarded: 'for=192.0.2.1',
  }

  test('say who the visitor is, and what others say of it is gone', async () => {
    const { host, connection, ...heard } = await headersFrom({ port: 0 }, lies)

    expect(heard).toEqual({
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': host,
    })
  })

  test('are added to where a proxy is trusted', async () => {
    const heard = await headersFrom({ port: 0, trustedProxies: ['127.0.0.0/8'] }, lies)

    expect(heard).toMatchObject({
      'x-forwarded-for': '192.0.2.1, 127.0.0.1',
      'x-forwarded-proto': 'https',
      'x-forwarded-host': 'elsewhere',
      'x-real-ip': '192.0.2.1',
    })
    // Where targets take `_` for `-`, a visitor could say through the proxy what that does not know.
    expect(heard).not.toHaveProperty('x_forwarded_for')
  })

  test.each([
    ['192.0.2.1', '192.0.2.1'],
    ['198.51.100.9, 192.0.2.1', '192.0.2.1'],
    ['192.0.2.1, 127.0.0.9', '192.0.2.1'],
    ['2001:db8::1', '2001:db8::1'],
    ['127.0.0.3, 127.0.0.2', '127.0.0.3'],
    ['192.0.2.1:5678', '192.0.2.1'],
    ['[2001:db8::1]:443, 127.0.0.2:80', '2001:db8::1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['unknown', '127.0.0.1'],
    ['192.0.2.1, <script>', '127.0.0.1'],
    ['', '127.0.0.1'],
  ])('of a trusted proxy, %j, make the visitor %s', async (forwarded, address) => {
    const options = { http: { port: 0, trustedProxies: ['127.0.0.0/8'] } }
    await using place = await httpWorld(tellHeaders, {}, options)
    const came = once(place.tunnel, 'connection') as Promise<[Connection]>
    const headers = { 'X-Forwarded-For': forwarded }
    await textOf(await request(place.tunnel.url, { agent: place.tunnel.agent, headers }))

    expect((await came)[0].visitor.address).toBe(address)
  })

  test.each([
    ['added to the line of the visitor', 'http, https', 'evil.test, shop.example.com'],
    ['added lines of its own', ['http', 'https'], ['evil.test', 'shop.example.com']],
    ['added a list to a list', ['http', 'http,https'], ['evil.test, evil.test', 'x, shop.example.com']],
    ['left nothing behind its own', 'http, https,', 'evil.test, shop.example.com, ,'],
  ])('are what a trusted proxy said itself, where it has %s', async (_what, proto, host) => {
    const sent = { 'X-Forwarded-Proto': proto, 'X-Forwarded-Host': host }
    const heard = await headersFrom({ port: 0, trustedProxies: ['127.0.0.0/8'] }, sent)
    expect(heard).toMatchObject({
      'x-forwarded-proto': 'https',
      'x-forwarded-host': 'shop.example.com',
    })
  })

  test('are what the server sees itself, where a trusted proxy says nothing in them', async () => {
    const sent = { 'X-Forwarded-Proto': ' , ', 'X-Forwarded-Host': '' }
    const heard = await headersFrom({ port: 0, trustedProxies: ['127.0.0.0/8'] }, sent)
    expect(heard).toMatchObject({ 'x-forwarded-proto': 'http', 'x-forwarded-host': heard.host })
  })

  test('decide who may visit, for each request of a proxy', async () => {
    const options = { http: { port: 0, trustedProxies: ['127.0.0.1'] } }
    await using place = await httpWorld(tellHeaders, { deny: ['192.0.2.0/24'] }, options)
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const statusFor = async (visitor: string) => {
      const headers = { 'X-Forwarded-For': visitor, Host: place.tunnel.host }
      const answer = await request('http://127.0.0.1', { agent, headers, port: place.server.httpPort })
      await textOf(answer)
      return answer.statusCode
    }

    expect([
      await statusFor('192.0.2.7'),
      await statusFor('198.51.100.7'),
      await statusFor('192.0.2.7'),
    ]).toEqual([403, 200, 403])
    agent.destroy()
  })
})

describe('basicAuth', () => {
  const options: TunnelOptions = { basicAuth: 'user:pa:ss' }
  const header = (text: string) => ({ Authorization: `Basic ${Buffer.from(text).toString('base64')}` })

  test('lets in who knows it, and does not tell the target', async () => {
    await using place = await httpWorld(tellHeaders, options)
    const answer = await place.tunnel.fetch('/', { headers: header('user:pa:ss') })

    expect(answer.status).toBe(200)
    expect(await answer.json()).not.toHaveProperty('authorization')
  })

  test.each([
    ['nothing', {}],
    ['another password', header('user:pass')],
    ['another name', header('users:pa:ss')],
    ['another scheme', { Authorization: 'Bearer dXNlcjpwYTpzcw==' }],
    ['nonsense', { Authorization: 'Basic' }],
  ])('keeps out who shows %s', async (_what, headers) => {
    await using place = await httpWorld(tellHeaders, options)
    const answer = await place.tunnel.fetch('/', { headers })

    expect([answer.status, answer.headers.get('www-authenticate')]).toEqual([
      401,
      'Basic realm="tunnel", charset="UTF-8"',
    ])
    expect(place.target.connections).toEqual([])
  })

  test('tells the server of who gives a wrong one, and not of who is asked first', async () => {
    await using place = await httpWorld(tellHeaders, options)
    const told = pEvent<'reject', Rejection>(place.server, 'reject', { timeout: 30_000 })
    for (const headers of [{}, header('user:pass')]) await place.tunnel.fetch('/', { headers })

    expect(await told).toMatchObject({
      visitor: { address: '127.0.0.1', port: expect.any(Number) },
      error: { code: 'visitor-denied', message: 'it gave a wrong name or password' },
    })
    expect(place.server.stats.rejections).toBe(1)
    expect(place.server.tunnels[0]?.stats.rejections).toBe(1)
  })

  test('keeps WebSockets out, too', async () => {
    await using place = await httpWorld(tellHeaders, options)
    const socket = new WebSocket(place.tunnel.url.replace('http', 'ws'), { agent: place.tunnel.agent })
    socket.on('error', () => {})
    const [, answer] = await once(socket, 'unexpected-response')
    expect(answer.statusCode).toBe(401)
    answer.destroy()
    socket.terminate()
  })

  test('of a tunnel without it passes Authorization on', async () => {
    await using place = await httpWorld(tellHeaders)
    const answer = await place.tunnel.fetch('/', { headers: header('a:b') })
    expect(await answer.json()).toMatchObject({ authorization: header('a:b').Authorization })
  })
})

describe('programs', () => {
  test('curl finds the URL as it is', async (context) => {
    needs(context, 'curl')
    await using tunnel = await openTunnel((_request, response) => response.end('served'), {
      hostname: 'shop',
    })

    const { stdout } = await run('curl', ['--silent', '--show-error', '--fail', tunnel.url])
    expect(`${stdout}`).toBe('served')
  })

  test('nginx in front uses its connections for all tunnels', async (context) => {
    needs(context, 'nginx', 'curl')
    const options = { http: { port: 0, trustedProxies: ['127.0.0.1'] } }
    await using place = await httpWorld(tellHeaders, {}, options)
    const { server } = place
    await using other = await openTunnel((_request, response) => response.end('other'), {
      server,
      hostname: 'other',
    })
    await using proxy = await startProxy(server.httpPort as number)
    const urls = [1, 2, 3].flatMap(() =>
      [place.tunnel, other].map(({ host }) => `http://${host}:${proxy.port}/`),
    )

    const { stdout } = await run('curl', ['--silent', '--show-error', '--fail', ...urls])
    expect(`${stdout}`.match(/other/g)).toHaveLength(3)
    expect(`${stdout}`.match(/"x-forwarded-for":"127.0.0.1, 127.0.0.1"/g)).toHaveLength(3)

    const file = proxy.folder.file('upload')
    await writeFile(file, Buffer.alloc(5_000_000))
    const upload = ['--silent', '--fail', '--data-binary', `@${file}`, `http://${other.host}:${proxy.port}/`]
    expect(`${(await run('curl', upload)).stdout}`).toBe('other')
  })
})
