/** What can be a target, and how it is written. */
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import net from 'node:net'
import tls from 'node:tls'
import getPort from 'get-port'
import { pEvent } from 'p-event'
import { openTunnel, type Rejection, type Target, type Tunnel } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import {
  echoTarget,
  httpTarget,
  readAll,
  type SampleTarget,
  track,
  unixPath,
  unixTarget,
  unlistenedTarget,
} from './helpers/targets.js'
import { hasIPv6 } from './helpers/udp.js'
import { ask, ending, visit } from './helpers/visitor.js'

const hasUnix = process.platform !== 'win32'

const answer: http.RequestListener = async (request, response) => {
  response.end(`${request.method} ${request.url} ${await readAll(request)}`)
}

describe('a server of this process that does not listen', () => {
  test('is a target, and nothing listens for it afterwards', async () => {
    const before = listeners()
    await using target = await track(http.createServer(answer), 'nowhere')
    {
      await using tunnel = await openTunnel(target.server)

      const response = await fetch(`${tunnel.url}/there`, { method: 'POST', body: 'a body' })

      expect(await response.text()).toBe('POST /there a body')
      expect(tunnel.url).toMatch(/^http:/)
      expect(tunnel.target).toBe('http.Server')
      expect(target.server.listening).toBe(false)
    }
    await vi.waitFor(() => expect(listeners()).toBe(before))
  })

  test('sees real sockets, of this machine', async () => {
    const seen: unknown[] = []
    await using target = await unlistenedTarget((socket) => {
      seen.push(socket instanceof net.Socket, socket.remoteAddress, socket.remotePort)
      socket.pipe(socket)
    })
    await using tunnel = await openTunnel(target.server)

    expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
    expect(seen).toEqual([true, '127.0.0.1', expect.any(Number)])
    expect(seen[2]).toBeGreaterThan(0)
  })

  test.each([true, false])('gets sockets with its own allowHalfOpen, %s', async (allowHalfOpen) => {
    await using target = await track(net.createServer({ allowHalfOpen }), 'nowhere')
    await using tunnel = await openTunnel(target.server)
    const accepted = once(target.server, 'connection')
    const visitor = await visit(tunnel)
    const [socket] = await accepted

    expect(socket.allowHalfOpen).toBe(allowHalfOpen)
    visitor.end()
    await once(socket.resume(), 'end')
    if (allowHalfOpen) socket.end('after the end')
    expect((await readAll(visitor)).toString()).toBe(allowHalfOpen ? 'after the end' : '')
  })

  test('serves many visitors at once, each its own', async () => {
    await using target = await unlistenedTarget((socket) => socket.pipe(socket))
    await using tunnel = await openTunnel(target.server)

    const replies = await Promise.all(Array.from({ length: 200 }, (_, i) => ask(tunnel, `visitor ${i}`)))

    expect(replies.map(String)).toEqual(Array.from({ length: 200 }, (_, i) => `visitor ${i}`))
  })

  test('is the target of many tunnels at once, and nothing is printed', async () => {
    const warned = vi.fn()
    process.on('warning', warned)
    await using target = await unlistenedTarget((socket) => socket.pipe(socket))
    const tunnels = await Promise.all(Array.from({ length: 20 }, () => openTunnel(target.server)))
    for (const tunnel of tunnels) expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
    await Promise.all(tunnels.map((tunnel) => tunnel.close()))
    // Warnings are told of in a later turn.
    await new Promise((resolve) => setImmediate(resolve))
    process.off('warning', warned)
    expect(warned).not.toHaveBeenCalled()
  })

  test('may listen while the tunnel is open, and be closed, and listen again', async () => {
    await using target = await unlistenedTarget((socket) => socket.pipe(socket))
    await using tunnel = await openTunnel(target.server)
    expect((await ask(tunnel, 'does not')).toString()).toBe('does not')

    await target.restart()
    expect((await ask(tunnel, 'listens')).toString()).toBe('listens')

    await target.stop()
    await expectTurnedAway(tunnel, 'closed')

    await target.restart()
    expect((await ask(tunnel, 'again')).toString()).toBe('again')
  })

  test('that was closed turns visitors away', async () => {
    await using target = await unlistenedTarget((socket) => socket.pipe(socket))
    await using tunnel = await openTunnel(target.server)
    await target.stop()

    await expectTurnedAway(tunnel, 'closed')
  })

  test('whose listener throws takes nobody but itself down', async () => {
    const thrown = new Error('thrown on purpose')
    const uncaught = await withoutUncaught(async () => {
      await using target = await track(
        net.createServer((socket) => {
          socket.on('error', () => {})
          throw thrown
        }),
        'nowhere',
      )
      await using tunnel = await openTunnel(target.server)
      const told = pEvent(tunnel, 'connection')
      await visit(tunnel)
      await told
      expect(tunnel.connections).toBe(1)
    })
    expect(uncaught).toEqual([thrown])
  })

  test('is a target with TLS as well', async () => {
    await using target = await track(https.createServer(preshared, answer), 'nowhere')
    await using tunnel = await openTunnel(target.server)
    expect(tunnel.url).toMatch(/^https:/)
    expect(tunnel.target).toBe('https.Server')

    const request = https.request(tunnel.url, {
      method: 'POST',
      ...preshared,
      agent: false,
      checkServerIdentity: () => undefined,
    })
    request.end('a secret')
    const [response] = await once(request, 'response')
    expect((await readAll(response)).toString()).toBe('POST / a secret')
  })

  test('with TLS but no HTTP has a URL of scheme tcp', async () => {
    await using target = await track(
      tls.createServer(preshared, (socket) => socket.end('over TLS')),
      'nowhere',
    )
    await using tunnel = await openTunnel(target.server)
    expect(tunnel.url).toMatch(/^tcp:/)
    expect(tunnel.target).toBe('tls.Server')

    const { host, port } = tunnel
    const socket = tls.connect({ ...preshared, host, port, checkServerIdentity: () => undefined })
    expect((await readAll(socket)).toString()).toBe('over TLS')
  })

  test('takes WebSockets', async () => {
    await using target = await track(http.createServer(answer), 'nowhere')
    new WebSocketServer({ server: target.server as http.Server }).on('connection', (socket) => {
      socket.on('message', (data) => socket.send(`you said ${data}`))
    })
    await using tunnel = await openTunnel(target.server)

    const socket = new WebSocket(tunnel.url.replace('http', 'ws'))
    await once(socket, 'open')
    socket.send('hello')
    expect(`${await once(socket, 'message')}`).toMatch(/^you said hello/)
    socket.close()
    await once(socket, 'close')

    expect(await (await fetch(tunnel.url)).text()).toBe('GET / ')
  })
})

describe('a server of this process that listens', () => {
  test.for<[string, net.ListenOptions]>([
    ['on 127.0.0.1', { host: '127.0.0.1', port: 0 }],
    ['on 0.0.0.0', { host: '0.0.0.0', port: 0 }],
    ['on ::', { host: '::', port: 0 }],
    ['on ::1', { host: '::1', port: 0 }],
    ['on a unix socket', { path: unixPath() }],
  ])('%s is dialled there', async ([where, options], { skip }) => {
    skip(where.includes('::') && !(await hasIPv6()), 'this machine has no IPv6')
    skip(where.includes('unix') && !hasUnix, 'Windows has no unix sockets')
    await using target = await track(http.createServer(answer), options)
    await using tunnel = await openTunnel(target.server)

    expect(await (await fetch(`${tunnel.url}/there`)).text()).toBe('GET /there ')
    expect(await connectionsOf(target.server)).toBeGreaterThan(0)
  })

  test('turns visitors away once it is closed', async () => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.server)
    expect((await ask(tunnel, 'open')).toString()).toBe('open')
    await target.stop()

    await expectTurnedAway(tunnel, 'closed')
  })
})

describe('a request handler', () => {
  test('is a target', async () => {
    const before = listeners()
    {
      await using tunnel = await openTunnel((request, response) => response.end(`hello ${request.url}`))
      expect(await (await fetch(`${tunnel.url}/there`)).text()).toBe('hello /there')
      expect(tunnel.url).toMatch(/^http:/)
      expect(tunnel.target).toBe('a request handler')
    }
    await vi.waitFor(() => expect(listeners()).toBe(before))
  })

  test('answers several requests of one connection, bodies and all', async () => {
    await using tunnel = await openTunnel(answer)
    let connections = 0
    tunnel.on('connection', () => connections++)
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const body = 'x'.repeat(1_000_000)

    for (let round = 0; round < 3; round++) {
      const request = http.request(tunnel.url, { agent, method: 'POST', path: `/${round}` })
      request.end(body)
      const [response] = await once(request, 'response')
      expect((await readAll(response)).toString()).toBe(`POST /${round} ${body}`)
    }
    agent.destroy()

    expect(connections).toBe(1)
  })

  test('of which the tunnel closes with a keep-alive connection open', async () => {
    const tunnel = await openTunnel(answer)
    await (await fetch(tunnel.url)).text()
    await tunnel.close()
    expect(tunnel.connections).toBe(0)
  })
})

describe('a tunnel that waits for its target', () => {
  test.each([true, 30_000])('opens when that accepts connections, for %s', async (waitForTarget) => {
    await using target = await echoTarget()
    await target.stop()
    let visits = 0
    target.server.on('connection', () => visits++)

    const opening = openTunnel(target.address, { waitForTarget, timeout: 30_000 })
    await target.restart()
    await using tunnel = await opening

    expect(visits).toBe(1)
    expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
  })

  test('opens at once to a server that does not listen', async () => {
    await using target = await unlistenedTarget((socket) => socket.pipe(socket))
    await using tunnel = await openTunnel(target.server, { waitForTarget: true })
    expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
  })

  test.each([
    ['its own time', { waitForTarget: 250 }, 250],
    ['timeout', { waitForTarget: true, timeout: 250 }, 250],
  ])('gives up after %s with what the target last said', async (_, options, time) => {
    const port = await getPort({ host: '127.0.0.1' })
    const opening = openTunnel(port, options)

    await expect(opening).rejects.toMatchObject({ name: 'TunnelError', code: 'timeout' })
    await expect(opening).rejects.toThrow(
      `waiting for the target localhost:${port} took longer than ${time} ms`,
    )
    await expect(opening).rejects.toThrow('ECONNREFUSED')
  })

  test.skipIf(!hasUnix)('gives up on a unix socket that never comes, too', async () => {
    const opening = openTunnel(`unix:${unixPath()}`, { waitForTarget: 250 })
    await expect(opening).rejects.toMatchObject({
      code: 'timeout',
      message: expect.stringContaining('ENOENT'),
    })
  })

  test('gives up when its signal aborts', async () => {
    const port = await getPort({ host: '127.0.0.1' })
    const controller = new AbortController()
    const opening = openTunnel(port, { waitForTarget: true, signal: controller.signal })
    controller.abort('enough')

    await expect(opening).rejects.toMatchObject({ code: 'aborted', cause: 'enough' })
  })

  test.each([0, -1, 1.5, Number.NaN, 2 ** 31, '1000'])(
    'is told that %j is no time',
    async (waitForTarget) => {
      const opening = openTunnel(1, { waitForTarget: waitForTarget as number })
      await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
      await expect(opening).rejects.toThrow(/^waitForTarget must be a whole number/)
    },
  )

  test('is told that nothing tells of a udp target', async () => {
    const opening = openTunnel('udp://localhost:53', { waitForTarget: true })
    await expect(opening).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(/^waitForTarget .*udp/),
    })
  })
})

describe('a target', () => {
  test.each([
    ['tcp:db.test:5432', 'tcp', 'db.test:5432'],
    ['tcp:5432', 'tcp', 'localhost:5432'],
    ['TCP://db.test:5432', 'tcp', 'db.test:5432'],
    ['tcp://[::1]:5432', 'tcp', '[::1]:5432'],
    ['tcp:[::1]:5432', 'tcp', '[::1]:5432'],
    ['[::1]:3000', 'http', '[::1]:3000'],
    ['http://[::1]', 'http', '[::1]:80'],
    ['udp://localhost:53', 'udp', 'localhost:53'],
    ['udp:localhost:53', 'udp', 'localhost:53'],
    ['udp:53', 'udp', 'localhost:53'],
    ['udp://[::1]:53', 'udp', '[::1]:53'],
  ])('written %s is understood', async (written, scheme, name) => {
    await using tunnel = await openTunnel(written)
    expect(tunnel.target).toBe(name)
    expect(tunnel.url).toBe(`${scheme}://127.0.0.1:${tunnel.port}`)
    expect(tunnel.protocol).toBe(scheme === 'udp' ? 'udp' : 'tcp')
  })

  test.skipIf(!hasUnix)('may be a unix socket, written in either way', async () => {
    await using target = await unixTarget((socket) => socket.pipe(socket))
    const path = target.address.replace('unix:', '')
    for (const written of [`unix:${path}`, `unix://${path}`, `UNIX:${path}`]) {
      await using tunnel = await openTunnel(written)
      expect(tunnel.target).toBe(`unix:${path}`)
      expect(tunnel.url).toBe(`http://127.0.0.1:${tunnel.port}`)
      expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
    }
  })

  test.skipIf(!hasUnix)('may be a unix socket with a path as long as the system allows', async () => {
    const most = process.platform === 'darwin' ? 103 : 107
    await using tunnel = await openTunnel(`unix:/${'x'.repeat(most - 1)}`)
    expect(tunnel.target).toHaveLength('unix:'.length + most)

    // Bytes count, not characters.
    for (const path of [`/${'x'.repeat(most)}`, `/${'é'.repeat(most / 2)}é`]) {
      const opening = openTunnel(`unix:${path}`)
      await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
      await expect(opening).rejects.toThrow(`${Buffer.byteLength(path)} bytes, where `)
    }
  })

  test.skipIf(!hasUnix).each([
    ['unix:', /^target "unix:" has no path: write 'unix:\/run\/app\.sock'/],
    ['unix://', /^target "unix:\/\/" has no path: write 'unix:\/run\/app\.sock'/],
    ['unix:a\0b', /^target "unix:a\\u0000b" has a control character in its path/],
  ])('is not %j', async (target, message) => {
    await expect(openTunnel(target)).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(message),
    })
  })

  test('is not a unix socket on Windows', async () => {
    const { platform } = process
    Object.defineProperty(process, 'platform', { value: 'win32' })
    try {
      await expect(openTunnel('unix:/run/app.sock')).rejects.toMatchObject({
        code: 'invalid-option',
        message: expect.stringContaining('Windows does not have: use a port'),
      })
    } finally {
      Object.defineProperty(process, 'platform', { value: platform })
    }
  })

  test.each([
    'tcp:',
    'udp:',
    'udp://localhost',
    'tcp:localhost',
    'unixx:/run/app.sock',
    '/run/app.sock',
    'udp:0',
  ])('is not %j, which is quoted', async (target) => {
    await expect(openTunnel(target)).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(new RegExp(`^target .*"${target}"`)),
    })
  })
})

/** Without a certificate: TLS by a key that both sides have (RFC 4279), which its version 1.2 is the last to have this way. */
const preshared = {
  ciphers: 'PSK-AES256-GCM-SHA384',
  maxVersion: 'TLSv1.2',
  pskCallback: () => ({ psk: Buffer.from('0123456789abcdef'), identity: 'test' }),
} as object

async function expectTurnedAway(tunnel: Tunnel, reason: string): Promise<void> {
  const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')
  expect(await ending(await visit(tunnel))).toBe('reset')
  const { error } = await rejected
  expect(error.code).toBe('target-unreachable')
  expect(error.message).toContain(`the target ${tunnel.target} can't be reached`)
  expect(error.message).toContain(reason)
}

/** How many servers of this process listen. */
function listeners(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'TCPServerWrap').length
}

function connectionsOf(server: SampleTarget['server']): Promise<number> {
  return new Promise((resolve, reject) => {
    server.getConnections((error, count) => (error ? reject(error) : resolve(count)))
  })
}

/** What was thrown and caught by nobody meanwhile, which would end the process. */
async function withoutUncaught(work: () => Promise<void>): Promise<unknown[]> {
  const uncaught: unknown[] = []
  const others = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', (error) => uncaught.push(error))
  try {
    await work()
  } finally {
    process.removeAllListeners('uncaughtException')
    for (const other of others) process.on('uncaughtException', other)
  }
  return uncaught
}

test.each([
  ['a handler', () => (_request: unknown, response: { end(): void }) => response.end()],
  ['an http.Server', () => http.createServer()],
  ['udp', () => 'udp:53'],
] as [string, () => Target][])(
  '%s gets no PROXY header, which it would not understand',
  async (_, target) => {
    await expect(openTunnel(target(), { proxyProtocol: 1 })).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(
        /^proxyProtocol must be left out for a udp target, and for an HTTP server/,
      ),
    })
  },
)

test('a target may be a URL', async () => {
  await using target = await httpTarget((_request, response) => response.end('hello'))
  await using tunnel = await openTunnel(new URL(`http://${target.address}`))

  expect(tunnel.target).toBe(target.address)
  expect(await (await fetch(tunnel.url)).text()).toBe('hello')
})

test.each([
  ['/tmp/app.sock', "target must be written 'unix:/tmp/app.sock' where it is a unix socket"],
  ['./app.sock', "target must be written 'unix:./app.sock' where it is a unix socket"],
  ['localhost:3000/path', 'target must be an address without a path, not "localhost:3000/path"'],
  ['unix://app.sock', 'target "unix://app.sock" would be a host with a path: write \'unix:/app.sock\''],
])('the target %j is told what is wrong with it', async (target, sentence) => {
  const opening = openTunnel(target)
  await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
  await expect(opening).rejects.toThrow(sentence)
})
