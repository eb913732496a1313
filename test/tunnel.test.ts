import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type net from 'node:net'
import getPort from 'get-port'
import { pEvent } from 'p-event'
import {
  type Connection,
  createServer,
  forward,
  openTunnel,
  type Rejection,
  type Target,
  type Tunnel,
  type Visitor,
} from 'pipe-tunnel'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { makeCertificate } from './helpers/certificate.js'
import {
  echoTarget,
  httpTarget,
  readAll,
  type SampleTarget,
  type Serve,
  silentTarget,
  tcpTarget,
  unixPath,
  unixTarget,
  unlistenedTarget,
} from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

const secret = 'correct horse battery staple'

/** A way from visitors to a target. */
interface Configuration {
  name: string
  visitors: Kind
  target: Kind
  openTarget(serve: Serve): Promise<SampleTarget>
  /** Opens it: at the public address of an earlier one, where that is given. */
  open(target: Target, earlier?: Tunnel): Promise<Tunnel>
}

/** What sockets of a kind can and can't tell. */
interface Kind {
  isUnix: boolean
  /** How a connection that was cut looks at its other end. */
  cut: readonly ('reset' | 'end')[]
  breakOff(socket: net.Socket): void
  /** The visitor that events show. */
  visitor(socket: net.Socket): Visitor
}

const tcp: Kind = {
  isUnix: false,
  cut: ['reset'],
  breakOff: (socket) => socket.resetAndDestroy(),
  visitor: ({ localPort }) => ({ address: '127.0.0.1', port: localPort as number }),
}

/** A unix socket has no reset, but says that it was cut if there were unread bytes; and nobody has an address. */
const unix: Kind = {
  isUnix: true,
  cut: ['reset', 'end'],
  breakOff: (socket) => socket.destroy(),
  visitor: () => ({ address: 'unix', port: 0 }),
}

const certificate = makeCertificate(['127.0.0.1'])
const servers = {
  bySecret: await createServer({ secret }),
  byCertificate: await createServer({ tls: certificate }),
}
afterAll(() => Promise.all(Object.values(servers).map((server) => server.close())))

const configurations: Configuration[] = [
  {
    name: 'a port to a port',
    visitors: tcp,
    target: tcp,
    openTarget: tcpTarget,
    open: (target, earlier) => openTunnel(target, { port: earlier?.port }),
  },
  {
    name: 'a port to a port, through TLS by a secret',
    visitors: tcp,
    target: tcp,
    openTarget: tcpTarget,
    open: (target, earlier) => openTunnel(target, { port: earlier?.port, server: servers.bySecret }),
  },
  {
    name: 'a port to a port, through TLS with a certificate',
    visitors: tcp,
    target: tcp,
    openTarget: tcpTarget,
    open: (target, earlier) =>
      openTunnel(target, {
        port: earlier?.port,
        server: servers.byCertificate,
        tls: { ca: certificate.cert },
      }),
  },
  {
    name: 'a port to a port, over one connection',
    visitors: tcp,
    target: tcp,
    openTarget: tcpTarget,
    open: (target, earlier) => openTunnel(target, { port: earlier?.port, mux: true }),
  },
  {
    name: 'a port to a port, over one connection with TLS',
    visitors: tcp,
    target: tcp,
    openTarget: tcpTarget,
    open: (target, earlier) =>
      openTunnel(target, { port: earlier?.port, server: servers.bySecret, mux: true }),
  },
  {
    name: 'a port to a unix socket',
    visitors: tcp,
    target: unix,
    openTarget: unixTarget,
    open: (target, earlier) => openTunnel(target, { port: earlier?.port }),
  },
  {
    name: 'a port to a server that does not listen',
    visitors: tcp,
    target: tcp,
    openTarget: unlistenedTarget,
    open: (target, earlier) => openTunnel(target, { port: earlier?.port }),
  },
  {
    name: 'a unix socket to a port',
    visitors: unix,
    target: tcp,
    openTarget: tcpTarget,
    open: (target, earlier) => openTunnel(target, { listen: earlier?.url ?? `unix:${unixPath()}` }),
  },
  {
    name: 'a port to a port, without a server',
    visitors: tcp,
    target: tcp,
    openTarget: tcpTarget,
    open: (target, earlier) => forward(earlier?.port ?? 0, target),
  },
  {
    name: 'a unix socket to another, without a server',
    visitors: unix,
    target: unix,
    openTarget: unixTarget,
    open: (target, earlier) => forward(earlier?.url ?? `unix:${unixPath()}`, target),
  },
]

const isUsable = ({ visitors, target }: Configuration) =>
  process.platform !== 'win32' || !(visitors.isUnix || target.isUnix)

const echo: Serve = (socket) => socket.pipe(socket)
const silent: Serve = (socket) => socket.pause()
const nothing: Serve = () => {}

describe.each(configurations.filter(isUsable))(
  'from $name',
  ({ openTarget, open, visitors, target: kind }) => {
    test('bytes pass unharmed, both ways at once', async () => {
      await using target = await openTarget(echo)
      await using tunnel = await open(target.target)
      const bytes = randomBytes(5_000_000)

      expect((await ask(tunnel, bytes)).equals(bytes)).toBe(true)
    })

    test('a target that answers after the visitor has finished sending is heard in full', async () => {
      await using target = await openTarget(async (socket) => {
        socket.end(Buffer.alloc(5_000_000, await readAll(socket)))
      })
      await using tunnel = await open(target.target)

      expect((await ask(tunnel, 'x')).equals(Buffer.alloc(5_000_000, 'x'))).toBe(true)
    })

    test('a visitor that goes on after the target has finished sending is heard in full', async () => {
      await using target = await openTarget((socket) => socket.end('enough of me'))
      await using tunnel = await open(target.target)
      const [visitor, socket] = await enter(tunnel, target)
      const heard = readAll(socket)

      expect((await readAll(visitor)).toString()).toBe('enough of me')
      visitor.end(Buffer.alloc(5_000_000, 'x'))

      expect((await heard).equals(Buffer.alloc(5_000_000, 'x'))).toBe(true)
    })

    test('the first bytes of a target that speaks first pass', async () => {
      await using target = await openTarget((socket) => socket.end('220 ready'))
      await using tunnel = await open(target.target)

      expect((await ask(tunnel, '')).toString()).toBe('220 ready')
    })

    test('a connection is told of with its visitor, and its end with bytes and duration', async () => {
      await using target = await openTarget(echo)
      await using tunnel = await open(target.target)
      const told = pEvent<'connection', Connection>(tunnel, 'connection')

      const visitor = await visit(tunnel)
      const expected = visitors.visitor(visitor)
      visitor.write('ping')
      await once(visitor, 'data')
      expect(tunnel.connections).toBe(1)
      visitor.end('ping')
      await once(visitor.resume(), 'close')

      const connection = await told
      expect(connection.visitor).toEqual(expected)
      expect(await connection.closed).toEqual({ bytesIn: 8, bytesOut: 8, duration: expect.any(Number) })
      expect(tunnel.connections).toBe(0)
      expect(tunnel.stats).toEqual({ connections: 1, rejections: 0, bytesIn: 8, bytesOut: 8, drops: 0 })
    })

    test('a visitor that breaks off leaves nothing at the target', async () => {
      await using target = await openTarget(nothing)
      await using tunnel = await open(target.target)
      const [visitor, socket] = await enter(tunnel, target)
      visitor.write('half of a')
      await once(socket, 'data')

      visitors.breakOff(visitor)

      expect([...visitors.cut, ...kind.cut]).toContain(await ending(socket))
      socket.end()
      await vi.waitFor(() => expect(target.sockets.size).toBe(0))
      await vi.waitFor(() => expect(tunnel.connections).toBe(0))
    })

    test('a target that breaks off cuts its visitor', async () => {
      await using target = await openTarget(nothing)
      await using tunnel = await open(target.target)
      const [visitor, socket] = await enter(tunnel, target)
      socket.write('half of a')
      await once(visitor, 'data')

      kind.breakOff(socket)

      expect([...visitors.cut, ...kind.cut]).toContain(await ending(visitor))
      visitor.end()
      await vi.waitFor(() => expect(tunnel.connections).toBe(0))
    })

    test('visitors are turned away at once while the target is down, and served when it is up', async () => {
      await using target = await openTarget(echo)
      await using tunnel = await open(target.target)
      await target.stop()
      const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')

      expect(visitors.cut).toContain(await ending(await visit(tunnel)))
      const { error } = await rejected
      expect(error.code).toBe('target-unreachable')
      expect(error.message).toContain(`the target ${tunnel.target} can't be reached (`)
      expect(tunnel.stats).toMatchObject({ connections: 0, rejections: 1 })

      await target.restart()
      expect((await ask(tunnel, 'up')).toString()).toBe('up')
    })

    test('it closes once, for everybody who asks', async () => {
      await using target = await openTarget(echo)
      const tunnel = await open(target.target)

      expect(tunnel.close()).toBe(tunnel.close())
      await tunnel.close()
      expect(await tunnel.closed).toBeUndefined()
      await tunnel.close()
    })

    test('its public address is free for the next as soon as it is closed', async () => {
      await using target = await openTarget(echo)
      const first = await open(target.target)
      await first.close()
      for (let round = 0; round < 20; round++) {
        await using next = await open(target.target, first)
        expect(next.url).toBe(first.url)
        expect((await ask(next, 'mine')).toString()).toBe('mine')
      }
    })

    test('it closes by cutting who is inside, so that they do not take it for the end', async () => {
      await using target = await openTarget(echo)
      const tunnel = await open(target.target)
      const visitor = await visit(tunnel)
      visitor.write('half of a')
      await once(visitor, 'data')

      const end = ending(visitor)
      await tunnel.close()

      expect(visitors.cut).toContain(await end)
      await vi.waitFor(() => expect(target.sockets.size).toBe(0))
    })

    test('while it closes with grace nobody comes in any more, and who is inside finishes', async () => {
      await using target = await openTarget(echo)
      const tunnel = await open(target.target)
      const visitor = await visit(tunnel)
      visitor.write('before, ')
      await once(visitor, 'data')

      const closed = tunnel.close({ grace: 30_000 })
      await vi.waitFor(() => expect(canVisit(tunnel)).resolves.toBe(false))
      const rest = readAll(visitor)
      visitor.end('after')

      expect((await rest).toString()).toBe('after')
      await closed
    })

    test('it closes after its grace at the latest', async () => {
      await using target = await openTarget(silent)
      const tunnel = await open(target.target)
      const [visitor] = await enter(tunnel, target)

      const end = ending(visitor)
      await tunnel.close({ grace: 50 })

      expect(visitors.cut).toContain(await end)
    })

    test('it closes although a visitor that does not read still has bytes to come', async () => {
      await using target = await openTarget((socket) => socket.end(Buffer.alloc(30_000_000)))
      const tunnel = await open(target.target)
      const [visitor] = await enter(tunnel, target)
      visitor.pause()

      const first = tunnel.close()
      expect(tunnel.close()).toBe(first)
      await first
      expect(tunnel.connections).toBe(0)
    })

    test('it closes at once when it is asked again without grace', async () => {
      await using target = await openTarget(silent)
      const tunnel = await open(target.target)
      const [visitor] = await enter(tunnel, target)
      const end = ending(visitor)

      const closed = tunnel.close({ grace: 2 ** 31 - 1 })
      expect(tunnel.close()).toBe(closed)

      await closed
      expect(visitors.cut).toContain(await end)
    })

    test('it closes at once when its signal aborts, although there was grace', async () => {
      await using target = await openTarget(silent)
      const tunnel = await open(target.target)
      const [visitor] = await enter(tunnel, target)
      const end = ending(visitor)
      const controller = new AbortController()

      const closed = tunnel.close({ grace: 2 ** 31 - 1, signal: controller.signal })
      controller.abort()

      await closed
      expect(visitors.cut).toContain(await end)
    })

    test('it closes while visitors come in, and every one of them is served or told', async () => {
      await using target = await openTarget(echo)
      const tunnel = await open(target.target)
      const leaving = Promise.allSettled(
        Array.from({ length: 50 }, async () => {
          const visitor = await visit(tunnel)
          visitor.end('hello')
          return ending(visitor)
        }),
      )
      await pEvent(tunnel, 'connection')
      await tunnel.close()

      for (const outcome of await leaving) {
        if (outcome.status === 'fulfilled') expect(['end', 'reset']).toContain(outcome.value)
        else
          expect(outcome.reason).toMatchObject({
            code: expect.stringMatching(/ECONNREFUSED|ECONNRESET|ENOENT/),
          })
      }
    })
  },
)

/** A visitor who is inside, and what the target has of it. */
async function enter(tunnel: Tunnel, target: SampleTarget): Promise<[net.Socket, net.Socket]> {
  const told = pEvent(tunnel, 'connection')
  const accepted = once(target.server, 'connection')
  const visitor = await visit(tunnel)
  const [socket] = await accepted
  await told
  return [visitor, socket]
}

async function canVisit(tunnel: Tunnel): Promise<boolean> {
  try {
    const visitor = await visit(tunnel)
    visitor.destroy()
    return true
  } catch {
    return false
  }
}

describe('a tunnel', () => {
  test('makes a local web server reachable, with a server of its own', async () => {
    await using target = await httpTarget((request, response) => response.end(`hello ${request.url}`))
    await using tunnel = await openTunnel(target.port)

    const response = await fetch(`${tunnel.url}/there`)

    expect(await response.text()).toBe('hello /there')
    expect(tunnel.url).toBe(`http://${tunnel.host}:${tunnel.port}`)
  })

  test('shows the same connection at both ends', async () => {
    await using target = await echoTarget()
    await using server = await createServer()
    await using tunnel = await openTunnel(target.address, { server })
    const atClient = pEvent<'connection', Connection>(tunnel, 'connection')
    const atServer = pEvent<'connection', Connection>(server, 'connection')

    const visitor = await visit(tunnel)
    visitor.end('ping')
    await once(visitor.resume(), 'close')

    const connection = await atClient
    expect(await atServer).toMatchObject({ id: connection.id, visitor: connection.visitor })
    expect(await (await atServer).closed).toMatchObject({ bytesIn: 4, bytesOut: 4 })
    await vi.waitFor(() => expect(tunnel.connections).toBe(0))
  })

  test('tells why its target could not be reached', async () => {
    const port = await getPort({ host: '127.0.0.1' })
    await using tunnel = await openTunnel(port)
    const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')

    expect(await ending(await visit(tunnel))).toBe('reset')
    const { error } = await rejected
    expect(error.code).toBe('target-unreachable')
    expect(error.message).toContain(`localhost:${port}`)
    expect(error.message).toContain('ECONNREFUSED')
  })

  test('reaches a target of localhost on either loopback family', async ({ skip }) => {
    await using target = await echoTarget()
    target.server.close()
    await once(target.server, 'close')
    target.server.listen(target.port, '::1')
    await Promise.race([once(target.server, 'listening'), once(target.server, 'error')])
    skip(!target.server.listening, 'this machine has no IPv6 loopback')
    await using tunnel = await openTunnel(`localhost:${target.port}`)

    expect((await ask(tunnel, 'six')).toString()).toBe('six')
  })

  test.each([
    ['3000', 'http', 'localhost:3000'],
    [3000, 'http', 'localhost:3000'],
    [':3000', 'http', 'localhost:3000'],
    ['example.test:80', 'http', 'example.test:80'],
    ['http://example.test', 'http', 'example.test:80'],
    ['https://example.test/', 'https', 'example.test:443'],
    ['tcp://[::1]:5432', 'tcp', '[::1]:5432'],
    ['my_service:80', 'http', 'my_service:80'],
  ])('to the target %s has a URL of scheme %s', async (target, scheme, name) => {
    await using tunnel = await openTunnel(target)

    expect(tunnel.url).toBe(`${scheme}://127.0.0.1:${tunnel.port}`)
    expect(tunnel.target).toBe(name)
  })

  test.each([
    '',
    'localhost',
    'localhost:0',
    'localhost:65536',
    'ftp://x:21',
    'tcp://x',
    'x:1/path',
    'a b:1',
    '-1',
    'me@x:1',
    '8080:3000',
    '*:3000',
    'localhost:3000://evil',
    1.5,
    -1,
  ])('refuses the target %j with a sentence that quotes it', async (target) => {
    const opening = openTunnel(target)
    await expect(opening).rejects.toMatchObject({ name: 'TunnelError', code: 'invalid-option' })
    await expect(opening).rejects.toThrow(JSON.stringify(target).replace('me@', '…@'))
  })

  test('is closed with the reason when the server closes', async () => {
    const server = await createServer()
    await using tunnel = await openTunnel(3000, { server })
    await server.close()

    expect(await tunnel.closed).toMatchObject({ name: 'TunnelError', code: 'server-closed' })
  })

  test('rejects a grace that is no number of milliseconds', async () => {
    await using tunnel = await openTunnel(3000)
    await expect(tunnel.close({ grace: Number.NaN })).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(tunnel.close({ grace: -1 })).rejects.toThrow('-1')
  })
})

describe('a tunnel opens', () => {
  test('through a server given as an object, with its secret', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ secret })
    await using tunnel = await openTunnel(target.port, { server })

    expect((await ask(tunnel, 'hi')).toString()).toBe('hi')
  })

  test('through a server given as an address', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ secret })
    const encoded = encodeURIComponent(secret)
    for (const address of [
      `127.0.0.1:${server.port}`,
      `localhost:${server.port}`,
      server.address,
      `${server.port}`,
    ]) {
      await using tunnel = await openTunnel(target.port, { server: address, secret })
      expect((await ask(tunnel, 'hi')).toString()).toBe('hi')
    }
    await using tunnel = await openTunnel(target.port, {
      server: `pipe://${encoded}@localhost:${server.port}`,
    })
    expect((await ask(tunnel, 'hi')).toString()).toBe('hi')
  })

  test('through the server that the environment names', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ secret })
    vi.stubEnv('PIPE_SERVER', server.address)
    vi.stubEnv('PIPE_SECRET', secret)
    try {
      await using tunnel = await openTunnel(target.port)
      expect(server.tunnels).toHaveLength(1)
      expect((await ask(tunnel, 'hi')).toString()).toBe('hi')
    } finally {
      vi.unstubAllEnvs()
    }
  })

  test.each([
    ['', /^PIPE_SECRET is set but empty: /],
    ['short', /8 characters or more, not 5/],
  ])('not with the secret %j from the environment', async (value, sentence) => {
    vi.stubEnv('PIPE_SECRET', value)
    try {
      const opening = openTunnel(3000, { server: '127.0.0.1:1' })
      await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
      await expect(opening).rejects.toThrow(sentence)
    } finally {
      vi.unstubAllEnvs()
    }
  })

  test.each([
    'http://x:1',
    'x:99999',
    ' ',
    'pipe://hunter2hunter2@x:1/path',
    'hunter2hunter2@x:99999',
    'pipe:hunter2hunter2@x:80',
    'pipe://hunter2@hunter2@x:80/x',
  ])('not through the server %j, and tells no secret', async (server) => {
    const error: Error = await openTunnel(3000, { server }).then(
      () => expect.unreachable(),
      (error) => error,
    )
    expect(error).toMatchObject({ code: 'invalid-option' })
    expect(error.message).not.toContain('hunter2')
  })

  test('not where no server answers, and the sentence says where it looked', async () => {
    const port = await getPort({ host: '127.0.0.1' })
    const opening = openTunnel(3000, { server: `127.0.0.1:${port}` })

    await expect(opening).rejects.toMatchObject({
      code: 'server-unreachable',
      cause: { code: 'ECONNREFUSED' },
    })
    await expect(opening).rejects.toThrow(`127.0.0.1:${port}`)
  })

  test('not at a server whose name nobody knows, which is said', async () => {
    await expect(openTunnel(3000, { server: 'no-such.invalid' })).rejects.toMatchObject({
      code: 'server-unreachable',
      message: expect.stringMatching(
        /^the name no-such\.invalid was not found \(getaddrinfo .*\): is it spelled right, and in DNS\?$/,
      ),
    })
  })

  test('not within its timeout at a server that says nothing', async () => {
    await using silent = await tcpTarget((socket) => socket.resume().once('end', () => socket.end()))
    const opening = openTunnel(3000, { server: silent.address, timeout: 100 })

    await expect(opening).rejects.toMatchObject({ code: 'timeout' })
    await vi.waitFor(() => expect(silent.sockets.size).toBe(0))
  })

  test('not when its signal aborts, before or during', async () => {
    await expect(openTunnel(3000, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'aborted' })

    await using silent = await silentTarget()
    const controller = new AbortController()
    const opening = openTunnel(3000, { server: silent.address, signal: controller.signal })
    silent.server.once('connection', () => controller.abort('enough'))

    await expect(opening).rejects.toMatchObject({ code: 'aborted', cause: 'enough' })
  })

  test.each([undefined, null, {}, Number.NaN, true])('not to the target %j', async (target) => {
    const opening = openTunnel(target as unknown as number)
    await expect(opening).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(/^target must be/),
    })
  })

  test('not to a promise, nor through one', async () => {
    await using server = await createServer()
    const promise = Promise.resolve(server)
    for (const [opening, name] of [
      [openTunnel(promise as never), 'target'],
      [openTunnel(3000, { server: promise as never }), 'server'],
      [openTunnel(3000, { server, port: Promise.resolve(8080) as never }), 'port'],
    ] as const) {
      await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
      await expect(opening).rejects.toThrow(`${name} is a promise: did you forget await?`)
    }
  })

  test.each([
    [8910, '8910'],
    [() => createServer(), 'a function'],
  ])('not through the server %s', async (server, shown) => {
    const opening = openTunnel(3000, { server: server as never })
    await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(opening).rejects.toThrow(
      new RegExp(`^server must be a Server, or an address .*, not ${shown}$`),
    )
  })

  test('not with a signal that is none, and nothing is left open', async () => {
    const opening = openTunnel(3000, { signal: {} as AbortSignal })
    await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
  })

  test.each([
    [
      () => openTunnel(3000, { hostheader: 'rewrite' } as object),
      'a name in options must be spelled hostHeader, not "hostheader"',
    ],
    [
      () => openTunnel(3000, { speed: 1 } as object),
      /^options must be made of server, secret, .*, not "speed"$/,
    ],
    [() => openTunnel(3000, 'localhost' as unknown as object), 'options must be an object, not "localhost"'],
    [() => openTunnel(3000, null as unknown as object), 'options must be an object, not null'],
    [() => createServer({ prot: 1 } as object), /^options has no "prot": did you mean port\?$/],
    [() => createServer({ speed: 1 } as object), /^options must be made of host, port, .*, not "speed"$/],
    [
      () => createServer({ limits: { Flows: 1 } as object }),
      'a name in limits must be spelled flows, not "Flows"',
    ],
    [() => forward(0, 3000, { port: 1 } as object), /^options must be made of mode, .*, not "port"$/],
  ])('not with options that are none: %s', async (open, message) => {
    await expect(open()).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(message),
    })
  })

  test.each([false, true])(
    'and serves where a test has stopped the timers of its process, mux: %s',
    async (mux) => {
      await using target = await echoTarget()
      vi.useFakeTimers()
      try {
        await using tunnel = await openTunnel(target.port, { mux })
        expect(`${await ask(tunnel, 'hello')}`).toBe('hello')
      } finally {
        vi.useRealTimers()
      }
    },
  )

  test('many at once with one signal, and nothing is printed', async () => {
    const warned = vi.fn()
    process.on('warning', warned)
    const { signal } = new AbortController()
    const tunnels = await Promise.all(Array.from({ length: 20 }, () => openTunnel(3000, { signal })))
    await Promise.all(tunnels.map((tunnel) => tunnel.close()))
    process.off('warning', warned)
    expect(warned).not.toHaveBeenCalled()
  })

  test('and a signal that aborts later leaves it alone', async () => {
    await using target = await echoTarget()
    const controller = new AbortController()
    await using tunnel = await openTunnel(target.port, { signal: controller.signal })
    controller.abort()

    expect((await ask(tunnel, 'still')).toString()).toBe('still')
  })
})
