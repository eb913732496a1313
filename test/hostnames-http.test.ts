/** What HTTP has, through a tunnel with a hostname: over connections of their own, over one, and encrypted. */
import { once } from 'node:events'
import http from 'node:http'
import type net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { pEvent } from 'p-event'
import { createServer, openTunnel } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { httpWorld, request, serveHttp, textOf } from './helpers/http.js'
import { brokenLink } from './helpers/link.js'
import { echoTarget, tcpTarget } from './helpers/targets.js'
import { ending, settled, visit } from './helpers/visitor.js'

const soon = { timeout: 30_000 }
const secret = 'a secret of the tests'

describe.each([
  ['over connections of their own', {}, {}],
  ['over one connection', { mux: true }, {}],
  ['encrypted', {}, { secret }],
])('requests %s', (_name, options, serverOptions) => {
  const world = (handler: http.RequestListener) => httpWorld(handler, options, serverOptions)

  test('arrive with their headers as they were sent, in order and spelling', async () => {
    await using place = await world((incoming, response) => {
      response.writeHead(299, 'Quite Fine', ['X-First', '1', 'x-FIRST', '2', 'Content-Length', '2'])
      response.end(incoming.url === '/%7Ea?b=%20' ? JSON.stringify(incoming.rawHeaders).slice(0, 2) : 'no')
    })
    const got = once(place.target.server, 'request')
    const answer = await place.raw(
      'GET /%7Ea?b=%20 HTTP/1.1\r\nhOsT: shop.localhost\r\nX-a: 1\r\nx-A: 2\r\nCookie: a\r\nCookie: b\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nTE: trailers, gzip\r\n\r\n',
    )
    const [incoming] = (await got) as [http.IncomingMessage]

    expect(incoming.rawHeaders.slice(0, 10)).toEqual([
      'hOsT',
      'shop.localhost',
      'X-a',
      '1',
      'x-A',
      '2',
      'Cookie',
      'a',
      'Cookie',
      'b',
    ])
    expect(incoming.headers).not.toHaveProperty('x-hop')
    expect(incoming.headers).not.toHaveProperty('keep-alive')
    expect(incoming.headers.te).toBe('trailers')
    expect(answer).toMatch(/^HTTP\/1.1 299 Quite Fine\r\nX-First: 1\r\nx-FIRST: 2\r\n/)
    expect(answer).toMatch(/\r\n\r\n\["$/)
  })

  test('take turns on one connection, for several tunnels', async () => {
    await using place = await world((_request, response) => response.end('shop'))
    const { server } = place
    await using other = await openTunnel((_request, response) => response.end('other'), {
      server,
      hostname: 'other',
    })
    const get = (host: string) => `GET / HTTP/1.1\r\nHost: ${host}.localhost\r\n\r\n`

    const answers = await place.raw(
      get('shop') + get('other') + get('nobody') + get(other.hostname ?? '') + get('shop'),
    )

    expect([...answers.matchAll(/shop|other|HTTP\/1.1 404/g)].map(([text]) => text)).toEqual([
      'shop',
      'other',
      'HTTP/1.1 404',
      'other',
      'shop',
    ])
    // One connection for all requests of this visitor to this tunnel.
    expect(place.target.connections.length).toBe(1)
  })

  test('have bodies and trailers both ways', async () => {
    await using place = await world(async (incoming, response) => {
      const body = await textOf(incoming)
      response.writeHead(200, { Trailer: 'X-Sum' })
      response.write(`${body} with ${incoming.trailers['x-end']}`)
      response.addTrailers({ 'X-Sum': 'all' })
      response.end()
    })
    const sent = http.request(place.tunnel.url, { method: 'POST', agent: place.tunnel.agent })
    sent.setHeader('Trailer', 'X-End')
    sent.write('one ')
    sent.write('two')
    sent.addTrailers({ 'X-End': 'bye' })
    sent.end()
    const [answer] = await once(sent, 'response')

    expect(await textOf(answer)).toBe('one two with bye')
    expect(answer.trailers).toEqual({ 'x-sum': 'all' })
  })

  test('may wait for 100 Continue, and for another answer in its place', async () => {
    await using place = await world((_request, response) => response.end('unexpected'))
    place.target.server.on('checkContinue', async (incoming, response) => {
      if (incoming.url === '/no') return response.writeHead(417).end('no')
      response.writeContinue()
      response.end(await textOf(incoming))
    })
    const upload = async (path: string) => {
      const { agent, url } = place.tunnel
      const headers = { Expect: '100-continue', 'Content-Length': '4' }
      const sent = http.request(new URL(path, url), { method: 'POST', agent, headers })
      sent.on('continue', () => sent.end('body'))
      sent.flushHeaders()
      const [answer] = (await once(sent, 'response')) as [http.IncomingMessage]
      const text = await textOf(answer)
      sent.destroy()
      return [answer.statusCode, text, answer.headers.connection]
    }

    expect(await upload('/yes')).toEqual([200, 'body', 'keep-alive'])
    expect(await upload('/no')).toEqual([417, 'no', 'close'])
  })

  test('get events one by one, as they come', async () => {
    let send: (text: string) => void = () => {}
    await using place = await world((_request, response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' }).flushHeaders()
      send = (text) => response.write(text)
    })
    const answer = await request(place.tunnel.url, { agent: place.tunnel.agent })

    for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
      const heard = once(answer, 'data')
      send(event)
      expect(`${await heard}`).toBe(event)
    }
    answer.destroy()
  })

  test('become WebSockets, or what else the target agrees to', async () => {
    await using place = await world((_request, response) => response.end())
    const sockets = new WebSocketServer({ server: place.target.server })
    sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(`echo ${data}`)))
    const socket = new WebSocket(place.tunnel.url.replace('http', 'ws'), { agent: place.tunnel.agent })
    await once(socket, 'open')
    const said = once(socket, 'message')
    socket.send('hello')
    expect(`${(await said)[0]}`).toBe('echo hello')
    const closed = once(socket, 'close')
    socket.close(4000)
    expect((await closed)[0]).toBe(4000)
    sockets.close()
  })

  test('whose upgrade is refused get the answer, and nothing may follow', async () => {
    await using place = await world((_request, response) => response.writeHead(403).end('not here'))
    const upgrade = 'GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n'
    const answer = await place.raw(upgrade + upgrade)

    expect(answer).toMatch(/^HTTP\/1.1 403 /)
    expect(answer).toMatch(/^connection: close\r$/im)
    expect(answer.match(/HTTP\/1.1/g)).toHaveLength(1)
  })

  test('are answered although the visitor has sent its FIN', async () => {
    await using place = await world(async (_request, response) => {
      await wait(50)
      response.end('late')
    })
    expect(await place.raw('GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n')).toMatch(/late/)
  })

  test('end at the target when the visitor is reset', async () => {
    await using place = await world((_request, response) => response.flushHeaders())
    const incoming = once(place.target.server, 'request')
    const visitor = await visit({ port: place.server.httpPort })
    visitor.write('GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n')
    const [, response] = (await incoming) as [http.IncomingMessage, http.ServerResponse]
    const closed = once(response, 'close')
    visitor.resetAndDestroy()

    await closed
    expect(response.writableFinished).toBe(false)
  })

  test.each([
    ['of a known length', 'Content-Length: 100\r\n'],
    ['in chunks', 'Transfer-Encoding: chunked\r\n'],
    ['up to the end of the connection', ''],
  ])('are cut off where the target is, in the middle of an answer %s', async (_how, header) => {
    await using target = await tcpTarget((socket) => {
      socket.once('data', () => {
        const body = header.startsWith('T') ? '4\r\npart\r\n' : 'part'
        socket.write(`HTTP/1.1 200 OK\r\n${header}\r\n${body}`)
        setTimeout(() => socket.resetAndDestroy(), 100)
      })
    })
    await using server = await createServer({ http: { port: 0 }, ...serverOptions })
    await using tunnel = await openTunnel(target.port, { server, hostname: 'shop', ...options })
    const answer = await request(tunnel.url, { agent: tunnel.agent })

    await expect(textOf(answer)).rejects.toThrow('aborted')
  })

  test('of any size pass, and none is kept where the other side does not read', async () => {
    const size = 300 * 1_048_576
    let sent = 0
    await using place = await world((_request, response) => {
      const chunk = Buffer.alloc(65_536)
      const more = () => {
        while (sent < size) {
          sent += chunk.length
          if (!response.write(chunk)) return void response.once('drain', more)
        }
        response.end()
      }
      more()
    })
    const answer = await request(place.tunnel.url, { agent: place.tunnel.agent })
    answer.pause()
    expect(await settled(() => sent)).toBeLessThan(64 * 1_048_576)
    answer.destroy()
  })

  test('are uploaded no faster than the target reads', async () => {
    await using place = await world(() => {})
    const size = 300 * 1_048_576
    const sent = http.request(place.tunnel.url, { method: 'POST', agent: place.tunnel.agent })
    sent.on('error', () => {})
    const chunk = Buffer.alloc(65_536)
    let written = 0
    const more = () => {
      while (written < size) {
        written += chunk.length
        if (!sent.write(chunk)) return void sent.once('drain', more)
      }
    }
    more()
    expect(await settled(() => written)).toBeLessThan(64 * 1_048_576)
    sent.destroy()
  })

  test('are not begun again in the middle, where the client is lost and back', async () => {
    await using server = await createServer({ http: { port: 0 }, ...serverOptions })
    await using link = await brokenLink(server)
    let finish: () => void = () => {}
    let count = 0
    const target = await serveHttp((_request, response) => {
      count++
      response.write('begun ')
      finish = () => response.end('done')
    })
    await using tunnel = await openTunnel(target.port, { server: link.address, hostname: 'shop', ...options })
    const answer = await request(tunnel.url, { agent: tunnel.agent })
    const text = textOf(answer).catch(() => 'cut')
    const back = pEvent(tunnel, 'reconnect')
    link.cut(0)
    await back
    finish()

    // A visitor stays where it has a connection of its own, and is cut where all share the one that broke.
    expect(await text).toBe('mux' in options ? 'cut' : 'begun done')
    expect(count).toBe(1)
    await target[Symbol.asyncDispose]()
  })
})

describe('a target', () => {
  test('that is down is told of, and the tunnel works once it is up', async () => {
    await using place = await httpWorld((_request, response) => response.end('up'))
    const { port } = place.target
    place.target.server.close()
    await once(place.target.server, 'close')

    const page = await place.tunnel.fetch('/', { headers: { Accept: 'text/html' } })
    expect([page.status, page.headers.get('content-type')]).toEqual([502, 'text/html; charset=utf-8'])
    const html = await page.text()
    expect(html).toMatch(/<h1>502 Bad Gateway<\/h1>.*shop.*can&#39;t be reached/)
    expect(html).toContain('<meta name="viewport" content="width=device-width">')
    expect(html).toContain('color-scheme:light dark')
    const text = await place.tunnel.fetch('/')
    expect(text.headers.get('content-type')).toBe('text/plain; charset=utf-8')
    expect(place.tunnel.stats.rejections).toBe(2)

    place.target.server.listen(port, '127.0.0.1')
    await once(place.target.server, 'listening')
    expect(await (await place.tunnel.fetch('/')).text()).toBe('up')
  })

  test('that is not joined in time is told of by 504', async () => {
    await using server = await createServer({ http: { port: 0 }, exchangeTimeout: 100 })
    await using link = await brokenLink(server)
    await using tunnel = await openTunnel(3000, {
      server: link.address,
      hostname: 'shop',
      whileLost: 'refuse',
    })
    link.stall()

    expect((await tunnel.fetch('/')).status).toBe(504)
    link.heal()
  })

  test('that does not speak HTTP is told of by 502', async () => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { hostname: 'shop' })

    expect((await tunnel.fetch('/')).status).toBe(502)
  })

  test('that closes a connection without a request gets a new one for the next', async () => {
    await using target = await serveHttp((_request, response) => response.end('again'), {
      keepAlive: true,
    })
    target.server.keepAliveTimeout = 100
    await using tunnel = await openTunnel(target.port, { hostname: 'shop' })
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const options = { agent, headers: { Host: tunnel.host }, port: tunnel.port }
    expect(await textOf(await request('http://127.0.0.1', options))).toBe('again')
    await vi.waitFor(() => expect(target.connections[0]?.destroyed).toBe(true), soon)

    for (const method of ['GET', 'POST'])
      expect(await textOf(await request('http://127.0.0.1', { ...options, method }))).toBe('again')
    agent.destroy()
  })

  test('that answers an upload before it has come is heard', async () => {
    await using place = await httpWorld((_request, response) => {
      response.writeHead(413, { Connection: 'close' }).end('too large')
    })
    const body = Buffer.alloc(8 * 1_048_576)
    const sent = http.request(place.tunnel.url, { method: 'POST', agent: place.tunnel.agent })
    sent.on('error', () => {}).end(body)
    const [answer] = await once(sent, 'response')

    expect([answer.statusCode, await textOf(answer)]).toEqual([413, 'too large'])
  })

  test('gets request after request over one connection, which gathers nothing', async () => {
    await using place = await httpWorld((_request, response) => response.end('x'))
    const warnings: Error[] = []
    const processOnWarning = (warning: Error) => warnings.push(warning)
    process.on('warning', processOnWarning)
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const options = { agent, headers: { Host: place.tunnel.host }, port: place.server.httpPort }
    for (let i = 0; i < 50; i++) await textOf(await request('http://127.0.0.1', options))
    agent.destroy()
    process.off('warning', processOnWarning)

    expect(warnings).toEqual([])
    expect(place.target.connections.length).toBe(1)
  })

  test('gets a connection of its own for each visitor, never shared', async () => {
    await using place = await httpWorld((_request, response) => response.end('x'))
    const visitors = await Promise.all([1, 2].map(() => visit({ port: place.server.httpPort })))
    for (const visitor of visitors) {
      visitor.write('GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n')
      await once(visitor, 'data')
    }
    expect(place.target.connections.length).toBe(2)
    expect(place.server.connections).toBe(2)

    for (const visitor of visitors) visitor.end()
    await vi.waitFor(() => expect(place.server.connections).toBe(0), soon)
    const ends = place.target.connections.map((socket) => (socket as net.Socket).destroyed)
    expect(ends).toEqual([true, true])
  })
})

describe('closing', () => {
  test('with grace lets a request finish, and does not wait for idle connections', async () => {
    let finish: () => void = () => {}
    await using place = await httpWorld((incoming, response) => {
      if (incoming.url === '/idle') response.end()
      else {
        response.write('begun ')
        finish = () => response.end('done')
      }
    })
    const idle = await visit({ port: place.server.httpPort })
    idle.write('GET /idle HTTP/1.1\r\nHost: shop.localhost\r\n\r\n')
    await once(idle, 'data')
    const text = textOf(await request(place.tunnel.url, { agent: place.tunnel.agent }))
    const closing = place.tunnel.close({ grace: 30_000 })
    finish()
    await closing

    expect(await text).toBe('begun done')
    expect(place.server.connections).toBe(0)
  })

  test('a server with grace lets a request finish', async () => {
    let finish: () => void = () => {}
    await using place = await httpWorld((_incoming, response) => {
      response.write('begun ')
      finish = () => response.end('done')
    })
    const answer = await request(place.tunnel.url, { agent: place.tunnel.agent })
    const text = textOf(answer)
    const closing = place.server.close({ grace: 30_000 })
    finish()

    expect(await text).toBe('begun done')
    await closing
  })

  test('a server without grace cuts all', async () => {
    await using place = await httpWorld((_incoming, response) => response.flushHeaders())
    const visitor = await visit({ port: place.server.httpPort })
    visitor.write('GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n')
    await once(visitor, 'data')
    const ended = ending(visitor)

    await place.server.close()

    expect(await ended).toMatch(/end|reset/)
  })

  test('a tunnel gives its name back while a visitor is connected', async () => {
    await using place = await httpWorld((_request, response) => response.end('old'))
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const options = { agent, headers: { Host: 'shop.localhost' }, port: place.server.httpPort }
    const get = async () => textOf(await request('http://127.0.0.1', options))
    expect(await get()).toBe('old')

    await place.tunnel.close()
    expect(await get()).toMatch(/No tunnel is open at shop\.localhost/)
    await using next = await openTunnel((_request, response) => response.end('new'), {
      server: place.server,
      hostname: 'shop',
    })
    expect(await get()).toBe('new')
    expect(next.hostname).toBe('shop')
    agent.destroy()
  })
})
