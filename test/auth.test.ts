import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import net from 'node:net'
import { pEvent } from 'p-event'
import { createServer, openTunnel, type Refusal, type Server, type TunnelError } from 'pipe-tunnel'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { fakeServer, frame, nonce, prove, RawPeer, type Wire } from './helpers/raw-peer.js'
import { echoTarget, tcpTarget } from './helpers/targets.js'
import { ask } from './helpers/visitor.js'

const secret = 'correct horse battery staple'

/** What the code takes for random, where that is given. */
const random = vi.hoisted((): { bytes: unknown[]; id?: string } => ({ bytes: [] }))

vi.mock('node:crypto', async (original) => {
  const crypto = await original<typeof import('node:crypto')>()
  return {
    ...crypto,
    randomBytes: (size: number) => {
      const next = random.bytes.shift()
      return next ? Buffer.from(`${next}`, 'hex') : crypto.randomBytes(size)
    },
    randomUUID: () => random.id ?? crypto.randomUUID(),
  }
})

describe('a server with a secret', () => {
  test('lets in who holds it, and proves that it holds it too', async () => {
    await using server = await createServer({
      secret,
      tls: false,
      heartbeatTimeout: 12_345,
      exchangeTimeout: 6_789,
      resumeTimeout: 4_321,
    })
    await using peer = await RawPeer.connect(server)
    const mine = nonce()

    peer.send({ type: 'hello', version: 1, nonce: mine })
    const challenge = await peer.receive('challenge')
    expect(challenge).toEqual({
      type: 'challenge',
      nonce: expect.stringMatching(/^[0-9a-f]{64}$/),
      secret: true,
    })
    peer.send({ type: 'login', proof: prove('client', secret, mine, challenge.nonce) })

    expect(await peer.receive('welcome')).toEqual({
      type: 'welcome',
      proof: prove('server', secret, mine, challenge.nonce),
      heartbeatTimeout: 12_345,
      exchangeTimeout: 6_789,
      resumeTimeout: 4_321,
      resume: expect.stringMatching(/^[0-9a-f]{64}$/),
    })
    expect((await peer.forward()).port).toBeGreaterThan(0)
  })

  test.each([
    ['another secret', 'secret-wrong', (c: unknown, s: unknown) => prove('client', 'something else', c, s)],
    ['an empty secret', 'secret-wrong', (c: unknown, s: unknown) => prove('client', '', c, s)],
    ['no secret', 'secret-required', () => null],
    ['the proof of a server', 'secret-wrong', (c: unknown, s: unknown) => prove('server', secret, c, s)],
    [
      'a proof over nonces swapped',
      'secret-wrong',
      (c: unknown, s: unknown) => prove('client', secret, s, c),
    ],
    ['a proof over another nonce', 'secret-wrong', (c: unknown) => prove('client', secret, c, nonce())],
    ['a proof cut short', 'protocol-violation', () => 'abcd'],
    ['an empty proof', 'protocol-violation', () => ''],
    ['the secret itself', 'protocol-violation', () => secret],
  ])('refuses %s with %s, without a proof of its own', async (_, code, answer) => {
    await using server = await createServer({ secret, tls: false })
    const refused = pEvent<'refuse', Refusal>(server, 'refuse')
    await using peer = await RawPeer.connect(server)
    const mine = nonce()

    peer.send({ type: 'hello', version: 1, nonce: mine })
    const challenge = await peer.receive('challenge')
    peer.send({ type: 'login', proof: answer(mine, challenge.nonce) })

    // Where a welcome came, this would fail: it receives the very next message.
    expect(await peer.refusal()).toMatchObject({ code })
    const { client, error } = await refused
    expect(error.code).toBe(code)
    expect(client).toEqual({ address: '127.0.0.1', port: peer.socket.localPort })
  })

  test.each([
    ['another secret', 'something else', 'secret-wrong'],
    ['no secret', undefined, 'secret-required'],
    ['an empty secret', '', 'invalid-option'],
  ])('is closed to openTunnel with %s: %s, %s', async (_, held, code) => {
    await using server = await createServer({ secret })

    await expect(
      openTunnel(3000, { server: `127.0.0.1:${server.port}`, secret: held }),
    ).rejects.toMatchObject({
      name: 'TunnelError',
      code,
    })
    expect(server.tunnels).toEqual([])
  })

  test('makes a new nonce for every login', async () => {
    await using server = await createServer({ secret, tls: false })
    const nonces = new Set<unknown>()
    for (let i = 0; i < 20; i++) {
      await using peer = await RawPeer.connect(server)
      peer.send({ type: 'hello', version: 1, nonce: '0'.repeat(64) })
      nonces.add((await peer.receive('challenge')).nonce)
    }

    expect(nonces.size).toBe(20)
  })

  test('does not admit a data stream instead of a login', async () => {
    await using server = await createServer({ secret, tls: false })
    await using peer = await RawPeer.exchange(server, crypto.randomUUID())

    expect(await peer.refusal()).toMatchObject({ code: 'exchange-expired' })
  })
})

describe('a server without a secret', () => {
  test('says so, lets in who holds none, and proves nothing', async () => {
    await using server = await createServer()
    await using peer = await RawPeer.connect(server)
    peer.send({ type: 'hello', version: 1, nonce: nonce() })

    expect(await peer.receive('challenge')).toMatchObject({ secret: false })
    peer.send({ type: 'login', proof: null })
    expect(await peer.receive('welcome')).toMatchObject({ proof: null })
  })

  test('is none of the client that holds a secret, which then sends no proof', async () => {
    await using server = await fakeServer(secret)
    const opening = failureOf(openTunnel(3000, { server }))
    const peer = await server.accept()
    await peer.receive('hello')
    peer.send({ type: 'challenge', nonce: nonce(), secret: false })

    expect(await opening).toMatchObject({ code: 'server-unproven' })
    await peer.ended()
    expect(peer.unread).toHaveLength(0)
  })
})

describe('a client with a secret', () => {
  test('opens tunnels at a server that proves that it holds it', async () => {
    await using server = await fakeServer(secret)
    const opening = openTunnel(3000, { server, reconnect: false })
    await using peer = await (await server.accept()).admit(secret)
    await peer.receive('forward')
    peer.send({ type: 'forwarded', tunnel: 1, host: null, port: 4_000 })
    const tunnel = await opening

    expect(tunnel.url).toBe('http://127.0.0.1:4000')
    await peer.close()
    expect(await tunnel.closed).toMatchObject({ code: 'connection-lost' })
  })

  test('proves its own', async () => {
    await using server = await fakeServer(secret)
    const opening = failureOf(openTunnel(3000, { server }))
    await using peer = await server.accept()
    const hello = await peer.receive('hello')
    expect(hello).toEqual({ type: 'hello', version: 1, nonce: expect.stringMatching(/^[0-9a-f]{64}$/) })
    const challenge = nonce()
    peer.send({ type: 'challenge', nonce: challenge, secret: true })

    const login = await peer.receive('login')
    expect(login).toEqual({ type: 'login', proof: prove('client', secret, hello.nonce, challenge) })
    await peer.close()
    await opening
  })

  test.each([
    [
      'proves another secret',
      (_: unknown, c: unknown, s: unknown) => prove('server', 'something else', c, s),
    ],
    ['gives the proof back that it got', (proof: unknown) => proof],
    ['proves as a client does', (_: unknown, c: unknown, s: unknown) => prove('client', secret, c, s)],
    ['proves nothing', () => null],
    ['makes a proof up', () => nonce()],
  ])('finds out a server that %s', async (_, answer) => {
    await using server = await fakeServer(secret)
    const opening = failureOf(openTunnel(3000, { server }))
    await using peer = await server.accept()
    const hello = await peer.receive('hello')
    const challenge = nonce()
    peer.send({ type: 'challenge', nonce: challenge, secret: true })
    const login = await peer.receive('login')
    peer.send({
      type: 'welcome',
      proof: answer(login.proof, hello.nonce, challenge),
      heartbeatTimeout: 60_000,
      exchangeTimeout: 60_000,
    })

    expect(await opening).toMatchObject({ code: 'server-unproven' })
    await peer.ended()
    expect(peer.unread).toHaveLength(0)
  })

  test('finds out a server that sends its own nonce back', async () => {
    await using server = await fakeServer(secret)
    const opening = failureOf(openTunnel(3000, { server }))
    await using peer = await server.accept()
    const hello = await peer.receive('hello')
    peer.send({ type: 'challenge', nonce: hello.nonce, secret: true })
    const login = await peer.receive('login')
    peer.send({ type: 'welcome', proof: login.proof, heartbeatTimeout: 60_000, exchangeTimeout: 60_000 })

    expect(await opening).toMatchObject({ code: 'server-unproven' })
  })
})

describe('a conversation that somebody recorded', () => {
  test('holds the secret in no form', async () => {
    await using server = await createServer({ secret, tls: false })
    const connections = await record(secret, server)

    const bytes = Buffer.concat(connections.flatMap(({ fromClient, fromServer }) => [fromClient, fromServer]))
    expect(connections).toHaveLength(2)
    expect(bytes.includes('"welcome"')).toBe(true)
    for (const form of [
      secret,
      Buffer.from(secret).toString('hex'),
      Buffer.from(secret).toString('base64').replace(/=+$/, ''),
      encodeURIComponent(secret),
      JSON.stringify(secret).slice(1, -1),
    ]) {
      expect(bytes.includes(form), form).toBe(false)
    }
  })

  test('lets nobody in when its client is played again, byte by byte', async () => {
    await using server = await createServer({ secret, tls: false })
    const [{ fromClient }] = await record(secret, server)
    await using peer = await RawPeer.connect(server)

    peer.write(fromClient)

    await peer.receive('challenge')
    expect(await peer.refusal()).toMatchObject({ code: 'secret-wrong' })
    expect(server.tunnels).toEqual([])
  })

  test('deceives no client when its server is played again, byte by byte', async () => {
    await using server = await createServer({ secret, tls: false })
    const [{ fromServer }] = await record(secret, server)
    await using fake = await fakeServer(secret)
    const opening = failureOf(openTunnel(3000, { server: fake }))
    await using peer = await fake.accept()

    peer.write(fromServer)

    expect(await opening).toMatchObject({ code: 'server-unproven' })
  })
})

describe('versions that differ', () => {
  test.each([2, 65_535])('are told to a client of version %i, with both', async (version) => {
    await using server = await createServer({ secret, tls: false })
    await using peer = await RawPeer.connect(server)
    peer.send({ type: 'hello', version, nonce: nonce(), later: true })

    const { code, message } = await peer.refusal()
    expect(code).toBe('version-mismatch')
    expect(message).toMatch(/server speaks version 1 .*client version \d+/)
    expect(message).toContain(String(version))
  })

  test('are told by a server of another version, in its own words', async () => {
    await using server = await fakeServer()
    const opening = failureOf(openTunnel(3000, { server }))
    await using peer = await server.accept()
    expect(await peer.receive('hello')).toMatchObject({ version: 1 })
    peer.send({
      type: 'refuse',
      code: 'version-mismatch',
      message: 'the server speaks version 2 and the client version 1',
      later: { anything: true },
    })

    expect(await opening).toMatchObject({
      code: 'version-mismatch',
      message: 'the server speaks version 2 and the client version 1',
    })
  })

  test('may bring codes that a client does not know: they are kept in the sentence', async () => {
    await using server = await fakeServer()
    const opening = failureOf(openTunnel(3000, { server }))
    await using peer = await server.accept()
    await peer.receive('hello')
    peer.send({ type: 'refuse', code: 'moon-phase', message: 'not today' })

    expect(await opening).toMatchObject({ code: 'refused', message: 'not today (moon-phase)' })
  })
})

const documentation = await readFile(new URL('../docs/protocol.md', import.meta.url), 'utf8')

/** The example conversations of the documentation, line by line. */
const examples = documentation
  .slice(documentation.indexOf('\n## Examples\n'))
  .split('\n### ')
  .slice(1)
  .map((section) => {
    const said = section.matchAll(
      /^\d+ +(client|server|stream|visitor) (sends|gets|comes|ends|is reset) *(.*)$/gm,
    )
    const lines = [...said].map(([, who = '', does, what]) => ({ who, does, what: what && JSON.parse(what) }))
    /** A field of the first message of this type. */
    const field = (type: string, name: string) => lines.find(({ what }) => what?.type === type)?.what[name]
    return { title: section.split('\n')[0], section, lines, field }
  })

describe('the example in the documentation', () => {
  afterEach(() => {
    random.bytes = []
    delete random.id
  })

  test.each(examples)('is what a server says: $title', async ({ lines, field }) => {
    random.bytes = [field('challenge', 'nonce'), field('welcome', 'resume')]
    random.id = field('exchange', 'id')
    await using server = await createServer(field('challenge', 'secret') ? { secret, tls: false } : {})
    await using client = await RawPeer.connect(server)
    const peers: Record<string, RawPeer> = { client }
    let publicAddress = { host: '', port: 0 }

    for (const { who, does, what } of lines) {
      if (does === 'comes') peers.visitor = await RawPeer.connect(publicAddress)
      if (who === 'stream' && does === 'sends' && what.type) peers.stream = await RawPeer.connect(server)
      const peer = peers[who] ?? client
      if (does === 'ends') expect(await peer.ended()).toBe('end')
      else if (does === 'is reset') expect(await peer.ended()).toBe('reset')
      else if (does === 'gets') expect(await peer.read(bytesOf(what).length)).toEqual(bytesOf(what))
      else if (who === 'server') {
        const message = await peer.receive(what.type)
        expect(essenceOf(message)).toEqual(essenceOf(what))
        if (what.type === 'forwarded') publicAddress = { host: what.host, port: Number(message.port) }
      } else if (does === 'sends') peer.write(bytesOf(what))
    }

    expect(lines.length).toBeGreaterThan(2)
    for (const peer of Object.values(peers)) await peer.close()
  })

  const ofThisVersion = examples.filter(({ field }) => field('hello', 'version') === 1)

  test.each(ofThisVersion)('is what a client says: $title', async ({ section, lines, field }) => {
    random.bytes = [field('hello', 'nonce')]
    const held = /takes the secret to be `(.+)`/.exec(section)?.[1] ?? secret
    await using server = await fakeServer(field('challenge', 'secret') ? held : undefined)
    await using target = await tcpTarget((socket) => socket.on('data', () => socket.write('pong')))
    if (field('reject', 'id')) await target[Symbol.asyncDispose]()
    const outcome = openTunnel(`127.0.0.1:${target.port}`, { server, port: field('forward', 'port') }).then(
      (tunnel) => ({ tunnel, code: undefined }),
      ({ code }: TunnelError) => ({ tunnel: undefined, code }),
    )
    const control = await server.accept()
    let stream = control

    for (const { who, does, what } of lines) {
      if (who === 'server' && does === 'ends') control.end()
      else if (who === 'server') control.send(what)
      else if (who === 'client') {
        if (what.type === 'close') (await outcome).tunnel?.close()
        expect(essenceOf(await control.receive(what.type))).toEqual(essenceOf(what))
      } else if (who === 'stream') {
        if (does === 'sends' && what.type) stream = await server.accept()
        if (does === 'gets') stream.write(bytesOf(what))
        else expect((await stream.read(bytesOf(what).length)).toString()).toBe(bytesOf(what).toString())
      }
    }

    await control.end().close()
    const { tunnel, code } = await outcome
    expect(tunnel?.port).toBe(field('forwarded', 'port'))
    expect(code).toBe(tunnel ? undefined : (field('refuse', 'code') ?? field('closed', 'code')))
    await tunnel?.close()
  })

  test('of a proof, and that of a data stream, have true bytes', () => {
    const { section, field } = examples[0] as (typeof examples)[0]
    const [input = ''] = /^pipe-tunnel 1 client .*$/m.exec(section) ?? []
    const bytes = frame({ type: 'exchange', id: field('exchange', 'id') }).toString('hex')

    expect(createHmac('sha256', secret).update(input).digest('hex')).toBe(field('login', 'proof'))
    expect(section).toContain(`${bytes.slice(0, 8)} ${bytes.slice(8)} ${bytesOf('pong').toString('hex')}\n`)
  })
})

/** What is said, as bytes: a message or a text. */
function bytesOf(what: Wire | string): Buffer {
  return typeof what === 'string' ? Buffer.from(what) : frame(what)
}

/** The message without its sentence, and without a port that the system chose. */
function essenceOf({ message: _, ...fields }: Wire): Wire {
  const { port, localPort, ...rest } = fields
  const fixed = Number(port) < 1_024 ? { port } : {}
  return { ...rest, ...fixed }
}

/** The error that it rejects with. */
function failureOf(opening: Promise<unknown>): Promise<TunnelError> {
  return opening.then(
    () => {
      throw new Error('it opened')
    },
    (error) => error,
  )
}

interface Recorded {
  fromClient: Buffer
  fromServer: Buffer
}

/** What a client and a server with this secret say on each connection until a visitor was served: control first. */
async function record(secret: string, server: Server): Promise<[Recorded, ...Recorded[]]> {
  const connections: Recorded[] = []
  const recorder = net.createServer({ allowHalfOpen: true }, (client) => {
    const upstream = net.connect({ host: server.host, port: server.port, allowHalfOpen: true })
    const recorded = { fromClient: Buffer.alloc(0), fromServer: Buffer.alloc(0) }
    connections.push(recorded)
    client.on('data', (chunk) => {
      recorded.fromClient = Buffer.concat([recorded.fromClient, chunk])
    })
    upstream.on('data', (chunk) => {
      recorded.fromServer = Buffer.concat([recorded.fromServer, chunk])
    })
    client.pipe(upstream).pipe(client)
  })
  recorder.listen(0, '127.0.0.1')
  await once(recorder, 'listening')
  const { port } = recorder.address() as net.AddressInfo
  await using target = await echoTarget()
  const tunnel = await openTunnel(target.port, { server: { host: '127.0.0.1', port, secret, tls: false } })

  expect((await ask(tunnel, 'hi')).toString()).toBe('hi')

  await tunnel.close()
  const closed = once(recorder, 'close')
  recorder.close()
  await closed
  return connections as [Recorded, ...Recorded[]]
}
