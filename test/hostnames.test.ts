/** HTTP tunnels by name: who gets which, for how long, and what the URL is. */
import { once } from 'node:events'
import http from 'node:http'
import { pEvent } from 'p-event'
import { createServer, openTunnel, type ServerOptions, type TunnelError } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { freePort } from './helpers/command.js'
import { httpWorld, request, serveHttp, textOf } from './helpers/http.js'
import { brokenLink } from './helpers/link.js'

const code = (promise: Promise<unknown>) =>
  promise.then(
    () => 'nothing',
    (error: TunnelError) => error.code,
  )
const served: http.RequestListener = (_request, response) => response.end('served')

describe('a tunnel with a hostname', () => {
  test('needs no server: its URL is ready, and its own fetch finds it', async () => {
    await using tunnel = await openTunnel(served, { hostname: 'Shop' })

    expect(tunnel.url).toBe(`http://shop.localhost:${tunnel.port}`)
    expect(tunnel).toMatchObject({ hostname: 'shop', host: 'shop.localhost', protocol: 'http' })
    expect(await (await tunnel.fetch('/')).text()).toBe('served')
  })

  test('has an agent for node:http, whatever the name server says', async () => {
    await using tunnel = await openTunnel(served, { hostname: 'shop' })

    expect(await textOf(await request(tunnel.url, { agent: tunnel.agent }))).toBe('served')
  })

  test('shares its port with others, and each request goes where it names', async () => {
    await using server = await createServer({ http: { port: 0 } })
    const names = ['one', 'two', 'three']
    const tunnels = await Promise.all(
      names.map((hostname) =>
        openTunnel((_request, response) => response.end(hostname), { server, hostname }),
      ),
    )

    expect(new Set(tunnels.map(({ port }) => port))).toEqual(new Set([server.httpPort]))
    for (const tunnel of tunnels) expect(await (await tunnel.fetch('/')).text()).toBe(tunnel.hostname)
    expect(server.tunnels.map(({ hostname, url }) => [hostname, url])).toEqual(
      expect.arrayContaining(tunnels.map(({ hostname, url }) => [hostname, url])),
    )
  })

  test('gets a readable one where it asks for any', async () => {
    await using server = await createServer({ http: { port: 0 } })
    await using first = await openTunnel(served, { server, hostname: true })
    await using second = await openTunnel(served, { server, hostname: true })

    expect(first.hostname).toMatch(/^[a-z]+-[a-z]+-\d{4,5}$/)
    expect(first.hostname).not.toBe(second.hostname)
  })

  test('is what the server shows and tells of', async () => {
    await using server = await createServer({ http: { port: 0, domain: 'tunnels.localhost' } })
    const opened = once(server, 'tunnel')
    await using tunnel = await openTunnel(served, { server, hostname: 'shop' })
    const [info] = await opened

    expect(tunnel.url).toBe(`http://shop.tunnels.localhost:${server.httpPort}`)
    expect(info).toMatchObject({ hostname: 'shop', url: tunnel.url, protocol: 'http', path: undefined })
  })

  test.each(['-shop', 'shop-', 'shop.front', 'a'.repeat(64), '', 'sh op', 'shöp'])(
    'is refused where %j is no label',
    async (hostname) => {
      expect(await code(openTunnel(3000, { hostname }))).toBe('invalid-option')
    },
  )

  test.each([
    ['port', 3000, { hostname: 'shop', port: 4000 }],
    ['listen', 3000, { hostname: 'shop', listen: 'unix:/tmp/x.sock' }],
    ['udp', 'udp://localhost:53', { hostname: 'shop' }],
    ['https', 'https://localhost:3000', { hostname: 'shop' }],
    ['basicAuth alone', 3000, { basicAuth: 'user:pass' }],
    ['basicAuth without a password', 3000, { hostname: 'shop', basicAuth: 'user' }],
  ])('is refused together with %s', async (_name, target, options) => {
    expect(await code(openTunnel(target, options))).toBe('invalid-option')
  })

  test('is refused by a server without a port for it, which says how to get one', async () => {
    await using server = await createServer()

    await expect(openTunnel(served, { server, hostname: 'shop' })).rejects.toMatchObject({
      code: 'http-unavailable',
      message: expect.stringContaining('--http-port'),
    })
  })

  test('is refused where it is taken, and free again when that tunnel is closed', async () => {
    await using world = await httpWorld(served)
    const again = () => openTunnel(served, { server: world.server, hostname: 'shop' })
    expect(await code(again())).toBe('hostname-taken')

    await world.tunnel.close()
    await using tunnel = await again()
    expect(await (await tunnel.fetch('/')).text()).toBe('served')
  })
})

describe('names of a secret', () => {
  const secrets = {
    alice: { secret: 'alice-secret', hostnames: ['shop', 'api-*'] },
    bob: { secret: 'bob-secret-1' },
  }
  const options: ServerOptions = { http: { port: 0 }, secrets, tls: false }
  const open = (server: Awaited<ReturnType<typeof createServer>>, secret: string, hostname: string | true) =>
    openTunnel(served, { server, secret, hostname })

  test('are for its holders, and these get no others', async () => {
    await using server = await createServer(options)

    await using shop = await open(server, 'alice-secret', 'shop')
    await using api = await open(server, 'alice-secret', 'api-v1')
    expect([shop.hostname, api.hostname]).toEqual(['shop', 'api-v1'])
    for (const name of ['blog', 'api', 'shop2'])
      expect(await code(open(server, 'alice-secret', name))).toBe('hostname-not-allowed')
  })

  test('are refused to others, who may have any other', async () => {
    await using server = await createServer(options)

    expect(await code(open(server, 'bob-secret-1', 'shop'))).toBe('hostname-not-allowed')
    expect(await code(open(server, 'bob-secret-1', 'api-v1'))).toBe('hostname-not-allowed')
    await using blog = await open(server, 'bob-secret-1', 'blog')
    expect(blog.hostname).toBe('blog')
  })

  test('are what the server chooses from, for its holders', async () => {
    await using server = await createServer(options)

    await using first = await open(server, 'alice-secret', true)
    await using second = await open(server, 'alice-secret', true)
    expect(first.hostname).toBe('shop')
    expect(second.hostname).toMatch(/^api-[a-z]+-[a-z]+-\d+$/)
  })

  test('are chosen so that they fit a pattern that leaves little room', async () => {
    const alice = { secret: 'alice-secret', hostnames: [`*-${'x'.repeat(58)}`] }
    await using server = await createServer({ ...options, secrets: { alice } })

    await using tunnel = await open(server, 'alice-secret', true)
    expect(tunnel.hostname).toMatch(/^[a-z-]{1,4}-x{58}$/)
  })

  test.each([['shop*front*'], ['-shop'], [''], ['sh.op']])('are refused as %j', async (pattern) => {
    const wrong = { alice: { secret: 'alice-secret', hostnames: [pattern] } }
    expect(await code(createServer({ ...options, secrets: wrong }))).toBe('invalid-option')
  })
})

describe('a link that breaks', () => {
  test('gives the name back to the same client', async () => {
    await using server = await createServer({ http: { port: 0 } })
    await using link = await brokenLink(server)
    await using tunnel = await openTunnel(served, { server: link.address, hostname: true })
    const { hostname } = tunnel
    const back = pEvent(tunnel, 'reconnect')

    link.cut(0)
    await back

    expect(server.tunnels.map((one) => one.hostname)).toEqual([hostname])
    expect(await (await tunnel.fetch('/')).text()).toBe('served')
  })

  test('holds requests up, and they are served when it is back', async () => {
    await using server = await createServer({ http: { port: 0 } })
    await using link = await brokenLink(server)
    await using tunnel = await openTunnel(served, { server: link.address, hostname: 'shop' })
    const lost = once(server, 'disconnect')
    const back = pEvent(tunnel, 'reconnect')
    link.breakDown()
    await lost
    const answer = tunnel.fetch('/')

    link.heal()
    await back

    expect(await (await answer).text()).toBe('served')
  })

  test('lets a server that was restarted give the same random name', async () => {
    const [port, httpPort] = [await freePort(), await freePort()]
    const first = await createServer({ port, http: { port: httpPort } })
    await using tunnel = await openTunnel(served, { server: `127.0.0.1:${port}`, hostname: true })
    const { url } = tunnel
    const back = pEvent(tunnel, 'reconnect', { timeout: 30_000 })

    await first.close()
    await using second = await createServer({ port, http: { port: httpPort } })
    await back

    expect(second.tunnels.map((one) => one.url)).toEqual([url])
    expect(await (await tunnel.fetch('/')).text()).toBe('served')
  })
})

describe('openTunnel looks whether its URL leads to it', () => {
  test('and says that the name has no address', async () => {
    await using server = await createServer({ http: { port: 0, domain: 'tunnels.invalid' } })

    await expect(openTunnel(served, { server, hostname: 'shop', timeout: 3_000 })).rejects.toMatchObject({
      code: 'url-unreachable',
      message: expect.stringMatching(/shop\.tunnels\.invalid.*\*\.tunnels\.invalid.*DNS/),
    })
    await vi.waitFor(() => expect(server.tunnels).toEqual([]), { timeout: 30_000 })
  })

  test('and says that nothing answers there', async () => {
    const port = await freePort()
    const domain = `http://tunnels.localhost:${port}`
    await using server = await createServer({ http: { port: 0, domain } })

    await expect(openTunnel(served, { server, hostname: 'shop', timeout: 3_000 })).rejects.toMatchObject({
      code: 'url-unreachable',
      message: expect.stringContaining('ECONNREFUSED'),
    })
  })

  test('and says that the proxy for https does not run', async () => {
    const port = await freePort()
    const domain = `https://localhost:${port}`
    await using server = await createServer({ http: { port: 0, domain } })

    await expect(openTunnel(served, { server, hostname: 'shop', timeout: 3_000 })).rejects.toMatchObject({
      code: 'url-unreachable',
      message: expect.stringMatching(
        new RegExp(`: nothing answers at port ${port}: is the proxy that takes https running\\?$`),
      ),
    })
  })

  test('and says that something else answers there', async () => {
    await using other = await serveHttp((_request, response) => {
      response.writeHead(301, { Location: 'https://elsewhere.example/' }).end()
    })
    const domain = `http://tunnels.localhost:${other.port}`
    await using server = await createServer({ http: { port: 0, domain } })

    await expect(openTunnel(served, { server, hostname: 'shop', timeout: 3_000 })).rejects.toMatchObject({
      code: 'url-unreachable',
      message: expect.stringMatching(/leads elsewhere.*301.*https:\/\//),
    })
  })

  test('and says that what answers there speaks another protocol', async () => {
    await using other = await serveHttp(({ socket }) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n')
    })
    const domain = `http://tunnels.localhost:${other.port}`
    await using server = await createServer({ http: { port: 0, domain } })

    await expect(openTunnel(served, { server, hostname: 'shop', timeout: 3_000 })).rejects.toMatchObject({
      code: 'url-unreachable',
      message: expect.stringContaining('an upgrade that nobody has asked for'),
    })
  })

  test('and waits for what stands in front', async () => {
    const port = await freePort()
    await using server = await createServer({ http: { port: 0, domain: `http://tunnels.localhost:${port}` } })
    const opening = openTunnel(served, { server, hostname: 'shop', timeout: 30_000 })
    await once(server, 'tunnel')
    const front = http.createServer(async (incoming, response) => {
      const options = { port: server.httpPort, path: incoming.url, headers: incoming.headers }
      ;(await request('http://127.0.0.1', options)).pipe(response)
    })
    front.listen(port, '127.0.0.1')

    await using tunnel = await opening
    expect(await (await tunnel.fetch('/')).text()).toBe('served')
    front.closeAllConnections()
    front.close()
  })

  test('and gives up when the server is closed meanwhile', async () => {
    const server = await createServer({ http: { port: 0, domain: 'tunnels.invalid' } })
    const opening = openTunnel(served, { server, hostname: 'shop', timeout: 60_000, reconnect: false })
    await once(server, 'tunnel')

    await server.close()

    expect(await code(opening)).toBe('server-closed')
  })

  test('and gives up when it is aborted', async () => {
    await using server = await createServer({ http: { port: 0, domain: 'tunnels.invalid' } })
    const controller = new AbortController()
    const opening = openTunnel(served, { server, hostname: 'shop', signal: controller.signal })
    await once(server, 'tunnel')

    controller.abort()

    expect(await code(opening)).toBe('aborted')
  })
})

describe('options of the HTTP port', () => {
  test.each([
    [{ port: -1 }],
    [{ port: 0, domain: 'not a host' }],
    [{ port: 0, domain: 'ftp://example.com' }],
    [{ port: 0, domain: 'https://example.com/path' }],
    [{ port: 0, domain: 'example.com:8080' }],
    [{ port: 0, trustedProxies: ['everybody'] }],
    [{ port: 0, hosts: 'x' }],
  ])('are refused: %j', async (http) => {
    expect(await code(createServer({ http: http as ServerOptions['http'] }))).toBe('invalid-option')
  })

  test('that can not be listened on are told, and leave no port open', async () => {
    await using taken = await createServer({ http: { port: 0 } })
    const port = await freePort()
    const http = { port: taken.httpPort as number }

    expect(await code(createServer({ port, http }))).toBe('port-taken')
    await using free = await createServer({ port })
    expect(free.httpPort).toBe(undefined)
  })
})

describe('fetch of a tunnel', () => {
  const handler: http.RequestListener = async (incoming, response) => {
    if (incoming.url === '/there') return response.writeHead(302, { Location: '/here' }).end()
    if (incoming.url === '/again') return response.writeHead(307, { Location: '/here' }).end()
    if (incoming.url === '/round') return response.writeHead(302, { Location: '/round' }).end()
    const { method, url, headers } = incoming
    const body = await textOf(incoming)
    response.setHeader('Content-Type', 'application/json')
    response.end(JSON.stringify({ method, url, body, type: headers['content-type'], host: headers.host }))
  }

  test('sends what fetch sends', async () => {
    await using tunnel = await openTunnel(handler, { hostname: 'shop' })
    const body = new URLSearchParams({ a: 'b' })
    const answer = await tunnel.fetch('/here?x=1', { method: 'POST', body })

    expect(answer.url).toBe(`${tunnel.url}/here?x=1`)
    expect(await answer.json()).toMatchObject({
      method: 'POST',
      url: '/here?x=1',
      body: 'a=b',
      type: expect.stringContaining('application/x-www-form-urlencoded'),
      host: `shop.localhost:${tunnel.port}`,
    })
  })

  test('follows redirects', async () => {
    await using tunnel = await openTunnel(handler, { hostname: 'shop' })
    const post = { method: 'POST', body: 'text' }

    expect(await (await tunnel.fetch('/there', post)).json()).toMatchObject({ method: 'GET', body: '' })
    expect(await (await tunnel.fetch('/again', post)).json()).toMatchObject({ method: 'POST', body: 'text' })
    expect((await tunnel.fetch('/there', { redirect: 'manual' })).status).toBe(302)
    await expect(tunnel.fetch('/round')).rejects.toThrow(TypeError)
    await expect(tunnel.fetch('/there', { redirect: 'error' })).rejects.toThrow(TypeError)
  })

  test('takes a Request, and says so where it is given something else', async () => {
    await using tunnel = await openTunnel(handler, { hostname: 'shop' })
    await using plain = await openTunnel(handler)
    const post = (url: string) => new Request(`${url}/again`, { method: 'POST', body: 'text' })

    for (const one of [tunnel, plain]) {
      expect(await (await one.fetch(post(one.url))).json()).toMatchObject({
        method: 'POST',
        url: '/here',
        body: 'text',
        type: expect.stringContaining('text/plain'),
      })
    }
    expect(
      await (await tunnel.fetch(post(tunnel.url), { method: 'PUT', body: 'other' })).json(),
    ).toMatchObject({
      method: 'PUT',
      body: 'other',
    })
    await expect(tunnel.fetch(undefined as never)).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(tunnel.fetch({} as never)).rejects.toMatchObject({
      code: 'invalid-option',
      message: 'path must be a path, a URL or a Request, not [object Object]',
    })
  })

  test('rejects once the tunnel is closed, by whom ever', async () => {
    await using server = await createServer({ http: { port: 0 } })
    const own = await openTunnel(handler, { hostname: 'shop' })
    const taken = await openTunnel(handler, { server, hostname: 'shop' })
    await own.close()
    await server.tunnels[0]?.close()
    await taken.closed

    for (const tunnel of [own, taken]) {
      const refused = { name: 'TunnelError', code: 'closed', message: 'the tunnel is closed' }
      await expect(tunnel.fetch('/here')).rejects.toMatchObject(refused)
    }
  })

  test('is that of the platform for other tunnels', async () => {
    await using tunnel = await openTunnel(handler)
    expect(await (await tunnel.fetch('/here')).json()).toMatchObject({ method: 'GET', url: '/here' })
    expect(tunnel.agent).toBe(undefined)
  })
})
