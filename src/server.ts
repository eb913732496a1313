import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { formatAddress } from './address.js'
import { type Admission, admit } from './auth.js'
import { LINGER, type ServerChannel, serverChannel } from './channel.js'
import { type CloseOptions, type Connection, Connections, type Rejection, type Stats } from './connection.js'
import { untilAborted, whenAborted, withDeadline } from './deadline.js'
import { Reserve } from './descriptors.js'
import { Door, type Newcomer } from './door.js'
import type { Drop } from './drops.js'
import { Emitter } from './emitter.js'
import { TunnelError, toTunnelError } from './errors.js'
import { secureAccepted } from './link.js'
import { type Listener, listenOnAll, type Visitor } from './listener.js'
import { errorFields, violation } from './protocol.js'
import { type Permit, Secrets, secretRevoked } from './secrets.js'
import { readServerOptions, type ServerOptions, type Settings } from './server-options.js'
import type { Exchanges, TunnelInfo } from './server-tunnel.js'
import { Session } from './session.js'
import { reset } from './stream.js'
import { listenTcp } from './tcp.js'
import { type ServerSecurity, serverSecurity } from './tls-options.js'

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
  /** Name of the secret that it holds, where it has shown that. */
  readonly secretName: string | undefined
  /** How many logins from its address have failed of late, by a wrong secret. */
  readonly failures: number
}

/** The public side of tunnels. */
export interface Server extends EventEmitter<ServerEvents>, AsyncDisposable {
  /** Address that it listens on, the first where there are several. */
  readonly host: string
  /** Port for clients. */
  readonly port: number
  /** Where clients connect, without the secret: `pipe://127.0.0.1:8910`. */
  readonly address: string
  /** What clients must hold: the secret named `'default'`, where there is one. */
  readonly secret: string | undefined
  /** How clients have to connect, as the option of `openTunnel` says it; undefined stands for TLS by the secret. */
  readonly tls: boolean | undefined
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
  /**
   * Takes a secret back, by its name, at once and for as long as the server runs: its clients are refused, their tunnels
   * closed, and visitors inside are cut. Throws `invalid-option` where there is none of that name.
   */
  revoke(name: string): void
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
    const security = await untilAborted(serverSecurity(settings.tls, settings.secrets), aborted)
    const listener = await listenOnAll<Socket>(
      settings,
      (socket, client) => server.accept(socket, client),
      (address, take) => listenTcp({ ...address, unref, aborted }, take),
    )
    // No client is handed over before the event loop turns, and by then the server is there.
    const server = new TunnelServer(listener, settings, security)
    return server
  })
}

/**
 * Connections that are not wanted and get a moment to read why, at a time. More are ended at once, so that a flood of
 * them can't hold more sockets than this.
 */
const MAX_LINGERING = 256

class TunnelServer extends Emitter<ServerEvents> implements Server {
  readonly host: string
  readonly port: number
  readonly address: string
  readonly #listener: Listener
  readonly #settings: Settings
  readonly #secrets: Secrets
  readonly #door: Door
  readonly #security: ServerSecurity | undefined
  readonly #newcomers = new Set<AbortController>()
  #lingering = 0
  /** With what makes the door forget where their clients come from. */
  readonly #sessions = new Map<Session, () => void>()
  readonly #resumable = new Map<string, Session>()
  readonly #tunnels = new Set<TunnelInfo>()
  readonly #exchanges: Exchanges = new Map()
  readonly #reserve = new Reserve()
  /** Joined visitors, of tunnels open and closed. */
  readonly #connections = new Connections()

  constructor(listener: Listener, settings: Settings, security: ServerSecurity | undefined) {
    super()
    this.host = listener.host
    this.port = listener.port
    this.address = `pipe://${formatAddress({ host: settings.publicHost ?? this.host, port: this.port })}`
    this.#listener = listener
    this.#settings = settings
    this.#secrets = new Secrets(settings.secrets)
    this.#door = new Door(settings)
    this.#security = security
  }

  get secret(): string | undefined {
    return this.#secrets.main
  }

  get tls(): boolean | undefined {
    if (!this.#security) return false
    return this.#security.keys ? undefined : true
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

  revoke(name: string): void {
    this.#secrets.revoke(name)
    for (const session of this.#sessions.keys()) {
      if (session.secretName === name) session.close(secretRevoked())
    }
  }

  /** Takes a new connection, whose first message tells what it is. */
  async accept(socket: Socket, client: Visitor): Promise<void> {
    // One that is to be encrypted has no channel yet, and who refuses it closes it.
    let channel = this.#security ? undefined : serverChannel(socket)
    this.#reserve.spend()
    try {
      const first = await this.#asNewcomer(socket, client, async (newcomer, aborted) => {
        channel ??= serverChannel(await secureAccepted(socket, this.#security, aborted))
        return this.#greet(channel, newcomer, aborted)
      })
      if (!channel) return
      switch (first?.type) {
        case 'hello':
          return await this.#serve(channel, client, first.admission)
        case 'exchange':
          return this.#join(channel, first.id)
        case undefined:
          // Somebody looked whether the port is open.
          return await this.#dismiss(channel)
        default:
          throw violation(`began with ${first?.type}`)
      }
    } catch (caught) {
      const error = toTunnelError(caught, 'connection-lost', 'the connection broke')
      if (channel) this.#dismiss(channel, error)
      if (error.code === 'secret-wrong') this.#door.fail(client.address)
      this.tell('refuse', this.#refusal(client, error))
    }
  }

  /** Does what a connection may do that has not said what it is, as far as there is room and time for it. */
  async #asNewcomer<T>(
    socket: Socket,
    { address }: Visitor,
    work: (newcomer: Newcomer, aborted: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { handshakeTimeout } = this.#settings
    const controller = new AbortController()
    let newcomer: Newcomer
    try {
      newcomer = this.#door.enter(address)
    } catch (error) {
      if (this.#security) reset(socket)
      throw error
    }
    this.#newcomers.add(controller)
    const timer = setTimeout(() => {
      const message = `the connection did not log in within ${handshakeTimeout} ms`
      controller.abort(new TunnelError('timeout', message))
    }, handshakeTimeout + newcomer.pause).unref()
    try {
      // Where it may be a data stream, only a login waits.
      if (!newcomer.isKnown) await newcomer.wait()
      return await work(newcomer, controller.signal)
    } finally {
      clearTimeout(timer)
      this.#newcomers.delete(controller)
      newcomer.leave()
    }
  }

  /** The first message of a connection, after the login where it is `hello`. */
  async #greet(channel: ServerChannel, newcomer: Newcomer, aborted: AbortSignal) {
    const forget = whenAborted(aborted, (reason) => channel.interrupt(reason))
    try {
      const first = await channel.receive()
      if (first?.type !== 'hello') return first
      if (newcomer.isKnown) await newcomer.wait()
      return { ...first, admission: await admit(channel, first, this.#secrets) }
    } finally {
      forget()
    }
  }

  /** Serves a client until its control connection ends. */
  async #serve(channel: ServerChannel, client: Visitor, admission: Admission): Promise<void> {
    const { permit, proof } = admission
    const session = this.#sessionOf(admission)
    this.#sessions.get(session)?.()
    this.#sessions.set(session, this.#door.addClient(client.address, session))
    const running = session.run(channel, client, proof)
    if (this.#connections.closing) session.close(serverClosed())
    if (permit.isRevoked) session.close(secretRevoked())
    const error = await running
    if (error && !this.#connections.closing) this.tell('refuse', this.#refusal(client, error, permit.name))
  }

  #refusal(client: Visitor, error: TunnelError, secretName?: string): Refusal {
    return { client, error, secretName, failures: this.#door.failures(client.address) }
  }

  /** The session that the client takes over, if it is one by the same secret, or else a new one. */
  #sessionOf({ permit, resume }: Admission): Session {
    const { maxClients } = this.#settings
    const kept = this.#resumable.get(resume ?? '')
    if (kept && kept.secretName === permit.name) return kept
    if (this.#sessions.size < maxClients) return this.#newSession(permit)
    const message = `${maxClients} clients are logged in already: try again later, or raise limits.clients`
    throw new TunnelError('limit-reached', message)
  }

  #newSession(permit: Permit): Session {
    const session: Session = new Session({
      ...this.#settings,
      permit,
      exchanges: this.#exchanges,
      reserve: this.#reserve,
      resumable: this.#resumable,
      tally: this.#connections,
      makeRoom: (...asked) => [...this.#sessions.keys()].some((one) => one.makeRoom(...asked)),
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
      cutSilent: (connections, timeout) => this.#connections.cutSilent(connections, timeout, 'bytesOut'),
      onLost: (client, error) => this.tell('disconnect', this.#refusal(client, error, permit.name)),
      onBack: (client) => this.tell('reconnect', client),
      onEnd: () => {
        this.#sessions.get(session)?.()
        this.#sessions.delete(session)
      },
    })
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
      this.#dismiss(channel, new TunnelError('exchange-expired', message))
      return
    }
    channel.send({ type: 'joined' })
    join(channel.release())
  }

  /** Ends a connection that is not wanted, and tells it why. */
  async #dismiss(channel: ServerChannel, error?: TunnelError): Promise<void> {
    if (error) channel.send({ type: 'refuse', ...errorFields(error) })
    this.#lingering++
    await channel.finish(this.#lingering > MAX_LINGERING ? 0 : LINGER)
    this.#lingering--
  }

  async #shut(grace: number): Promise<void> {
    const listenerClosed = this.#listener.close()
    this.#door.close()
    for (const newcomer of this.#newcomers) newcomer.abort(serverClosed())
    for (const session of this.#sessions.keys()) session.close(serverClosed())
    await this.#connections.finish(grace)
    await listenerClosed
    this.tell('close')
  }
}

function serverClosed(): TunnelError {
  return new TunnelError('server-closed', 'the server was closed')
}
