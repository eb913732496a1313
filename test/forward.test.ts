/** Relaying on one machine, without a server. What passes, and how it ends, is in tunnel.test.ts. */
import { existsSync } from 'node:fs'
import http from 'node:http'
import getPort from 'get-port'
import { pEvent } from 'p-event'
import { type Connection, type ForwardOptions, forward, type Rejection, type Target } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { echoTarget, readAll, track, unixPath } from './helpers/targets.js'
import { hasIPv6, udpEchoTarget, udpVisitor } from './helpers/udp.js'
import { ask, ending, visit } from './helpers/visitor.js'

const hasUnix = process.platform !== 'win32'

interface Sample extends AsyncDisposable {
  target: Target
}

/** Each answers an HTTP request. */
const targets: Record<string, () => Promise<Sample>> = {
  'a port': () => track(http.createServer(answer)),
  'a unix socket': () => track(http.createServer(answer), { path: unixPath() }),
  'a server that does not listen': () => track(http.createServer(answer), 'nowhere'),
  'a request handler': async () => ({ target: answer, async [Symbol.asyncDispose]() {} }),
}

const places: Record<string, () => string | number> = {
  'a port': () => 0,
  'a unix socket': () => `unix:${unixPath()}`,
}

const combinations = Object.keys(places).flatMap((from) =>
  Object.keys(targets).map((to) => [from, to] as const),
)

describe('forward', () => {
  test.for(combinations)('leads from %s to %s', async ([from, to], { skip }) => {
    skip(!hasUnix && `${from}${to}`.includes('unix'), 'Windows has no unix sockets')
    await using sample = await (targets[to] as () => Promise<Sample>)()
    await using tunnel = await forward((places[from] as () => string | number)(), sample.target)

    const reply = await ask(
      tunnel,
      'POST /there HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 6\r\n\r\na body',
    )

    expect(reply.toString()).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(reply.toString()).toContain('POST /there a body')
  })

  test('leads from a UDP port to another', async () => {
    await using target = await udpEchoTarget()
    await using tunnel = await forward('udp:127.0.0.1:0', target.url)
    await using visitor = await udpVisitor(tunnel)
    const told = pEvent<'connection', Connection>(tunnel, 'connection')

    expect((await visitor.ask('a datagram')).toString()).toBe('a datagram')

    expect(tunnel.protocol).toBe('udp')
    expect(tunnel.url).toBe(`udp://127.0.0.1:${tunnel.port}`)
    expect((await told).visitor).toEqual({ address: '127.0.0.1', port: visitor.port })
    expect(tunnel.stats).toMatchObject({ connections: 1, bytesIn: 10, bytesOut: 10 })
  })

  test.for<[string | number, string]>([
    [0, '127.0.0.1'],
    ['0', '127.0.0.1'],
    [':0', '127.0.0.1'],
    ['localhost:0', '127.0.0.1'],
    ['127.0.0.1:0', '127.0.0.1'],
    ['tcp:0', '127.0.0.1'],
    ['tcp:127.0.0.1:0', '127.0.0.1'],
    ['tcp://127.0.0.1:0', '127.0.0.1'],
    ['0.0.0.0:0', '0.0.0.0'],
    ['[::1]:0', '::1'],
    ['tcp:[::1]:0', '::1'],
  ])('listens on %j', async ([written, host], { skip }) => {
    skip(host === '::1' && !(await hasIPv6()), 'this machine has no IPv6')
    await using target = await echoTarget()
    await using tunnel = await forward(written, `tcp:${target.address}`)

    expect(tunnel).toMatchObject({ host, protocol: 'tcp', path: undefined, target: target.address })
    expect(tunnel.port).toBeGreaterThan(0)
    expect(tunnel.url).toBe(`tcp://${host === '::1' ? '[::1]' : host}:${tunnel.port}`)
    expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
  })

  test('listens on the port that is asked for', async () => {
    await using target = await echoTarget()
    const port = await getPort({ host: '127.0.0.1' })
    await using tunnel = await forward(port, target.port)

    expect(tunnel.url).toBe(`http://127.0.0.1:${port}`)
    expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
  })

  test.skipIf(!hasUnix)('listens on a unix socket', async () => {
    await using target = await echoTarget()
    const path = unixPath()
    await using tunnel = await forward(`unix:${path}`, target.port)

    expect(tunnel).toMatchObject({ host: '', port: 0, path, protocol: 'unix', url: `unix:${path}` })
  })

  test('tells of each visitor and counts', async () => {
    await using target = await echoTarget()
    await using tunnel = await forward(0, target.port)
    const told: Connection[] = []
    tunnel.on('connection', (connection) => told.push(connection))

    for (const request of ['one', 'three']) await ask(tunnel, request)

    await vi.waitFor(() => expect(tunnel.connections).toBe(0))
    expect(told).toHaveLength(2)
    expect(new Set(told.map(({ id }) => id)).size).toBe(2)
    expect(await told[1]?.closed).toEqual({ bytesIn: 5, bytesOut: 5, duration: expect.any(Number) })
    expect(tunnel.stats).toEqual({ connections: 2, rejections: 0, bytesIn: 8, bytesOut: 8, drops: 0 })
  })

  test('turns visitors away while its target is down, and tells why', async () => {
    const port = await getPort({ host: '127.0.0.1' })
    await using tunnel = await forward(0, port)
    const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')
    const visitor = await visit(tunnel)
    const { localPort } = visitor

    expect(await ending(visitor)).toBe('reset')
    const { error, visitor: who, id } = await rejected
    expect(error.code).toBe('target-unreachable')
    expect(error.message).toContain(`localhost:${port}`)
    expect(error.message).toContain('ECONNREFUSED')
    expect(who).toEqual({ address: '127.0.0.1', port: localPort })
    expect(id).toMatch(/^[0-9a-f-]{36}$/)
    expect(tunnel.stats).toMatchObject({ connections: 0, rejections: 1 })
  })

  test('serves many visitors at once, each its own', async () => {
    await using target = await echoTarget()
    await using tunnel = await forward(0, target.port)

    const replies = await Promise.all(Array.from({ length: 200 }, (_, i) => ask(tunnel, `visitor ${i}`)))

    expect(replies.map(String)).toEqual(Array.from({ length: 200 }, (_, i) => `visitor ${i}`))
  })

  test('waits for its target where it should', async () => {
    await using target = await echoTarget()
    await target.stop()
    let visits = 0
    target.server.on('connection', () => visits++)

    const opening = forward(0, target.port, { waitForTarget: true, timeout: 30_000 })
    await target.restart()
    await using tunnel = await opening

    expect(visits).toBe(1)
    expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
  })

  test('gives up on a target that never comes, and has not listened', async () => {
    const [port, targetPort] = [await getPort({ host: '127.0.0.1' }), await getPort({ host: '127.0.0.1' })]
    const opening = forward(port, targetPort, { waitForTarget: 250 })
    await expect(opening).rejects.toMatchObject({
      code: 'timeout',
      message: expect.stringContaining('ECONNREFUSED'),
    })
    await expect(visit({ port })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('cuts who is inside when it closes, also who has not reached the target yet', async () => {
    await using target = await echoTarget()
    const tunnel = await forward(0, target.port)
    const ends: Promise<'end' | 'reset'>[] = []
    for (let i = 0; i < 10; i++) ends.push(ending(await visit(tunnel)))

    await tunnel.close()

    expect(tunnel.connections).toBe(0)
    expect(new Set(await Promise.all(ends))).toEqual(new Set(['reset']))
    await vi.waitFor(() => expect(target.sockets.size).toBe(0))
  })

  test('leads from one to the next, to the next', async () => {
    await using target = await echoTarget()
    await using first = await forward(0, target.port)
    await using second = await forward(0, first.port)
    await using third = await forward(0, second.url)

    expect((await ask(third, 'all the way')).toString()).toBe('all the way')
  })

  test('rejects a port that is taken', async () => {
    await using target = await echoTarget()
    const opening = forward(target.port, 3000)
    await expect(opening).rejects.toMatchObject({ name: 'TunnelError', code: 'port-taken' })
    await expect(opening).rejects.toThrow(`127.0.0.1:${target.port}`)
  })

  test('rejects an address that this machine has not', async () => {
    await expect(forward('192.0.2.1:0', 3000)).rejects.toMatchObject({
      code: 'address-unavailable',
      message: expect.stringContaining('192.0.2.1:0'),
    })
  })

  test('gives up when its signal aborts, and one that aborts later leaves it alone', async () => {
    await using target = await echoTarget()
    const path = hasUnix ? unixPath() : undefined
    await expect(
      forward(path ? `unix:${path}` : 0, target.port, { signal: AbortSignal.abort('enough') }),
    ).rejects.toMatchObject({ code: 'aborted', cause: 'enough' })
    if (path) expect(existsSync(path)).toBe(false)

    const controller = new AbortController()
    await using tunnel = await forward(0, target.port, { signal: controller.signal })
    controller.abort()
    expect((await ask(tunnel, 'still')).toString()).toBe('still')
  })

  test.each([
    ['udp:0', 3000, /^listen must be a tcp: or unix: address.*"udp:0"/],
    [0, 'udp://localhost:53', /^listen must be a udp: address.*not 0/],
    ['tcp:0', 'udp:53', /^listen must be a udp: address.*"tcp:0"/],
    ...(hasUnix ? [['unix:/tmp/x.sock', 'udp:53', /^listen must be a udp: address.*"unix:/] as const] : []),
  ] as const)('refuses to lead from %j to %j', async (listen, target, sentence) => {
    const opening = forward(listen, target)
    await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(opening).rejects.toThrow(sentence)
  })

  test.each([
    '',
    'localhost',
    'http://localhost:80',
    'x:65536',
    'me@localhost:1',
    'tcp:',
    'udp:',
    1.5,
    -1,
    null,
  ])('refuses to listen on %j', async (listen) => {
    const opening = forward(listen as string, 3000)
    await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(opening).rejects.toThrow(/^listen must be a port, 'host:port'.*, not /)
  })

  test.each<[ForwardOptions, RegExp]>([
    [{ timeout: 0 }, /^timeout must be .*, not 0$/],
    [{ signal: {} as AbortSignal }, /^signal must be an AbortSignal/],
    [{ mode: 0o600 }, /^mode must be left out where no unix socket is listened on$/],
    [{ mode: 660 }, /^mode must be permissions from 0 to 0o777, such as 0o660, not 660$/],
    [{ flowTimeout: 0 }, /^flowTimeout must be /],
    [{ flowTimeout: 100 }, /^flowTimeout must be left out where the target is not udp, not 100$/],
    [{ maxFlows: 3 }, /^maxFlows must be left out where the target is not udp, not 3$/],
    [{ maxFlows: 0 }, /^maxFlows must be /],
    [{ waitForTarget: 0 }, /^waitForTarget must be /],
  ])('refuses the options %j', async (options, sentence) => {
    const opening = forward(0, 3000, options)
    await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(opening).rejects.toThrow(sentence)
  })

  test.each([
    ['127.0.0.1:4000', 'localhost:4000'],
    [4000, 4000],
    ['0.0.0.0:4000', '127.0.0.1:4000'],
    ['[::]:4000', 'tcp://localhost:4000'],
    ['udp:4000', 'udp:localhost:4000'],
    ['unix:/tmp/x.sock', 'unix:/tmp/./x.sock'],
  ])('refuses to lead from %j back to itself', async (listen, target) => {
    await expect(forward(listen, target)).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(/^target must be another address than the one that is listened on/),
    })
  })

  test('leaves no socket behind where a port is taken', async () => {
    const sockets = () => process.getActiveResourcesInfo().filter((type) => /UDP/i.test(type)).length
    await using target = await udpEchoTarget()
    const before = sockets()
    for (let i = 0; i < 50; i++) {
      await expect(forward(target.url, 'udp:53')).rejects.toMatchObject({ code: 'port-taken' })
    }
    await vi.waitFor(() => expect(sockets()).toBe(before))
  })

  test('refuses a target that is none', async () => {
    await expect(forward(0, '')).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(/^target must be/),
    })
  })
})

async function answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
  response.end(`${request.method} ${request.url} ${await readAll(request)}`)
}
