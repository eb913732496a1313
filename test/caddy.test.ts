/** Caddy in front of a server, with the real Caddy and its own authority. */
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import path from 'node:path'
import tls from 'node:tls'
import { pathToFileURL } from 'node:url'
import { pEvent } from 'p-event'
import { type Connection, createServer, openTunnel, type Server, type ServerOptions } from 'pipe-tunnel'
import { beforeEach, describe, expect, test } from 'vitest'
import WebSocket, { WebSocketServer } from 'ws'
import { type Caddy, type CaddyOptions, configureCaddy } from '../src/http/caddy.js'
import { withSite } from '../src/http/caddy-config.js'
import { type CaddyProgram, type Sites, startCaddy } from './helpers/caddy.js'
import { freePort, pipe, runToEnd, temporaryFolder } from './helpers/command.js'
import { needs } from './helpers/programs.js'
import { echoTarget, httpTarget, silentTarget } from './helpers/targets.js'

const domain = 'example.test'
const app = 'app.example.test'

/** Certificates by Caddy's own authority, as an intranet has them. */
const noSites: Sites = ({ http }) => `local_certs
}
http://plain.test:${http} {
}`

/** Some are of the domain of the tunnels, and some have settings of their own. */
const otherSites: Sites = ({ http }) => `local_certs
}
www.example.test {
  respond "www"
}
shop.example.test {
  tls internal {
    protocols tls1.3
  }
  respond "shop"
}
other.test {
  respond "other"
}
http://plain.test:${http} {
}`

beforeEach((context) => needs(context, 'caddy'))

test('a name in use has https, and its requests arrive as they were sent', async () => {
  await using caddy = await startCaddy(noSites)
  await using upstream = await echoRequests()
  await using _site = await configure(caddy, upstream)

  expect(JSON.parse(await caddy.get(app, '/path?a=1'))).toEqual({
    url: '/path?a=1',
    host: app,
    'x-forwarded-for': '127.0.0.1',
    'x-forwarded-host': app,
    'x-forwarded-proto': 'https',
  })
})

test('a name that is not in use gets no certificate', async () => {
  await using caddy = await startCaddy(noSites)
  await using upstream = await echoRequests()
  const names = new Set<string>()
  await using _site = await configure(caddy, upstream, { isInUse: (name) => names.has(name) })

  for (const name of [app, 'a.b.example.test', 'example.test', 'example.com']) {
    await expect(caddy.get(name), name).rejects.toThrow(/alert internal error/)
  }

  names.add(app)
  expect(await caddy.get(app)).toContain(app)
})

describe('a server behind Caddy', () => {
  test('opens tunnels that have https, with the address of the visitor', async () => {
    await using caddy = await startCaddy(noSites)
    await using target = await echoRequests()
    await using server = await serverBehind(caddy)
    await using tunnel = await openTunnel(target.port, { server, hostname: 'app' })
    const connected = pEvent<'connection', Connection>(tunnel, 'connection')

    expect(tunnel.url).toBe(`https://app.tunnel.localhost:${caddy.ports.https}`)
    expect(JSON.parse(await caddy.get('app.tunnel.localhost'))).toMatchObject({
      host: 'app.tunnel.localhost',
      'x-forwarded-for': expect.stringMatching(/^127\.0\.0\.1/),
      'x-forwarded-proto': 'https',
    })
    expect((await connected).visitor.address).toBe('127.0.0.1')
  })

  test('is found by the fetch of the tunnel, which trusts whom Node does', async () => {
    await using caddy = await startCaddy(noSites)
    await using target = await echoRequests()
    await using server = await serverBehind(caddy)
    await using folder = await temporaryFolder()
    const authority = path.join(folder.path, 'root.crt')
    const program = `
      import { openTunnel } from ${JSON.stringify(pathToFileURL(path.resolve('dist/index.js')).href)}
      const server = ${JSON.stringify(server.address)}
      const tunnel = await openTunnel(${target.port}, { server, hostname: 'app' })
      const answer = await tunnel.fetch('/path').catch((error) => error.cause.code)
      console.log(answer.status ?? answer)
      await tunnel.close()`
    const run = async (env?: Record<string, string>) => {
      const { stdout } = await runToEnd(process.execPath, ['--input-type=module', '--eval', program], { env })
      return stdout.trim()
    }

    // Caddy has its authority from the first name on.
    expect(await run()).toMatch(/^(?:SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_\w+)$/)
    await writeFile(authority, await caddy.authority())
    expect(await run({ NODE_EXTRA_CA_CERTS: authority })).toBe('200')
  })

  test('leaves a WebSocket alone while a hundred other tunnels come and go', async () => {
    await using caddy = await startCaddy(noSites)
    await using target = await httpTarget((_, response) => response.end('hello'))
    const sockets = new WebSocketServer({ server: target.server as never })
    sockets.on('connection', (socket) => {
      socket.on('message', (data) => socket.send(`${data}`))
      // Caddy ends it with a frame that only a server may send.
      socket.on('error', () => {})
    })
    await using server = await serverBehind(caddy)
    await using _tunnel = await openTunnel(target.port, { server, hostname: 'app' })
    const visitor = await openWebSocket(caddy, 'app.tunnel.localhost')
    const before = await caddy.config()

    for (let i = 0; i < 100; i++) {
      await using _other = await openTunnel(target.port, { server, hostname: `app-${i}` })
    }

    visitor.send('still here')
    expect(`${(await once(visitor, 'message'))[0]}`).toBe('still here')
    expect(await caddy.config()).toBe(before)

    // It would not have lived through a change.
    const closed = once(visitor, 'close')
    await caddy.append('apps/http/servers/srv0/routes', { match: [{ host: ['more.test'] }] })
    await closed
  })

  test('that is killed is followed by one with the same names', async () => {
    await using caddy = await startCaddy(noSites)
    await using target = await echoRequests()
    const before = await caddy.config()
    const args = ['--domain', `https://tunnel.localhost:${caddy.ports.https}`, '--caddy', caddy.admin]
    await using first = pipe(['server', '--port', '0', ...args])
    const address = await first.stdout.line(/^pipe:/)
    await first.stderr.line(/Caddy takes https for them/)
    await using tunnel = await openTunnel(target.port, { server: address, hostname: 'app' })
    const back = pEvent(tunnel, 'reconnect', { timeout: 30_000 })
    first.signal('SIGKILL')
    await first.ended()

    await using second = pipe(['server', '--port', new URL(address).port, ...args])
    await second.stdout.line(/^pipe:/)
    await back
    expect(await caddy.get('app.tunnel.localhost')).toContain('app.tunnel.localhost')
    await tunnel.close()
    second.signal('SIGTERM')
    expect(await second.ended()).toMatchObject({ code: 0 })
    expect(await caddy.config()).toBe(before)
  })

  test('says when Caddy is lost, and when it is back', async () => {
    await using caddy = await startCaddy(noSites)
    await using server = pipe([
      'server',
      '--port',
      '0',
      '--domain',
      'tunnel.localhost',
      '--caddy',
      caddy.admin,
    ])
    await server.stdout.line(/^pipe:/)
    await caddy.kill()
    await server.stderr.line(/lost Caddy: no Caddy answers/)
    await caddy.start()
    await server.stderr.line(/Caddy is configured again$/)
  })

  test('that can not start leaves nothing behind', async () => {
    await using caddy = await startCaddy(noSites)
    await using taken = await echoTarget()
    const before = await caddy.config()

    await expect(serverBehind(caddy, { port: taken.port })).rejects.toMatchObject({ code: 'port-taken' })
    await expect.poll(() => caddy.config(), { timeout: 20_000 }).toBe(before)
  })
})

describe('a configuration', () => {
  test('of other sites is theirs meanwhile, and what it was afterwards', async () => {
    await using caddy = await startCaddy(otherSites)
    await using upstream = await echoRequests()
    const before = await caddy.config()
    const others = { 'www.example.test': 'www', 'shop.example.test': 'shop', 'other.test': 'other' }
    for (const name of Object.keys(others)) await whenServed(caddy, name)
    const site = await configure(caddy, upstream)

    expect(await caddy.get(app)).toContain(app)
    for (const [name, text] of Object.entries(others)) expect(await caddy.get(name)).toBe(text)
    await site.close()

    expect(await caddy.config()).toBe(before)
    expect(await caddy.get('www.example.test')).toBe('www')
  })

  test('without any server gets one for https, and is what it was afterwards', async () => {
    await using caddy = await startCaddy(noSites)
    await using upstream = await echoRequests()
    const { admin, storage, apps } = JSON.parse(await caddy.config())
    const { http_port, https_port } = apps.http
    await caddy.load({ admin, storage, apps: { http: { http_port, https_port } } })
    const before = await caddy.config()
    const site = await configure(caddy, upstream, { domain: 'tunnel.localhost' })
    expect(await caddy.get('app.tunnel.localhost')).toContain('app.tunnel.localhost')
    await site.close()

    expect(await caddy.config()).toBe(before)
  })

  test('that others change at the same time keeps what they say', async () => {
    await using caddy = await startCaddy(otherSites)
    await using upstream = await echoRequests()
    // While it obtains certificates, Caddy may fail to load a configuration.
    for (const name of ['www.example.test', 'shop.example.test', 'other.test']) await whenServed(caddy, name)
    const routes = 'apps/http/servers/srv0/routes'
    const changes = (from: number) =>
      Array.from({ length: 10 }, (_, i) =>
        caddy.append(routes, { match: [{ path: [`/${from + i}.test`] }], terminal: true }),
      )

    const [site] = await Promise.all([configure(caddy, upstream), ...changes(0)])
    await Promise.all([site.close(), ...changes(10)])

    const text = await caddy.config()
    expect(text).not.toContain('pipe-tunnel:')
    const hosts = text.match(/\b\d+\.test\b/g)
    expect(hosts?.sort()).toEqual(Array.from({ length: 20 }, (_, i) => `${i}.test`).sort())
  })

  test.each<[string, Sites, string]>([
    [
      'a site for all names of the domain',
      () => 'local_certs\n}\n*.example.test {\n respond "theirs"\n}',
      'Caddy has a site *.example.test already: lead *.example.test to 127.0.0.1:PORT there and leave caddy out, or choose another domain',
    ],
    [
      'somebody else to ask',
      () => 'on_demand_tls {\n ask http://127.0.0.1:9/ask\n}\n}',
      "certificates of *.example.test can't be obtained on demand by this Caddy, as it asks http://127.0.0.1:9/ask already whether a name may have a certificate: take that out of its configuration, or use another Caddy",
    ],
    [
      'a site that gets certificates for any name',
      () => 'local_certs\n}\nhttps:// {\n tls {\n on_demand\n }\n}',
      "certificates of *.example.test can't be obtained on demand by this Caddy, as another site gets certificates on demand for any name: take that out of its configuration, or use another Caddy",
    ],
  ])('that has %s is left alone, and the error says why', async (_, sites, message) => {
    await using caddy = await startCaddy(sites)
    await using upstream = await echoRequests()
    const before = await caddy.config()

    const error = await configure(caddy, upstream).catch((reason) => reason)

    expect(error).toMatchObject({
      code: 'caddy-conflict',
      message: message.replace('PORT', `${upstream.port}`),
    })
    expect(await caddy.config()).toBe(before)
  })
})

describe('what was left behind', () => {
  test('by a process that died is replaced, and taken away at the end', async () => {
    await using caddy = await startCaddy(otherSites)
    await using upstream = await echoRequests()
    const before = await caddy.config()
    const [port, askPort] = [await freePort(), await freePort()]
    const dead = {
      domain,
      upstream: { host: '127.0.0.1', port },
      ask: `http://127.0.0.1:${askPort}/pipe-tunnel/${domain}`,
    }
    await caddy.load(withSite(JSON.parse(before), dead))

    const site = await configure(caddy, upstream)
    expect(await caddy.get(app)).toContain(app)
    expect(await caddy.config()).not.toContain(`${askPort}`)
    await site.close()

    expect(await caddy.config()).toBe(before)
  })

  test.each([
    ['byte by byte', (response: ServerResponse) => void dripOn(response)],
    ['without an end', (response: ServerResponse) => void response.write('x'.repeat(100_000))],
  ])('by a process whose port another has now, which answers %s, is replaced', async (_, answer) => {
    await using caddy = await startCaddy(otherSites)
    await using upstream = await echoRequests()
    await using other = await httpTarget((_request, response) => answer(response))
    const dead = {
      domain,
      upstream: { host: '127.0.0.1', port: await freePort() },
      ask: `http://127.0.0.1:${other.port}/pipe-tunnel/${domain}`,
    }
    await caddy.load(withSite(JSON.parse(await caddy.config()), dead))

    const site = await configure(caddy, upstream)
    expect(await caddy.get(app)).toContain(app)
    await site.close()
  })

  test('by one that is alive is not', async () => {
    await using caddy = await startCaddy(noSites)
    await using upstream = await echoRequests()
    await using _first = await configure(caddy, upstream)

    await expect(configure(caddy, upstream)).rejects.toMatchObject({
      code: 'caddy-conflict',
      message: 'another pipe server has this Caddy take *.example.test: close it, or use another Caddy',
    })
  })
})

test('a Caddy that another pipe server has is not taken from it, and it is said whose it is', async () => {
  await using caddy = await startCaddy(noSites)
  await using upstream = await echoRequests()
  await using _first = await configure(caddy, upstream)

  await expect(configure(caddy, upstream, { domain: 'other.test' })).rejects.toMatchObject({
    code: 'caddy-conflict',
    message: expect.stringMatching(
      /^this Caddy takes https for another pipe server already, that of \*\.example\.test \(it asks http:.*\), and can do so for one alone: close that one, /,
    ),
  })
})

describe('a Caddy that is lost', () => {
  test.each([
    ['without what it was told', undefined],
    ['with it', 'resume' as const],
  ])('and started again %s takes https again', async (_, how) => {
    await using caddy = await startCaddy(noSites)
    await using upstream = await echoRequests()
    const told: string[] = []
    await using _site = await configure(caddy, upstream, {
      onLost: ({ code }) => told.push(code),
      onBack: () => told.push('back'),
    })
    await caddy.kill()
    await expect.poll(() => told, { timeout: 20_000 }).toEqual(['caddy-unreachable'])
    await caddy.start(how)

    await expect.poll(() => told, { timeout: 20_000 }).toEqual(['caddy-unreachable', 'back'])
    expect(await caddy.get(app)).toContain(app)
  })

  test('is configured again where its own configuration was loaded anew', async () => {
    await using caddy = await startCaddy(otherSites)
    await using upstream = await echoRequests()
    const before = JSON.parse(await caddy.config())
    let back = 0
    await using _site = await configure(caddy, upstream, { onBack: () => back++ })

    await caddy.load(before)
    await expect.poll(() => back, { timeout: 20_000 }).toBe(1)

    expect(await caddy.get(app)).toContain(app)
  })

  test('does not hold up the end', async () => {
    await using caddy = await startCaddy(noSites)
    await using upstream = await echoRequests()
    const site = await configure(caddy, upstream)
    await caddy.kill()

    await site.close()
  })
})

describe('without a Caddy', () => {
  test('it is told that none answers', async () => {
    const admin = `http://127.0.0.1:${await freePort()}`
    await expect(start(admin)).rejects.toMatchObject({
      code: 'caddy-unreachable',
      message: `no Caddy answers at ${admin} (connect ECONNREFUSED ${admin.slice(7)}): is it running, and is its admin API there?`,
    })
  })

  test('it is told that something else answers', async () => {
    await using web = await httpTarget((_, response) => response.end('<html>'))
    const admin = `http://127.0.0.1:${web.port}`
    await expect(start(admin)).rejects.toMatchObject({
      code: 'caddy-failed',
      message: `what answers at ${admin} is not the admin API of Caddy: is that at another port?`,
    })
  })

  test('it is told that nothing answers in time', async () => {
    await using silent = await silentTarget()
    const admin = `http://127.0.0.1:${silent.port}`
    await expect(start(admin, { timeout: 200 })).rejects.toMatchObject({ code: 'timeout' })
    const aborted = start(admin, { signal: AbortSignal.timeout(200) })
    await expect(aborted).rejects.toMatchObject({ code: 'aborted' })
  })

  test.each(['2019', 'https://127.0.0.1:2019', 'http://localhost:2019/config', 'http://a@localhost', ''])(
    'the URL %j is refused',
    async (admin) => {
      await expect(start(admin)).rejects.toMatchObject({
        code: 'invalid-option',
        message: expect.stringMatching(/^http\.caddy must be the admin API of a Caddy/),
      })
    },
  )

  test('a domain of plain HTTP is refused', async () => {
    await expect(start('http://127.0.0.1:2019', {}, 'http://example.test')).rejects.toMatchObject({
      code: 'invalid-option',
      message: 'http.domain must be one of https, as there is a Caddy, not "http://example.test"',
    })
  })

  const start = (caddy: string, options: ServerOptions = {}, domain = 'example.test') =>
    createServer({ ...options, http: { port: 0, domain, caddy } })
})

test('what Caddy does not take is told in its words', async () => {
  await using caddy = await startCaddy(noSites)
  await using taken = await echoTarget()
  const config = JSON.parse(await caddy.config())
  config.apps.http.https_port = taken.port
  await caddy.load(config)

  await expect(configure(caddy, taken)).rejects.toMatchObject({
    code: 'caddy-failed',
    message: expect.stringMatching(/^Caddy did not take its new configuration \(.*address already in use\)/),
  })
})

test('connections that only some names may make are open to the names of tunnels', async () => {
  await using caddy = await startCaddy(noSites)
  await using upstream = await echoRequests()
  const { admin, storage, apps } = JSON.parse(await caddy.config())
  const { http_port, https_port } = apps.http
  const mine = {
    listen: [`:${https_port}`],
    tls_connection_policies: [{ match: { sni: ['other.localhost'] } }],
    routes: [{ match: [{ host: ['other.localhost'] }] }],
  }
  await caddy.load({ admin, storage, apps: { http: { http_port, https_port, servers: { mine } } } })
  const before = await caddy.config()
  const site = await configure(caddy, upstream, { domain: 'localhost' })
  expect(await caddy.get('app.localhost')).toContain('app.localhost')
  // That has its certificate without anybody being asked.
  await whenServed(caddy, 'other.localhost')
  await site.close()

  expect(await caddy.config()).toBe(before)
})

/** Caddy obtains the certificates of its own sites in the background. */
async function whenServed(caddy: CaddyProgram, hostname: string): Promise<void> {
  const isServed = () =>
    caddy.get(hostname).then(
      () => true,
      () => false,
    )
  await expect.poll(isServed, { timeout: 20_000 }).toBe(true)
}

/** Answers what a request was. */
function echoRequests() {
  return httpTarget(({ url, headers }, response) => {
    const { connection: _, ...others } = headers
    response.end(JSON.stringify({ url, ...others }))
  })
}

/** Never silent for long, and never done. */
function dripOn(response: ServerResponse): void {
  const timer = setInterval(() => response.write('x'), 100)
  response.on('close', () => clearInterval(timer))
}

type Site = Caddy & AsyncDisposable

async function configure(
  caddy: CaddyProgram,
  { port }: { port: number },
  more: Partial<CaddyOptions> = {},
): Promise<Site> {
  const site = await configureCaddy({ ...options(caddy.admin, port), ...more })
  return Object.assign(site, { [Symbol.asyncDispose]: () => site.close() })
}

const options = (admin: string, port: number): CaddyOptions => ({
  admin: new URL(admin),
  domain,
  upstream: { host: '127.0.0.1', port },
  isInUse: (name) => name.startsWith('app.'),
  onLost: () => {},
  onBack: () => {},
  aborted: AbortSignal.timeout(20_000),
})

function serverBehind({ admin, ports }: CaddyProgram, options: ServerOptions = {}): Promise<Server> {
  const domain = `https://tunnel.localhost:${ports.https}`
  return createServer({ ...options, http: { port: 0, domain, caddy: admin } })
}

async function openWebSocket(caddy: CaddyProgram, hostname: string): Promise<WebSocket> {
  const ca = await caddy.authority()
  const socket = new WebSocket(`wss://${hostname}`, {
    createConnection: () =>
      tls.connect({ host: '127.0.0.1', port: caddy.ports.https, servername: hostname, ca }),
  })
  await once(socket, 'open')
  return socket
}
