import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { Duplex, PassThrough } from 'node:stream'
import { describe, expect, test, vi } from 'vitest'
import { dialTls } from '../src/dialler.js'
import { type RelayEnd, type RelayOptions, relay } from '../src/relay.js'
import { keepReading, reset } from '../src/stream.js'
import { acceptTls } from '../src/tls-accept.js'
import {
  type ClientSecurity,
  clientSecurity,
  type ServerSecurity,
  serverSecurity,
} from '../src/tls-options.js'
import { readAll, silentTarget, tcpTarget } from './helpers/targets.js'
import { ending, settled, visit } from './helpers/visitor.js'
import { sessionPair } from './helpers/yamux.js'

/** A connected pair: `inner` is the relay's end, `outer` that of a visitor or a target. */
interface Pair extends AsyncDisposable {
  inner: net.Socket
  outer: net.Socket
}

async function socketPair(): Promise<Pair> {
  const listener = await tcpTarget(() => {})
  const accepted = once(listener.server, 'connection')
  const outer = await visit({ host: '127.0.0.1', port: listener.port })
  const [inner] = (await accepted) as [net.Socket]
  return { outer, inner, [Symbol.asyncDispose]: listener[Symbol.asyncDispose] }
}

const secret = 'correct horse battery staple'
const { signal } = new AbortController()
const security = {
  server: (await serverSecurity(undefined, [{ secret }])) as ServerSecurity,
  client: (await clientSecurity(undefined, secret)) as ClientSecurity,
}

/** The same on a Node that reads each chunk into memory of its own. */
async function chunkedPair(): Promise<Pair> {
  const pair = await socketPair()
  const { _handle } = pair.inner as unknown as { _handle: object }
  Object.assign(_handle, { useUserBuffer: undefined })
  return pair
}

/** The same with TLS over it: the relay's end is that of a server. */
async function acceptedTlsPair(): Promise<Pair> {
  const pair = await socketPair()
  const [inner, outer] = await Promise.all([
    acceptTls(pair.inner, security.server, signal),
    dialTls(pair.outer, security.client, { host: '127.0.0.1', port: 0 }, signal),
  ])
  return { ...pair, inner: inner as net.Socket, outer: outer as net.Socket }
}

/** The same with TLS over it: the relay's end is that of a client. */
async function dialledTlsPair(): Promise<Pair> {
  const { inner, outer, ...rest } = await acceptedTlsPair()
  return { inner: outer, outer: inner, ...rest }
}

/** A stream of a session, which is destroyed with it. */
async function yamuxPair(): Promise<Pair> {
  const sessions = await sessionPair()
  const outer = sessions.client.open()
  outer.write('')
  const inner = await sessions.accept()
  return {
    inner: inner as Duplex as net.Socket,
    outer: outer as Duplex as net.Socket,
    [Symbol.asyncDispose]: sessions[Symbol.asyncDispose],
  }
}

describe.each([
  ['TCP to TCP', socketPair, socketPair],
  ['TCP to TCP in chunks', chunkedPair, chunkedPair],
  ['TCP to TLS', socketPair, acceptedTlsPair],
  ['TLS to TCP', dialledTlsPair, socketPair],
  ['TCP to yamux', socketPair, yamuxPair],
  ['yamux to TCP', yamuxPair, socketPair],
])('relay from %s', (_, leftPair, rightPair) => {
  /**
   * A relay between two real connections: what is written to `left` comes out at `right`, and the other way
   * round. Both are ends that a visitor and a target would hold.
   */
  async function relayed(options: RelayOptions = {}) {
    const a = await leftPair()
    const b = await rightPair()
    const end: Promise<RelayEnd> = relay(a.inner, b.inner, options)
    return {
      left: a.outer,
      right: b.outer,
      end,
      async [Symbol.asyncDispose]() {
        a.outer.destroy()
        b.outer.destroy()
        await end
        await Promise.all([a[Symbol.asyncDispose](), b[Symbol.asyncDispose]()])
      },
    }
  }

  test('bytes pass both ways and are counted', async () => {
    await using pair = await relayed()
    pair.left.end('question')
    pair.right.end('the answer')

    expect((await readAll(pair.right)).toString()).toBe('question')
    expect((await readAll(pair.left)).toString()).toBe('the answer')
    expect(await pair.end).toEqual({ bytesIn: 8, bytesOut: 10 })
  })

  test('bytes pass as they were, through several relays at once and to readers that pause', async () => {
    const bytes = randomBytes(8_000_000)
    async function transfer(from: net.Socket, to: net.Socket) {
      from.end(bytes)
      const got: Buffer[] = []
      to.on('data', (chunk) => {
        got.push(chunk)
        to.pause()
        setImmediate(() => to.resume())
      })
      await once(to, 'end')
      expect(Buffer.concat(got).equals(bytes)).toBe(true)
    }
    async function transferBothWays() {
      await using pair = await relayed()
      await Promise.all([transfer(pair.left, pair.right), transfer(pair.right, pair.left)])
      expect(await pair.end).toEqual({ bytesIn: bytes.length, bytesOut: bytes.length })
    }
    await Promise.all([transferBothWays(), transferBothWays()])
  })

  test('what was read before comes first, and a FIN behind it last', async () => {
    const a = await leftPair()
    const b = await rightPair()
    await using _a = a
    await using _b = b
    a.inner.once('readable', () => {})
    a.outer.end('question')
    await vi.waitFor(() => expect(a.inner.readableLength).toBe(8))

    const end = relay(a.inner, b.inner)

    b.outer.end('answer')
    expect((await readAll(b.outer)).toString()).toBe('question')
    expect((await readAll(a.outer)).toString()).toBe('answer')
    expect(await end).toEqual({ bytesIn: 8, bytesOut: 6 })
  })

  test('what was read before is not overtaken by what comes behind it, nor written over', async () => {
    const bytes = randomBytes(8_000_000)
    const a = await leftPair()
    const b = await rightPair()
    await using _a = a
    await using _b = b
    a.inner.once('readable', () => {})
    a.outer.end(bytes)
    await vi.waitFor(() => expect(a.inner.readableLength).toBeGreaterThan(0))

    const end = relay(a.inner, b.inner)

    expect((await readAll(b.outer)).equals(bytes)).toBe(true)
    b.outer.end()
    expect(await end).toEqual({ bytesIn: bytes.length, bytesOut: 0 })
  })

  test('a FIN passes on while the other direction goes on', async () => {
    await using pair = await relayed()
    pair.left.end('question')
    expect((await readAll(pair.right)).toString()).toBe('question')

    pair.right.write('first, ')
    await once(pair.left, 'data')
    pair.right.end('last')

    expect((await readAll(pair.left)).toString()).toBe('last')
    expect(await pair.end).toEqual({ bytesIn: 8, bytesOut: 11 })
  })

  test('a FIN behind no bytes at all passes on', async () => {
    const a = await leftPair()
    const b = await rightPair()
    await using _a = a
    await using _b = b
    // Read before the relay starts, as by whoever waited for the exchange.
    a.inner.on('readable', () => a.inner.read())
    a.outer.end()
    await once(a.inner, 'end')

    const end = relay(a.inner, b.inner)

    expect(await ending(b.outer)).toBe('end')
    b.outer.end()
    expect(await end).toEqual({ bytesIn: 0, bytesOut: 0 })
  })

  test.each(['left', 'right'] as const)('a reset of the %s side resets the other', async (side) => {
    await using pair = await relayed()
    const other = side === 'left' ? pair.right : pair.left
    pair[side].write('half a')
    await once(other, 'data')

    reset(pair[side])

    expect(await ending(other)).toBe('reset')
    expect(await pair.end).toMatchObject({ error: { code: 'ECONNRESET' } })
  })

  test('a side that was broken before the relay began resets the other', async () => {
    const a = await leftPair()
    const b = await rightPair()
    await using _a = a
    await using _b = b
    a.inner.destroy()
    await once(a.inner, 'close')

    const end = relay(a.inner, b.inner)

    expect(await ending(b.outer)).toBe('reset')
    expect(await end).toMatchObject({ bytesIn: 0, bytesOut: 0, error: { code: 'closed' } })
  })

  test('a reader that stalls stops the writer, and gets everything when it reads on', async () => {
    await using pair = await relayed()
    const chunk = Buffer.alloc(65_536, 'x')
    let written = 0
    const writeUntilFull = () => {
      for (let goesOn = true; goesOn && written < 512 * chunk.length; written += chunk.length) {
        goesOn = pair.left.write(chunk)
      }
    }
    pair.left.on('drain', writeUntilFull)
    pair.right.pause()
    writeUntilFull()

    // The kernel's buffers hold a few MiB; then nothing moves any more.
    const stalledAt = await settled(() => written - pair.left.writableLength)
    expect(stalledAt).toBeLessThan(24 * 1_048_576)

    let read = 0
    pair.right.on('data', (bytes) => {
      read += bytes.length
    })
    pair.right.resume()
    await vi.waitFor(() => expect(written).toBe(512 * chunk.length), { timeout: 30_000 })
    pair.left.end()
    await once(pair.right, 'end')
    expect(read).toBe(written)
  })

  test('a half-closed pair ends after its timeout of silence', async () => {
    await using pair = await relayed({ halfCloseTimeout: 50 })
    pair.left.end('question')

    expect(await ending(pair.left)).toBe('reset')
    expect(await pair.end).toMatchObject({ bytesIn: 8, error: { code: 'timeout' } })
  })

  test('a pair of which a stage has ended one direction ends after its timeout of silence', async () => {
    const stage = new PassThrough()
    await using pair = await relayed({ halfCloseTimeout: 50, through: { in: [stage], out: [] } })
    stage.push(null)

    expect(await ending(pair.right)).toBe('end')
    expect(await pair.end).toMatchObject({ bytesIn: 0, error: { code: 'timeout' } })
  })

  test('a half-closed pair lives on while bytes still flow', async () => {
    await using pair = await relayed({ halfCloseTimeout: 250 })
    pair.left.end()
    const start = performance.now()
    // Each answer waits for the one before, so that a slow machine slows both sides alike.
    while (performance.now() - start < 600) {
      pair.right.write('still here')
      await once(pair.left, 'data')
    }
    pair.right.end()

    expect((await pair.end).error).toBeUndefined()
  })

  test('an open pair may be silent for as long as it likes', async () => {
    await using pair = await relayed({ halfCloseTimeout: 1 })
    pair.right.pipe(pair.right)
    // A hundred round trips take longer than the timeout.
    let read = 0
    for (let i = 0; i < 100; i++) {
      pair.left.write('ping')
      const [chunk] = await once(pair.left, 'data')
      read += chunk.length
    }
    expect(read).toBe(400)
  })

  test('a reset behind bytes is never taken for the end', async () => {
    for (let i = 0; i < 200; i++) {
      await using pair = await relayed()
      pair.right.resume()
      pair.left.write('half of a request')
      reset(pair.left)
      // What the other side sees is not asked: in Node it is as easily fooled as the relay was.
      expect((await pair.end).error).toBeDefined()
    }
  })

  test('a reset behind bytes is not passed on as an end that is followed by a reset', async () => {
    for (let i = 0; i < 20; i++) {
      const a = await socketPair()
      const b = await socketPair()
      await using _a = a
      await using _b = b
      const end = relay(a.inner, b.inner)
      a.outer.write('half of a request')
      a.outer.resetAndDestroy()

      expect((await end).error).toBeDefined()
      expect(b.inner.writableEnded).toBe(false)
      b.outer.destroy()
    }
  })

  test('a write that fails leaves the answer that is still to be read', async () => {
    await using pair = await relayed()
    // Nobody reads the upload, and the answer comes with a reset behind it.
    pair.right.pause()
    const upload = Buffer.alloc(8_000_000)
    pair.left.write(upload)
    await vi.waitFor(() => expect(pair.right.readableLength).toBeGreaterThan(0))
    const got: Buffer[] = []
    pair.left.on('data', (chunk) => got.push(chunk))
    pair.right.end('too large')
    await once(pair.right, 'finish')
    pair.right.destroy()

    expect((await pair.end).error).toBeDefined()
    await vi.waitFor(() => expect(Buffer.concat(got).toString()).toBe('too large'))
  })
})

describe('relay', () => {
  test('a socket that reads on after a write that failed gives what came before the reset', async () => {
    const listener = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }).listen(0, '127.0.0.1')
    await once(listener, 'listening')
    const { port } = listener.address() as net.AddressInfo
    const peer = net.connect({ host: '127.0.0.1', port })
    const [socket] = (await once(listener, 'connection')) as [net.Socket]
    listener.close()
    socket.on('error', () => {})
    const failure = keepReading(socket)
    await new Promise((resolve) => peer.write('too large', resolve))
    peer.resetAndDestroy()
    await once(peer, 'close')

    await new Promise((resolve) => socket.write('upload', resolve))
    expect(failure.error).toMatchObject({ code: expect.stringMatching(/^(EPIPE|ECONNRESET)$/) })
    expect(`${await once(socket.resume(), 'data')}`).toBe('too large')
    socket.destroy()
  })

  test('a socket whose FIN is just being sent can be reset', async () => {
    await using target = await silentTarget()
    const socket = await visit({ host: '127.0.0.1', port: target.port })
    socket.end()
    reset(socket)
    await once(socket, 'close')
  })

  test('any byte streams will do, and their errors are not thrown', async () => {
    const broken = new Error('broken on purpose')
    const left = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done(broken) })
    const right = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })
    const end = relay(left, right)
    right.push('to the left')

    expect(await end).toMatchObject({ bytesOut: 11, error: broken })
    expect(right.destroyed).toBe(true)
  })

  test('a target that neither reads nor ends is left when the visitor resets', async () => {
    await using target = await silentTarget()
    const pair = await socketPair()
    await using _pair = pair
    const toTarget = net.connect({ port: target.port, host: '127.0.0.1', allowHalfOpen: true })
    const end = relay(pair.inner, toTarget)
    pair.outer.write('anybody there?')
    await once(toTarget, 'connect')
    pair.outer.resetAndDestroy()

    expect((await end).error).toMatchObject({ code: 'ECONNRESET' })
    await vi.waitFor(() => expect(toTarget.destroyed).toBe(true))
  })
})
