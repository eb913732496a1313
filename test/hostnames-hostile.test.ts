/** Visitors of the HTTP port who mean harm: requests that two readers could take for different ones, and heads without end. */
import { once } from 'node:events'
import { createServer, openTunnel } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { httpWorld, textOf } from './helpers/http.js'
import { tcpTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

/** A second request, which must never be one at the target. */
const HIDDEN = 'GET /hidden HTTP/1.1\r\nHost: shop.localhost\r\n\r\n'

describe('a request', () => {
  test.each([
    ['two Host headers', 'GET / HTTP/1.1\r\nHost: shop.localhost\r\nHost: other.localhost\r\n\r\n'],
    ['two equal Host headers', 'GET / HTTP/1.1\r\nHost: shop.localhost\r\nHost: shop.localhost\r\n\r\n'],
    ['no Host header', 'GET / HTTP/1.1\r\n\r\n'],
    ['no Host header in HTTP/1.0', 'GET / HTTP/1.0\r\n\r\n'],
    ['a Host that is none', 'GET / HTTP/1.1\r\nHost: shop.localhost/path@other\r\n\r\n'],
    ['a URL in place of a path', 'GET http://other.localhost/ HTTP/1.1\r\nHost: shop.localhost\r\n\r\n'],
    ['no path', 'GET shop HTTP/1.1\r\nHost: shop.localhost\r\n\r\n'],
    [
      'both lengths',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX',
    ],
    [
      'both lengths, the other way round',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX',
    ],
    [
      'two lengths',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 0\r\nContent-Length: 50\r\n\r\n',
    ],
    ['a length with a sign', 'POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: +5\r\n\r\nhello'],
    [
      'a coding before chunked',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'a coding that is not chunked',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'chunked twice',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'chunks in HTTP/1.0',
      'POST / HTTP/1.0\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'a space before the colon',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length : 5\r\n\r\nhello',
    ],
    [
      'a header over two lines',
      'GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n',
    ],
    [
      'a carriage return alone',
      'GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-A: 1\rTransfer-Encoding: chunked\r\n\r\n',
    ],
    ['a NUL', 'GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-A: \0\r\n\r\n'],
    [
      'a size of a chunk that is none',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n',
    ],
    [
      'a chunk that is longer than it says',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n',
    ],
  ])('with %s is refused, and ends the connection', async (_what, text) => {
    const heard: (string | undefined)[] = []
    await using place = await httpWorld(async (incoming, response) => {
      heard.push(incoming.url)
      await textOf(incoming).catch(() => {})
      response.end('served')
    })
    const answer = await place.raw(text + HIDDEN)

    expect(answer).toMatch(/^(HTTP\/1\.1 400 |$)/)
    expect(answer).not.toContain('served')
    expect(heard).not.toContain('/hidden')
  })

  test.each(['SHOP.LocalHost', 'shop.localhost.', 'shop.localhost:1', 'shop.localhost.:80'])(
    'finds its tunnel by %s',
    async (host) => {
      await using place = await httpWorld((_request, response) => response.end('served'))
      expect(await place.raw(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).toContain('served')
    },
  )

  test.each([
    'localhost',
    '.localhost',
    'a.shop.localhost',
    'shop.localhost.evil',
    'shop',
    'xlocalhost',
    '__proto__.localhost',
  ])('for %s finds none', async (host) => {
    await using place = await httpWorld((_request, response) => response.end('served'))
    expect(await place.raw(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 404 /)
  })

  test('by CONNECT reaches nobody', async () => {
    await using place = await httpWorld((_request, response) => response.end('served'))
    const answer = await place.raw(
      `CONNECT shop.localhost:80 HTTP/1.1\r\nHost: shop.localhost\r\n\r\n${HIDDEN}`,
    )
    expect(answer).not.toContain('served')
  })

  test('for another protocol may not have a body, which would belong to both', async () => {
    await using place = await httpWorld((_request, response) => response.end('served'))
    const upgrade = 'Connection: Upgrade\r\nUpgrade: h2c\r\n'
    const answer = await place.raw(
      `POST / HTTP/1.1\r\nHost: shop.localhost\r\n${upgrade}Content-Length: ${HIDDEN.length}\r\n\r\n${HIDDEN}`,
    )
    expect(answer).toMatch(/^HTTP\/1\.1 501 /)
    expect(answer).not.toContain('served')
  })

  test('for HTTP/2 is one of HTTP/1 at the target, which never hears of more', async () => {
    await using place = await httpWorld((incoming, response) =>
      response.end(JSON.stringify(incoming.headers)),
    )
    place.target.server.on('upgrade', (_request, socket) => socket.end('HTTP/1.1 101 No\r\n\r\n'))
    const upgrade = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'
    const answer = await place.raw(`GET / HTTP/1.1\r\nHost: shop.localhost\r\n${upgrade}\r\n${HIDDEN}`)

    expect(answer).toMatch(/^HTTP\/1\.1 200 /)
    expect(answer).not.toMatch(/h2c|http2-settings/)
    expect(answer.match(/HTTP\/1.1 /g)).toHaveLength(1)
  })

  test.each([
    ['a request without a body', 'GET / HTTP/1.1\r\nHost: shop.localhost\r\nTrailer: X-T\r\n\r\n'],
    [
      'a body of a known length',
      'POST / HTTP/1.1\r\nHost: shop.localhost\r\nTrailer: X-T\r\nContent-Length: 2\r\n\r\nab',
    ],
    [
      'one for another protocol',
      'GET / HTTP/1.1\r\nHost: shop.localhost\r\nTrailer: X-T\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n',
    ],
  ])('that announces headers behind %s is answered', async (_what, text) => {
    await using place = await httpWorld((_request, response) => response.end('served'))
    expect(await place.raw(text)).toMatch(/^HTTP\/1\.1 200 .*served$/s)
  })

  test('for another protocol behind one that is not answered ends the connection, and nothing else', async () => {
    await using place = await httpWorld((incoming, response) => {
      if (incoming.url === '/') response.end('served')
    })
    const upgrade = 'GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n'
    const visitor = await visit({ port: place.server.httpPort })
    visitor.write(HIDDEN + upgrade)
    expect(await ending(visitor)).toMatch(/end|reset/)
    expect(await place.raw('GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n')).toContain('served')
  })

  test('with a name of a page in it does not get markup into the answer', async () => {
    await using place = await httpWorld((_request, response) => response.end('served'))
    const answer = await place.raw('GET / HTTP/1.1\r\nHost: <b>.localhost\r\nAccept: text/html\r\n\r\n')
    expect(answer).toMatch(/^HTTP\/1\.1 400 /)
    expect(answer).not.toContain('<b>')
  })

  test('with a head of more than 32 KiB is refused by 431', async () => {
    await using place = await httpWorld((_request, response) => response.end('served'))
    const text = `GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-A: ${'a'.repeat(40_000)}\r\n\r\n`
    expect(await place.raw(text)).toMatch(/^HTTP\/1\.1 431 /)
  })

  test('whose head does not end in time is refused by 408', async () => {
    await using place = await httpWorld((_request, response) => response.end('served'))
    const visitor = await visit({ port: place.server.httpPort })
    visitor.write('GET / HTTP/1.1\r\nHost: shop.localhost\r\n')
    const [answer] = await once(visitor, 'data')
    expect(`${answer}`).toMatch(/^HTTP\/1\.1 408 /)
  })

  test('after request without waiting for any answer ends the connection', async () => {
    await using place = await httpWorld(() => {})
    const visitor = await visit({ port: place.server.httpPort })
    visitor.write(HIDDEN.repeat(200))
    expect(await ending(visitor)).toMatch(/end|reset/)
    expect(place.target.connections.length).toBeLessThanOrEqual(1)
  })

  test('is one of as many connections as the limit says', async () => {
    await using place = await httpWorld(
      (_request, response) => response.end('served'),
      {},
      { limits: { httpConnections: 4 } },
    )
    const visitors = await Promise.all([1, 2, 3, 4].map(() => visit({ port: place.server.httpPort })))
    const late = await visit({ port: place.server.httpPort })
    expect(await ending(late)).toMatch(/end|reset/)
    for (const visitor of visitors) visitor.destroy()
  })
})

describe('a target', () => {
  const answering = (answer: string) => tcpTarget((socket) => socket.on('data', () => socket.write(answer)))

  test.each([
    ['both lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!'],
    ['a head of more than 64 KiB', `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(70_000)}\r\n\r\n`],
    ['a protocol that is none', 'HTTP/9.9 200 OK\r\n\r\n'],
    ['a reason that nobody may send', 'HTTP/1.1 200 a\x01b\r\nContent-Length: 0\r\n\r\n'],
    ['a status that is none', 'HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n'],
    ['a protocol that was not asked for', 'HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'],
    ['an upgrade to nothing', 'HTTP/1.1 101 OK\r\n\r\n'],
  ])('that answers with %s is told of by 502', async (_what, answer) => {
    await using target = await answering(answer)
    await using tunnel = await openTunnel(target.port, { hostname: 'shop' })
    const { status, statusText } = await tunnel.fetch('/')
    expect(`${status} ${statusText}`).toBe('502 Bad Gateway')
  })

  test.each([
    ['links that are none', ['Link: garbage']],
    ['several links', ['Link: </a>; rel=preload', 'Link: </b>; rel=preload']],
    ['a list of links', ['Link: </a>; rel=preload, </b>; rel=preload']],
    ['a word to go on that nobody waits for', []],
  ])('that sends %s early is heard', async (_what, links) => {
    const early = ['HTTP/1.1 100 Continue', '', 'HTTP/1.1 103 Early Hints', ...links, '', ''].join('\r\n')
    await using target = await answering(`${early}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nheard`)
    await using tunnel = await openTunnel(target.port, { hostname: 'shop' })
    expect(await (await tunnel.fetch('/')).text()).toBe('heard')
  })

  test.each([
    ['with a length', 'GET', '/ HTTP/1.1', 'Content-Length: 5\r\n\r\nheard'],
    ['to HEAD', 'HEAD', '/ HTTP/1.1', 'Transfer-Encoding: chunked\r\n\r\n'],
    ['in HTTP/1.0', 'GET', '/ HTTP/1.0', 'Transfer-Encoding: chunked\r\n\r\n5\r\nheard\r\n0\r\n\r\n'],
  ])('that announces headers behind an answer %s is heard', async (_what, method, line, rest) => {
    await using target = await answering(`HTTP/1.1 200 OK\r\nTrailer: X-T\r\n${rest}`)
    await using server = await createServer({ http: { port: 0 } })
    await using tunnel = await openTunnel(target.port, { server, hostname: 'shop' })
    const answer = await ask({ port: server.httpPort }, `${method} ${line}\r\nHost: shop.localhost\r\n\r\n`)
    expect(`${answer}`).toMatch(/^HTTP\/1\.1 200 /)
    expect(tunnel.hostname).toBe('shop')
  })

  test('can not answer a request before it was made', async () => {
    const answer = (body: string) => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    let connections = 0
    await using target = await tcpTarget((socket) => {
      const number = ++connections
      socket.on('data', () => socket.write(answer(`right ${number}`) + answer('forged')))
    })
    await using server = await createServer({ http: { port: 0 } })
    await using tunnel = await openTunnel(target.port, { server, hostname: 'shop' })
    const visitor = await visit({ port: server.httpPort })
    for (const number of [1, 2]) {
      visitor.write(HIDDEN)
      const [got] = await once(visitor, 'data')
      expect(`${got}`).toContain(`right ${number}`)
      expect(`${got}`).not.toContain('forged')
    }
    visitor.destroy()
    expect(tunnel.hostname).toBe('shop')
  })
})
