import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import net from 'node:net'
import tls from 'node:tls'
import { pEvent } from 'p-event'
import { createServer, openTunnel, type Refusal, type Rejection, TunnelError } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { dialTls } from '../src/dialler.js'
import { presharedKey } from '../src/preshared-key.js'
import { reset } from '../src/stream.js'
import { acceptTls } from '../src/tls-accept.js'
import {
  type ClientSecurity,
  clientSecurity,
  type ServerSecurity,
  serverSecurity,
} from '../src/tls-options.js'
import { makeCertificate } from './helpers/certificate.js'
import { start } from './helpers/command.js'
import { between, type Treat } from './helpers/middle.js'
import { fakeServer, frame, keyOf, nonce, prove, RawPeer } from './helpers/raw-peer.js'
import { echoTarget, silentTarget, tcpTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

const secret = 'correct horse battery staple'
const text = 'what only the visitor and the target may know'

/** One authority that the client trusts, and what it has signed, for us and for somebody else. */
const authority = makeCertificate(['authority'])
const ours = makeCertificate(['127.0.0.1', 'localhost'], authority)
const theirs = makeCertificate(['127.0.0.1', 'localhost'], authority)
const trusting = { ca: authority.cert }

/** An endpoint as a caller gives it, without what a server object says of itself. */
const at = ({ host, port }: { host: string; port: number }) => `${host}:${port}`

describe('who listens between client and server', () => {
  test.each([
    ['a secret', { secret }, undefined],
    ['a certificate', { tls: ours }, trusting],
    ['both', { secret, tls: ours }, trusting],
  ])('learns nothing where they have %s', async (_, options, tls) => {
    await using server = await createServer({ ...options, publicHost: 'public-name.test' })
    await using target = await echoTarget()
    await using middle = await between(server)
    const { secret: held } = server
    await using tunnel = await openTunnel(target.port, { server: at(middle), secret: held, tls })
    expect(tunnel.url).toContain('public-name.test')
    expect(`${await ask({ host: '127.0.0.1', port: tunnel.port }, text)}`).toBe(text)
    await tunnel.close()

    const bytes = middle.seen.flatMap(({ fromClient, fromServer }) => [fromClient, fromServer])
    expect(middle.seen).toHaveLength(2)
    for (const one of bytes) {
      expect(one.length).toBeGreaterThan(100)
      for (const known of [text, secret, 'public-name', '"type"', 'hello', `${tunnel.port}`, 'proof']) {
        expect(one.includes(known), known).toBe(false)
      }
    }
  })

  test('hears everything where both were told not to encrypt', async () => {
    await using server = await createServer({ secret, tls: false })
    await using target = await echoTarget()
    await using middle = await between(server)
    await using tunnel = await openTunnel(target.port, { server: at(middle), secret, tls: false })
    expect(`${await ask(tunnel, text)}`).toBe(text)

    expect(middle.seen.some(({ fromClient }) => fromClient.includes(text))).toBe(true)
    expect(middle.seen[0]?.fromClient.includes('"hello"')).toBe(true)
    expect(middle.seen[0]?.fromClient.includes(secret)).toBe(false)
  })

  test('can play a recorded client again, and is refused', async () => {
    await using server = await createServer({ secret })
    const { fromClient } = await record(server)
    const refused = pEvent<'refuse', Refusal>(server, 'refuse')
    const socket = await visit({ host: server.host, port: server.port })
    socket.resume().end(fromClient)

    expect((await refused).error).toMatchObject({ code: 'protocol-violation' })
    await once(socket, 'close')
    expect(server.tunnels).toEqual([])
  })

  test('can play a recorded server again, and the client tells it nothing', async () => {
    await using server = await createServer({ secret })
    const { fromServer } = await record(server)
    await using middle = await between(server, async (client) => {
      await once(client, 'data')
      client.write(fromServer)
      return undefined
    })

    expect(await failureOf(openTunnel(3000, { server: at(middle), secret }))).toBeInstanceOf(TunnelError)
  })
})

describe('who stands between client and server', () => {
  /** What the middle got to read; its own TLS socket puts it there. */
  const reads = (socket: tls.TLSSocket, into: Buffer[]) => socket.on('data', (chunk) => into.push(chunk))

  test.each([
    ['no key', 'secret-wrong', { pskCallback: () => null }],
    ['another key under the same name', 'secret-wrong', { pskCallback: () => Buffer.alloc(32, 7) }],
    ['a certificate', 'server-unproven', { cert: theirs.cert, key: theirs.key }],
    ['a certificate of its own making', 'server-unproven', makeCertificate(['127.0.0.1'])],
  ])('with %s is not talked to by a client that holds a secret: %s', async (_, code, options) => {
    const read: Buffer[] = []
    const { cert, key } = options as { cert?: string; key?: string }
    await using middle = await between({ host: '127.0.0.1', port: 1 }, async (client) => {
      reads(
        new tls.TLSSocket(client, {
          isServer: true,
          ...options,
          secureContext: tls.createSecureContext({ cert, key }),
        }).on('error', () => {}),
        read,
      )
      return undefined
    })

    expect(await failureOf(openTunnel(3000, { server: at(middle), secret }))).toMatchObject({ code })
    expect(read).toEqual([])
  })

  test('with a certificate that the client trusts is not taken for one with the key', async () => {
    const { context: _, ...security } = (await clientSecurity(undefined, secret)) ?? expect.unreachable()
    const context = tls.createSecureContext({ ca: authority.cert })
    await using listener = await tcpTarget((socket) => {
      const secureContext = tls.createSecureContext(ours)
      new tls.TLSSocket(socket, { isServer: true, secureContext }).on('error', () => {})
    })
    const socket = await visit(listener)
    const dialling = dialTls(
      socket,
      { ...security, context },
      { host: '127.0.0.1', port: 0 },
      new AbortController().signal,
    )

    expect(await failureOf(dialling)).toMatchObject({ code: 'server-unproven' })
    expect(socket.destroyed).toBe(true)
  })

  test.each([
    ['messages', frame({ type: 'challenge', nonce: nonce(), secret: true })],
    ['a refusal', frame({ type: 'refuse', code: 'secret-required', message: 'no TLS here' })],
    ['a web page', Buffer.from('HTTP/1.1 200 OK\r\n\r\n')],
  ])('without TLS, answering with %s, gets a ClientHello and nothing more', async (_, answer) => {
    await using server = await fakeServer()
    const opening = failureOf(openTunnel(3000, { server: at(server), secret }))
    await using peer = await server.accept()
    peer.write(answer)

    expect(await opening).toMatchObject({
      code: 'server-unproven',
      message: expect.stringMatching(/does not speak TLS/),
    })
    await peer.ended()
    expect(peer.unread[0]).toBe(0x16)
    expect(peer.unread.includes('hello')).toBe(false)
  })

  /** Ends TLS here, with a certificate that the client trusts, and begins it anew towards the server. */
  const breaksOpen: Treat = async (client, toServer) => {
    const left = new tls.TLSSocket(client, { isServer: true, secureContext: tls.createSecureContext(theirs) })
    await once(left, 'secure')
    return [left, tls.connect({ socket: toServer(), ca: authority.cert, host: '127.0.0.1' })]
  }

  test('with a certificate that the client trusts can read it all where there is no secret', async () => {
    await using server = await createServer({ tls: ours })
    await using middle = await between(server, breaksOpen)
    await using _tunnel = await openTunnel(3000, { server: at(middle), tls: trusting })

    expect(middle.seen[0]?.fromClient.includes('"hello"')).toBe(true)
  })

  test('with a certificate that the client trusts gets no further than the login where there is one', async () => {
    await using server = await createServer({ secret, tls: ours })
    await using middle = await between(server, breaksOpen)
    const refused = pEvent<'refuse', Refusal>(server, 'refuse')
    const opening = failureOf(openTunnel(3000, { server: at(middle), secret, tls: trusting }))

    expect(await opening).toMatchObject({ code: 'secret-wrong' })
    expect((await refused).error.code).toBe('secret-wrong')
    expect(server.tunnels).toEqual([])
  })

  test('who lets the login pass and opens data streams is found out by its certificate', async () => {
    await using server = await createServer({ secret, tls: ours })
    await using target = await echoTarget()
    await using middle = await between(server, (client, toServer, number) =>
      number === 0 ? Promise.resolve([client, toServer()]) : breaksOpen(client, toServer, number),
    )
    await using tunnel = await openTunnel(target.port, { server: at(middle), secret, tls: trusting })
    const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')
    const visitor = await visit(tunnel)
    visitor.write(text)

    expect((await rejected).error).toMatchObject({
      code: 'server-unproven',
      message: expect.stringMatching(/another certificate/),
    })
    expect(await ending(visitor)).toBe('reset')
    expect(middle.seen).toHaveLength(2)
    expect(middle.seen[1]?.fromClient).toHaveLength(0)
  })

  test.each(['client', 'server'] as const)(
    'can change no byte without being noticed by the %s',
    async (victim) => {
      await using server = await createServer({ secret })
      const visitors: net.Socket[] = []
      await using target = await tcpTarget((socket) => visitors.push(socket))
      let spoils = false
      const spoil = (chunk: Buffer) => {
        if (spoils) chunk.writeUInt8(chunk.readUInt8(chunk.length - 1) ^ 1, chunk.length - 1)
        return chunk
      }
      await using middle = await between(server, async (client, toServer, number) => {
        const upstream = toServer()
        if (number === 0) return [client, upstream]
        const [from, to] = victim === 'client' ? [upstream, client] : [client, upstream]
        from.on('data', (chunk) => to.write(spoil(chunk)))
        to.pipe(from)
        return undefined
      })
      await using tunnel = await openTunnel(target.port, { server: at(middle), secret })
      const visitor = await visit(tunnel)
      await vi.waitFor(() => expect(visitors).toHaveLength(1))
      const atTarget = visitors[0] ?? expect.unreachable()
      const [from, to] = victim === 'client' ? [visitor, atTarget] : [atTarget, visitor]
      const got: Buffer[] = []
      to.on('data', (chunk) => got.push(chunk))
      from.write('true')
      await vi.waitFor(() => expect(`${Buffer.concat(got)}`).toBe('true'))
      spoils = true
      from.write('changed on the way')

      expect(await Promise.all([ending(visitor), ending(atTarget)])).toEqual(['reset', 'reset'])
      expect(`${Buffer.concat(got)}`).toBe('true')
    },
  )
})

describe('the login through TLS', () => {
  test('is bound to its connection', async () => {
    await using server = await createServer({ secret })
    await using peer = await RawPeer.connect(server)
    await using other = await RawPeer.connect(server)
    const mine = nonce()
    peer.send({ type: 'hello', version: 1, nonce: mine })
    const challenge = await peer.receive('challenge')
    expect(peer.binding).toMatch(/^[0-9a-f]{64}$/)
    expect(other.binding).not.toBe(peer.binding)
    const proof = prove('client', secret, mine, challenge.nonce, other.binding)
    peer.send({ type: 'login', proof })

    expect(await peer.refusal()).toMatchObject({ code: 'secret-wrong' })
  })

  test('is not done with a proof for a connection without TLS', async () => {
    await using server = await createServer({ secret })
    await using peer = await RawPeer.connect(server)
    const mine = nonce()
    peer.send({ type: 'hello', version: 1, nonce: mine })
    const challenge = await peer.receive('challenge')
    peer.send({ type: 'login', proof: prove('client', secret, mine, challenge.nonce) })

    expect(await peer.refusal()).toMatchObject({ code: 'secret-wrong' })
  })

  test('opens tunnels at a server by hand that holds the secret, and at none that proves it for another connection', async () => {
    for (const [word, code] of [
      [undefined, undefined],
      [nonce(), 'server-unproven'],
    ]) {
      await using server = await fakeServer(secret, { encrypts: true })
      const opening = openTunnel(3000, { server, timeout: 20_000 })
      const outcome = opening.then((tunnel) => tunnel.close()).catch((error: TunnelError) => error.code)
      await using peer = await server.accept()
      const hello = await peer.receive('hello')
      const mine = nonce()
      peer.send({ type: 'challenge', nonce: mine, secret: true })
      await peer.receive('login')
      const proof = prove('server', secret, hello.nonce, mine, word ?? peer.binding)
      peer.send({ type: 'welcome', proof, heartbeatTimeout: 60_000, exchangeTimeout: 60_000 })
      if (!code) {
        await peer.receive('forward')
        peer.send({ type: 'forwarded', tunnel: 1, host: null, port: 4_000 })
        await peer.receive('close')
        peer.send({ type: 'closed', tunnel: 1, code: 'closed', message: 'closed' })
      }
      expect(await outcome).toBe(code)
    }
  })
})

describe('a wrong secret', () => {
  test('is told at both ends', async () => {
    await using server = await createServer({ secret })
    const refused = pEvent<'refuse', Refusal>(server, 'refuse')

    expect(await failureOf(openTunnel(3000, { server: at(server), secret: 'another secret' }))).toMatchObject(
      {
        code: 'secret-wrong',
      },
    )
    expect(await refused).toMatchObject({ client: { address: '127.0.0.1' }, error: { code: 'secret-wrong' } })
  })

  test('is not one of several that a server holds', async () => {
    const security = await securityOf([{ secret: 'the first of them' }, { secret }])
    for (const [held, code] of [
      ['the first of them', undefined],
      [secret, undefined],
      ['none of them', 'secret-wrong'],
    ] as const) {
      await using pair = await connect(security, held)
      expect(await pair.accepted.then(() => undefined, codeOf)).toBe(code)
      expect(await pair.dialled.then(() => undefined, codeOf)).toBe(code)
    }
  })
})

describe('a client without TLS', () => {
  test.each([
    ['a secret', { secret }, 'secret-required'],
    ['a certificate', { tls: ours }, 'tls-required'],
    ['both', { secret, tls: ours }, 'tls-required'],
  ])('is refused by a server with %s, and told so', async (_, options, code) => {
    await using server = await createServer(options)
    for (const message of [
      { type: 'hello', version: 1, nonce: nonce() },
      { type: 'exchange', id: crypto.randomUUID() },
    ]) {
      const refused = pEvent<'refuse', Refusal>(server, 'refuse')
      await using peer = await RawPeer.connect({ host: server.host, port: server.port })
      peer.send(message, { type: 'login', proof: null })

      expect(await peer.refusal()).toMatchObject({ code })
      expect((await refused).error.code).toBe(code)
    }
    const opening = openTunnel(3000, { server: at(server), secret: server.secret, tls: false })
    expect(await failureOf(opening)).toMatchObject({ code })
  })

  test.each([
    ['a web request', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['random bytes', Buffer.from('80ff00', 'hex')],
  ])('is refused where it begins with %s', async (_, bytes) => {
    await using server = await createServer({ secret })
    await using peer = await RawPeer.connect({ host: server.host, port: server.port })
    peer.write(bytes)

    expect(await peer.refusal()).toMatchObject({ code: 'protocol-violation' })
  })

  test('may look whether the port is open', async () => {
    await using server = await createServer({ secret })
    const refused = vi.fn()
    server.on('refuse', refused)
    await using peer = await RawPeer.connect({ host: server.host, port: server.port })

    expect(await peer.end().ended()).toBe('end')
    expect(refused).not.toHaveBeenCalled()
  })
})

describe('a server without TLS', () => {
  test.each([
    ['a secret', { secret }],
    ['a certificate', { tls: true }],
    ['both', { secret, tls: true }],
  ])('is none for a client that expects %s, and says what came', async (_, options) => {
    await using server = await createServer()
    const refused = pEvent<'refuse', Refusal>(server, 'refuse')

    expect(await failureOf(openTunnel(3000, { server: at(server), ...options }))).toMatchObject({
      code: 'server-unproven',
      message: expect.stringMatching(/does not speak TLS/),
    })
    expect((await refused).error).toMatchObject({
      code: 'protocol-violation',
      message: expect.stringMatching(/began with TLS/),
    })
  })
})

describe('a certificate', () => {
  test('is verified by the name that was given, or by servername', async () => {
    await using target = await echoTarget()
    const named = makeCertificate(['tunnel.test'], authority)
    await using server = await createServer({ tls: named })
    for (const given of [
      { server: server, tls: { ...trusting, servername: 'tunnel.test' } },
      { server: at(server), tls: { ...trusting, servername: 'tunnel.test' } },
    ]) {
      await using tunnel = await openTunnel(target.port, given)
      expect(`${await ask(tunnel, 'hi')}`).toBe('hi')
    }
    expect(await failureOf(openTunnel(3000, { server, tls: trusting }))).toMatchObject({
      code: 'server-unproven',
      message: expect.stringMatching(/for another name .*servername/),
    })
  })

  test('and a secret go together', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ tls: ours, secret })
    await using tunnel = await openTunnel(target.port, {
      server: `localhost:${server.port}`,
      secret,
      tls: trusting,
    })
    expect(`${await ask(tunnel, 'hi')}`).toBe('hi')

    const wrong = openTunnel(3000, { server, secret: 'another secret', tls: trusting })
    expect(await failureOf(wrong)).toMatchObject({ code: 'secret-wrong' })
    const none = openTunnel(3000, { server: at(server), tls: trusting })
    expect(await failureOf(none)).toMatchObject({ code: 'secret-required' })
  })

  test.each([
    ['of an authority that is not known', makeCertificate(['127.0.0.1']), trusting, /not trusted .*tls\.ca/],
    ['of an authority that Node does not know', ours, true, /not trusted .*tls\.ca/],
    [
      'that has expired',
      makeCertificate(['127.0.0.1'], authority, { from: -3, to: -2 }),
      trusting,
      /expired/,
    ],
    ['for another name', makeCertificate(['elsewhere.test'], authority), trusting, /another name/],
  ])('%s is refused, whatever NODE_TLS_REJECT_UNAUTHORIZED says', async (_, certificate, tls, sentence) => {
    await using server = await createServer({ tls: certificate })
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0')
    try {
      expect(await failureOf(openTunnel(3000, { server, tls }))).toMatchObject({
        code: 'server-unproven',
        message: expect.stringMatching(sentence),
      })
    } finally {
      vi.unstubAllEnvs()
    }
  })

  test('is not what a server has that encrypts by its secret', async () => {
    await using server = await createServer({ secret })

    expect(await failureOf(openTunnel(3000, { server: at(server), secret, tls: true }))).toMatchObject({
      code: 'server-unproven',
      message: expect.stringMatching(/with a certificate/),
    })
  })

  test.each([
    [true],
    [{}],
    [{ key: 'x' }],
    [{ key: 'x', cert: 'x' }],
    [{ key: theirs.key, cert: ours.cert }],
    ['PEM'],
  ])('must be one: a server refuses %j', async (tls) => {
    const starting = createServer({ tls: tls as never })
    expect(await failureOf(starting)).toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(/^tls must be/),
    })
  })

  test.each([['yes'], [{}], [{ ca: 1 }], [{ ca: 'no PEM' }], [{ ca: '', servername: '' }]])(
    'must have an authority: a client refuses %j',
    async (tls) => {
      await using server = await createServer({ tls: ours })
      const opening = openTunnel(3000, { server: at(server), tls: tls as never })
      expect(await failureOf(opening)).toMatchObject({
        code: expect.stringMatching(/invalid-option|unproven/),
      })
    },
  )
})

describe('a TLS handshake', () => {
  test('that comes byte by byte is given up in time', async () => {
    await using server = await createServer({ secret, handshakeTimeout: 1_000 })
    const hello = (await record(server)).fromClient
    const refused = pEvent<'refuse', Refusal>(server, 'refuse')
    const socket = await visit({ host: server.host, port: server.port })
    let sent = 0
    const drip = setInterval(() => socket.write(hello.subarray(sent, ++sent)), 50)

    expect((await refused).error).toMatchObject({
      code: 'timeout',
      message: expect.stringMatching(/within 1000 ms/),
    })
    await vi.waitFor(() => expect(socket.destroyed).toBe(true))
    clearInterval(drip)
    expect(sent).toBeGreaterThan(1)
  })

  test.each(['end', 'reset'] as const)(
    'may end in the middle, by %s, and nothing stays behind',
    async (how) => {
      await using server = await createServer({ secret, handshakeTimeout: 60_000, limits: { newcomers: 1 } })
      const hello = (await record(server)).fromClient
      for (const length of [1, 5, 100]) {
        const refused = pEvent<'refuse', Refusal>(server, 'refuse')
        await using peer = await RawPeer.connect({ host: server.host, port: server.port })
        await new Promise((resolve) => peer.socket.write(hello.subarray(0, length), resolve))
        if (how === 'end') peer.end()
        else await peer.close('reset')
        expect((await refused).error.code).toBe('connection-lost')
      }
      await using tunnel = await openTunnel(3000, { server })
      expect(tunnel.port).toBeGreaterThan(0)
    },
  )

  test('that a server never answers is given up in time', async () => {
    await using silent = await silentTarget()
    const opening = openTunnel(3000, { server: silent.address, secret, timeout: 1_000 })
    expect(await failureOf(opening)).toMatchObject({ code: 'timeout' })
    await vi.waitFor(() => expect(silent.sockets.size).toBe(0))
  })

  test.each(['end', 'resetAndDestroy'] as const)(
    'of which the server thinks better, by %s, is told',
    async (how) => {
      await using server = await tcpTarget((socket) => socket.once('data', () => socket[how]()))
      const opening = openTunnel(3000, { server: server.address, secret })
      expect(await failureOf(opening)).toMatchObject({
        code: 'connection-lost',
        message: expect.stringContaining(server.address),
      })
    },
  )

  test('that the server has ended before it began is told at once', async () => {
    await using server = await tcpTarget((socket) => socket.end())
    const socket = net.connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true })
    await once(socket.resume(), 'end')
    const security = (await clientSecurity(undefined, secret)) as ClientSecurity
    const dialling = dialTls(
      socket,
      security,
      { host: '127.0.0.1', port: server.port },
      AbortSignal.timeout(20_000),
    )
    expect(await failureOf(dialling)).toMatchObject({ code: 'connection-lost' })
    expect(socket.destroyed).toBe(true)
  })

  test('is cut at once where too many others have not finished theirs', async () => {
    await using server = await createServer({ secret, limits: { newcomers: 1 } })
    await using _silent = await RawPeer.connect({ host: server.host, port: server.port })
    const refused = pEvent<'refuse', Refusal>(server, 'refuse')
    await expect(RawPeer.connect(server)).rejects.toThrow()
    expect((await refused).error.code).toBe('limit-reached')
  })

  test('does not hold up the close of its server', async () => {
    const server = await createServer({ secret, handshakeTimeout: 60_000 })
    const hello = (await record(server)).fromClient
    await using peer = await RawPeer.connect({ host: server.host, port: server.port })
    await new Promise((resolve) => peer.socket.write(hello.subarray(0, 50), resolve))
    await server.close()
    await peer.ended()
  })
})

describe('a data stream through TLS', () => {
  test('may be reset while its FIN is just being sent', async () => {
    const security = await securityOf([{ secret }])
    await using pair = await connect(security, secret)
    const [accepted, dialled] = await Promise.all([pair.accepted, pair.dialled])
    accepted.resume()
    dialled.write('the last words')
    await once(accepted, 'data')
    dialled.end()
    reset(dialled)
    await once(dialled, 'close')
    expect(pair.socket.destroyed).toBe(true)
  })

  test('may be reset while its peer reads nothing', async () => {
    const security = await securityOf([{ secret }])
    await using pair = await connect(security, secret)
    const [, dialled] = await Promise.all([pair.accepted, pair.dialled])
    while (dialled.writableLength < 1_048_576) dialled.write(Buffer.alloc(65_536))
    dialled.end()
    reset(dialled)
    await once(dialled, 'close').catch(() => {})
    expect(pair.socket.destroyed).toBe(true)
  })

  test('serves 200 visitors at once, each with its own bytes', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ secret })
    await using tunnel = await openTunnel(target.port, { server })
    const requests = Array.from({ length: 200 }, (_, i) => `${i} `.repeat(5_000))
    const replies = await Promise.all(requests.map((request) => ask(tunnel, request)))

    expect(replies.filter((reply, i) => `${reply}` !== requests[i])).toHaveLength(0)
    await vi.waitFor(() => expect(tunnel.connections).toBe(0))
    expect(tunnel.stats).toMatchObject({ connections: 200, rejections: 0 })
  })
})

describe('the key of a secret', () => {
  test('and its identity are those of the documentation', async () => {
    const documented = await readFile(new URL('../docs/protocol.md', import.meta.url), 'utf8')
    const field = (name: string) => new RegExp(`^${name} +(\\S.*)$`, 'm').exec(documented)?.[1]
    const { key, identity } = await presharedKey(field('secret') ?? '')

    expect(field('secret')).toBe(secret)
    expect({ key: key.toString('hex'), identity }).toEqual({ key: field('key'), identity: field('identity') })
    expect(identity).toBe(createHmac('sha256', key).update('pipe-tunnel 1 identity').digest('hex'))
    expect(keyOf(secret)).toEqual({ key, identity })
  })

  test('is derived once', async () => {
    expect(presharedKey(secret)).toBe(presharedKey(secret))
    for (let i = 0; i < 70; i++) presharedKey(secret)
    expect(await presharedKey(secret)).not.toEqual(await presharedKey(`${secret} `))
  })

  test('is not derived, nor TLS loaded, for a server of its own in the same process', async () => {
    const dist = new URL('../dist/index.js', import.meta.url)
    const script = `
      import { openTunnel } from '${dist}'
      const tunnel = await openTunnel(3000)
      console.log(process.moduleLoadList.filter((name) => /tls/i.test(name)))
      await tunnel.close()`
    await using program = start(process.execPath, ['--input-type=module', '-e', script])
    expect((await program.ended()).stdout.trim()).toBe('[]')
  })
})

/** What a client and a server say on a control connection. */
async function record(server: { host: string; port: number }) {
  await using middle = await between(server)
  const tunnel = await openTunnel(3000, { server: at(middle), secret })
  await tunnel.close()
  return middle.seen[0] ?? expect.unreachable()
}

/** What a server with these secrets accepts connections with. */
async function securityOf(secrets: { secret: string }[]): Promise<ServerSecurity> {
  return (await serverSecurity(undefined, secrets)) ?? expect.unreachable()
}

/** A connection of a client with this secret to a server of its own. */
async function connect(security: ServerSecurity, held: string) {
  const { signal } = new AbortController()
  const listener = net.createServer({ allowHalfOpen: true, pauseOnConnect: true })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const incoming = once(listener, 'connection')
  const socket = await visit({ port: (listener.address() as net.AddressInfo).port })
  const [peer] = (await incoming) as [net.Socket]
  peer.on('error', () => {})
  const accepted = acceptTls(peer, security, signal)
  const dialled = dialTls(
    socket,
    (await clientSecurity(undefined, held)) as ClientSecurity,
    { host: '127.0.0.1', port: 0 },
    signal,
  )
  for (const promise of [accepted, dialled]) promise.catch(() => {})
  return {
    socket,
    accepted,
    dialled,
    async [Symbol.asyncDispose]() {
      const closed = once(listener, 'close')
      listener.close()
      socket.destroy()
      peer.destroy()
      await closed
    },
  }
}

const codeOf = (error: TunnelError) => error.code

/** The error that it rejects with. */
function failureOf(opening: Promise<unknown>): Promise<TunnelError> {
  return opening.then(
    () => {
      throw new Error('it opened')
    },
    (error) => error,
  )
}
