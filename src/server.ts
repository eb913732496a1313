import type { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { formatAddress } from './address.js'
import { type Admission, admit } from './auth.js'
import { type ServerChannel, serverChannel } from './channel.js'
import { type CloseOptions, type Connection, Connections, type Rejection, type Stats } from './connection.js'
import { withDeadline } from './deadline.js'
import type { Drop } from './drops.js'
import { Emitter } from './emitter.js'
import { TunnelError, toTunnelError } from './errors.js'
import { type Listener, listenOnAll, type Visitor } from './listener.js'
import { errorFields, violation } from './protocol.js'
import { readServerOptions, type ServerOptions, type Settings } from './server-options.js'
import type { Exchanges, TunnelInfo } from './server-tunnel.js'
import { Session } from './session.js'
import { listenTcp } from './tcp.js'

/** The events of a {@link Server} and what their listeners are called with. */
export interface ServerEvents {
  /** A client opened a tunnel. */
  tunnel: [tunnel: TunnelInfo]
  /** A visitor was joined to its data stream. */
  connection: [connection: Connection, tunnel: TunnelInfo]
  /** A visitor was turned away. */
  reject: [rejection: Rejection, tunnel: TunnelInfo]
  /** Datagrams were dropped. Once a second for each tunnel at the most. */
  drop: [drop: Drop, tunnel: TunnelInfo]
  /** A client was refused: at its login, or later for what it did. */
  refuse: [refusal: Refusal]
  /** The control connection of a client was lost. Its tunnels are kept for a while. */
  disconnect: [loss: Refusal]
  /** A client that was lost is back, and has its tunnels again. */
  reconnect: [client: Visitor]
  /** The server is closed. */
  close: []
}

/** A client that was refused or lost, as events show it. */
export interface Refusal {
  readonly client: Visitor
  readonly error: TunnelError
}

/** The public side of tunnels. */
export interface Server extends EventEmitter<ServerEvents>, AsyncDisposable {
  /** Address that it listens on, the first where there are several. */
  readonly host: string
  /** Port for clients. */
  readonly port: number
  /** Where clients connect, without the secret: `pipe://127.0.0.1:8910`. */
  readonly address: string
  /** What clients must hold. */
  readonly secret: string | undefined
  /** How many visitors are inside now. */
  readonly connections: number
  /** What was counted since it was started. */
  readonly stats: Stats
  /** The tunnels that are open now. */
  readonly tunnels: readonly TunnelInfo[]
  /**
   * Closes all tunnels and resolves when every socket is closed. Visitors inside get `grace` milliseconds (default 0)
   * to finish. Every call gives the same promise; one without `grace` after one that had some cuts at once.
   */
  close(options?: CloseOptions): Promise<void>
}

/**
 * Starts a tunnel server; resolves when it listens. Rejects with `invalid-option`, `insecure-address`,
 * `port-taken`, `address-unavailable`, `timeout` or `aborted`.
 */
export async function createServer(options: ServerOptions = {}): Promise<Server> {
  const settings = readServerOptions(options)
  const { hosts, port, unref, timeout, signal } = settings
  const where = hosts.map((host) => formatAddress({ host, port })).join(' and ')
  return withDeadline(`listening on ${where}`, { timeout, signal }, async (aborted) => {
    const listener = await listenOnAll(
      settings,
      (socket, client) => server.accept(socket, client),
      (address, take) => listenTcp({ ...address, unref, aborted }, take),
    )
    // No client is handed over before the event loop turns, and by then the server is there.
    const server = new TunnelServer(listener, settings)
    return server
  })
}

class TunnelServer extends Emitter<ServerEvents> implements Server {
  readonly host: string
  readonly port: number
  readonly address: string
  readonly #listener: Listener
  readonly #settings: Settings
  readonly #newcomers = new Set<ServerChannel>()
  readonly #sessions = new Set<Session>()
  readonly #resumable = new Map<string, Session>()
  readonly #tunnels = new Set<TunnelInfo>()
  readonly #exchanges: Exchanges = new Map()
  /** Joined visitors, of tunnels open and closed. */
  readonly #connections = new Connections()

  constructor(listener: Listener, settings: Settings) {
    super()
    this.host = listener.host
    this.port = listener.port
    this.address = `pipe://${formatAddress({ host: settings.publicHost ?? this.host, port: this.port })}`
    this.#listener = listener
    this.#settings = settings
  }

  get secret(): string | undefined {
    return this.#settings.secret
  }

  get connections(): number {
    return this.#connections.size
  }

  get stats(): Stats {
    return this.#connections.stats
  }

  get tunnels(): readonly TunnelInfo[] {
    return [...this.#tunnels]
  }

  close(options: CloseOptions = {}): Promise<void> {
    return this.#connections.close(options, (grace) => this.#shut(grace))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Takes a new connection, whose first message tells what it is. */
  async accept(stream: Duplex, client: Visitor): Promise<void> {
    const channel = serverChannel(stream)
    try {
      const first = await this.#greet(channel)
      switch (first?.type) {
        case 'hello':
          return await this.#serve(channel, client, first.admission)
        case 'exchange':
          return this.#join(channel, first.id)
        case undefined:
          // Somebody looked whether the port is open.
          return void channel.finish()
        default:
          throw violation(`began with ${first?.type}`)
      }
    } catch (caught) {
      const error = toTunnelError(caught, 'connection-lost', 'the connection broke')
      refuse(channel, error)
      this.tell('refuse', { client, error })
    }
  }

  /** The first message of a connection, after the login where it is `hello`. */
  async #greet(channel: ServerChannel) {
    const { secret, handshakeTimeout, newcomers } = this.#settings
    if (this.#newcomers.size >= newcomers) {
      throw new TunnelError('limit-reached', `${newcomers} connections are logging in already: try again`)
    }
    this.#newcomers.add(channel)
    const timer = setTimeout(() => {
      const message = `the connection did not log in within ${handshakeTimeout} ms`
      channel.interrupt(new TunnelError('timeout', message))
    }, handshakeTimeout).unref()
    try {
      const first = await channel.receive()
      return first?.type === 'hello' ? { ...first, admission: await admit(channel, first, secret) } : first
    } finally {
      clearTimeout(timer)
      this.#newcomers.delete(channel)
    }
  }

  /** Serves a client until its control connection ends. */
  async #serve(channel: ServerChannel, client: Visitor, { proof, resume }: Admission): Promise<void> {
    const session = this.#resumable.get(resume ?? '') ?? this.#newSession()
    const running = session.run(channel, client, proof)
    if (this.#connections.closing) session.close(serverClosed())
    const error = await running
    if (error && !this.#connections.closing) this.tell('refuse', { client, error })
  }

  #newSession(): Session {
    const session: Session = new Session({
      ...this.#settings,
      exchanges: this.#exchanges,
      resumable: this.#resumable,
      tally: this.#connections,
      makeRoom: (address, client) => [...this.#sessions].some((one) => one.makeRoom(address, client)),
      onTunnel: (tunnel) => this.#addTunnel(tunnel),
      onReject: (rejection, tunnel) => {
        this.#connections.rejections++
        this.tell('reject', rejection, tunnel)
      },
      onDrop: (drop, tunnel) => this.tell('drop', drop, tunnel),
      onConnection: (connection, tunnel, ...streams) => {
        this.#connections.add(connection, ...streams)
        this.tell('connection', connection, tunnel)
      },
      cutSilent: (connections, timeout) => this.#connections.cutSilent(connections, timeout),
      onLost: (client, error) => this.tell('disconnect', { client, error }),
      onBack: (client) => this.tell('reconnect', client),
      onEnd: () => this.#sessions.delete(session),
    })
    this.#sessions.add(session)
    return session
  }

  #addTunnel(tunnel: TunnelInfo): void {
    this.#tunnels.add(tunnel)
    tunnel.closed.then(() => this.#tunnels.delete(tunnel))
    this.tell('tunnel', tunnel)
  }

  /** A data stream for the visitor with this id, if it still waits. */
  #join(channel: ServerChannel, id: string): void {
    const join = this.#exchanges.get(id)
    if (!join) {
      const message = 'no visitor waits under this id: it has left, was joined, or waited for too long'
      refuse(channel, new TunnelError('exchange-expired', message))
      return
    }
    channel.send({ type: 'joined' })
    join(channel.release())
  }

  async #shut(grace: number): Promise<void> {
    const listenerClosed = this.#listener.close()
    for (const channel of this.#newcomers) channel.interrupt(serverClosed())
    for (const session of this.#sessions) session.close(serverClosed())
    await this.#connections.finish(grace)
    await listenerClosed
    this.tell('close')
  }
}

function refuse(channel: ServerChannel, error: TunnelError): void {
  channel.send({ type: 'refuse', ...errorFields(error) })
  channel.finish()
}

function serverClosed(): TunnelError {
  return new TunnelError('server-closed', 'the server was closed')
}
