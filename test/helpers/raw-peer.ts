/**
 * Peers that speak the wire by hand, as docs/protocol.md describes it. They share no code with what they test,
 * and say whatever a test wants.
 */
import { createHmac, randomBytes, scryptSync } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
import { pEvent } from 'p-event'
import { visit } from './visitor.js'

/** Longest wait for the other side, in milliseconds. */
const DEADLINE = 20_000

/** Where a raw peer connects: a server, with what it says of itself, or a public address. */
interface Place {
  host: string
  port: number
  secret?: string | undefined
  tls?: unknown
}

/** A message as its JSON says it. */
export type Wire = Record<string, unknown>

/** One end of a connection: a client's, a server's, or a data stream's. */
export class RawPeer implements AsyncDisposable {
  /** What it speaks on; a TLS socket, where it encrypts. */
  readonly socket: net.Socket
  /** The TCP socket. */
  readonly #carrier: net.Socket
  #chunks: Buffer[] = []
  #size = 0
  #ended: 'end' | 'reset' | undefined

  constructor(socket: net.Socket, carrier = socket) {
    this.socket = socket
    this.#carrier = carrier
    socket.on('data', (chunk) => {
      this.#chunks.push(chunk)
      this.#size += chunk.length
    })
    socket.on('end', () => {
      this.#ended ??= 'end'
    })
    for (const event of ['error', 'close']) {
      socket.on(event, () => {
        this.#ended ??= 'reset'
      })
    }
    carrier.setNoDelay()
  }

  /** Connected to a server's port for clients, by TLS where the server wants that, or to a public address. */
  static async connect(address: Place): Promise<RawPeer> {
    const socket = await visit(address)
    const { secret, tls: how } = address
    if (secret === undefined || how !== undefined) return new RawPeer(socket)
    const { key, identity } = keyOf(secret)
    const secure = tls.connect({
      socket,
      ...pskOptions,
      pskCallback: () => ({ psk: key, identity }),
      checkServerIdentity: () => new Error('it shows a certificate'),
    })
    await once(secure, 'secureConnect')
    return new RawPeer(secure, socket)
  }

  /** What a server accepted, which holds this secret, after the TLS handshake. */
  static async accept(socket: net.Socket, secret: string): Promise<RawPeer> {
    const { key, identity } = keyOf(secret)
    const pskCallback = (_: tls.TLSSocket, named: string) => (named === identity ? key : null)
    const options = { isServer: true, secureContext: tls.createSecureContext(pskOptions), pskCallback }
    const secure = new tls.TLSSocket(socket, options)
    await once(secure, 'secure')
    return new RawPeer(secure, socket)
  }

  /** The word that ties a proof to this connection, where it is encrypted (RFC 9266). */
  get binding(): string | undefined {
    if (!(this.socket instanceof tls.TLSSocket)) return undefined
    return this.socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0)).toString('hex')
  }

  /** A data stream for this exchange, which has not been answered yet. */
  static async exchange(server: Place, id: unknown): Promise<RawPeer> {
    return (await RawPeer.connect(server)).send({ type: 'exchange', id })
  }

  /** A data stream that is joined to the visitor of this exchange. */
  static async dataStream(server: Place, id: unknown): Promise<RawPeer> {
    const peer = await RawPeer.exchange(server, id)
    await peer.receive('joined')
    return peer
  }

  /** Sends messages in one write. */
  send(...messages: Wire[]): this {
    return this.write(Buffer.concat(messages.map(frame)))
  }

  /** Sends bytes; a text is hex. */
  write(bytes: Buffer | string): this {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'hex') : bytes)
    return this
  }

  /** Sends a FIN. */
  end(): this {
    this.socket.end()
    return this
  }

  /** So many bytes. */
  async read(size: number): Promise<Buffer> {
    while (this.#size < size) {
      if (this.#ended) throw new Error(`${this.#ended} after ${this.#size} of ${size} bytes`)
      await this.#next('data')
    }
    const { unread } = this
    this.#chunks = [unread.subarray(size)]
    this.#size -= size
    return unread.subarray(0, size)
  }

  /** The next message, which has to be of this type. Heartbeats are passed over where none is due. */
  async receive(type: string): Promise<Wire> {
    for (;;) {
      const message = await this.receiveAny()
      if (message.type === type) return message
      if (message.type !== 'heartbeat') throw new Error(`got ${JSON.stringify(message)} instead of ${type}`)
    }
  }

  /** The next message, whatever it is. */
  async receiveAny(): Promise<Wire> {
    const size = (await this.read(4)).readUInt32BE()
    return JSON.parse((await this.read(size)).toString())
  }

  /** Why the other side refuses this peer. It has to end the connection behind it. */
  async refusal(): Promise<Wire> {
    const refusal = await this.receive('refuse')
    if ((await this.ended()) !== 'end') throw new Error('reset instead of ended')
    if (this.#size > 0) throw new Error(`sent ${this.unread} behind refuse`)
    this.end()
    return refusal
  }

  /** How the other side ends the connection: by FIN or by RST. */
  async ended(): Promise<'end' | 'reset'> {
    while (!this.#ended) await this.#next('close')
    return this.#ended
  }

  /** Bytes that came and that nobody has read. */
  get unread(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0] ?? Buffer.alloc(0)
  }

  /** Logs in as a client does, with the key of a session where it takes one over, and gives back the server's `welcome`. */
  async logIn(secret?: string, resume?: unknown): Promise<Wire> {
    const mine = nonce()
    this.send({ type: 'hello', version: 1, nonce: mine })
    const challenge = await this.receive('challenge')
    this.send({
      type: 'login',
      proof: secret === undefined ? null : prove('client', secret, mine, challenge.nonce, this.binding),
      resume,
    })
    return this.receive('welcome')
  }

  /** Asks for a tunnel as a client does, and gives back its public address. */
  async forward(tunnel = 1): Promise<{ host: string; port: number }> {
    this.send({ type: 'forward', tunnel, protocol: 'tcp', port: 0 })
    const { host, port } = await this.receive('forwarded')
    return { host: String(host), port: Number(port) }
  }

  /** Logs a client in as a server does. */
  async admit(secret?: string, times: Wire = {}): Promise<this> {
    const hello = await this.receive('hello')
    const mine = nonce()
    this.send({ type: 'challenge', nonce: mine, secret: secret !== undefined })
    await this.receive('login')
    const proof = secret === undefined ? null : prove('server', secret, hello.nonce, mine, this.binding)
    return this.send({ type: 'welcome', proof, heartbeatTimeout: 60_000, exchangeTimeout: 60_000, ...times })
  }

  /** Closes at once; by RST where that is wanted. */
  async close(how: 'end' | 'reset' = 'end'): Promise<void> {
    if (this.socket.closed) return
    const closed = once(this.socket, 'close')
    if (how === 'reset') this.#carrier.resetAndDestroy()
    else this.socket.destroy()
    await closed.catch(() => {})
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Waits for this or for the end. */
  async #next(event: 'data' | 'close'): Promise<void> {
    await pEvent(this.socket, [event, 'end', 'error', 'close'], { rejectionEvents: [], timeout: DEADLINE })
  }
}

/** A server that says what a test wants: each of its connections is a raw peer. */
export interface FakeServer extends AsyncDisposable {
  readonly host: string
  readonly port: number
  /** What clients take its secret to be. */
  readonly secret: string | undefined
  /** It does not encrypt, unless that was asked for. */
  readonly tls: false | undefined
  /** The next connection. */
  accept(): Promise<RawPeer>
  /** Takes no more connections. */
  refuse(): void
}

export async function fakeServer(secret?: string, { encrypts = false } = {}): Promise<FakeServer> {
  const accepted: RawPeer[] = []
  const all: RawPeer[] = []
  const listener = net.createServer({ allowHalfOpen: true }, async (socket) => {
    const peer = encrypts && secret ? await RawPeer.accept(socket, secret) : new RawPeer(socket)
    accepted.push(peer)
    all.push(peer)
    listener.emit('peer')
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  return {
    host: '127.0.0.1',
    port: (listener.address() as net.AddressInfo).port,
    secret,
    tls: encrypts ? undefined : false,
    async accept() {
      for (;;) {
        const peer = accepted.shift()
        if (peer) return peer
        await pEvent(listener, 'peer', { timeout: DEADLINE })
      }
    },
    refuse() {
      listener.close()
    },
    async [Symbol.asyncDispose]() {
      listener.close()
      for (const peer of all) await peer.close()
      if (listener.listening) await once(listener, 'close')
    },
  }
}

/** A message's bytes. */
export function frame(message: Wire): Buffer {
  const json = Buffer.from(JSON.stringify(message))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(json.length)
  return Buffer.concat([length, json])
}

export const nonce = () => randomBytes(32).toString('hex')

/** The proof of one side. */
export function prove(
  side: 'client' | 'server',
  secret: string,
  client: unknown,
  server: unknown,
  binding?: string,
): string {
  const words = ['pipe-tunnel', 1, side, client, server, ...(binding ? [binding] : [])]
  return createHmac('sha256', secret).update(words.join(' ')).digest('hex')
}

const keys = new Map<string, { key: Buffer; identity: string }>()

/** What a secret becomes in TLS. */
export function keyOf(secret: string): { key: Buffer; identity: string } {
  const known = keys.get(secret)
  if (known) return known
  const key = scryptSync(secret, 'pipe-tunnel 1 key', 32, { N: 32_768, r: 8, p: 1, maxmem: 2 ** 26 })
  const made = { key, identity: createHmac('sha256', key).update('pipe-tunnel 1 identity').digest('hex') }
  keys.set(secret, made)
  return made
}

const pskOptions = {
  minVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256',
} as const
