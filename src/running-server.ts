import type { Socket } from 'node:net'
import { formatAddress } from './address.js'
import type { Admission } from './auth.js'
import type { ServerChannel } from './channel.js'
import { type CloseOptions, Connections, type Stats } from './connections.js'
import { Emitter } from './emitter.js'
import { TunnelError } from './errors.js'
import type { Front } from './http/front.js'
import type { Listener, SocketAddress } from './listener.js'
import { checkNames } from './options.js'
import { Reception } from './reception.js'
import { type Permit, Secrets, secretRevoked } from './secrets.js'
import type { Refusal, Server, ServerEvents } from './server-info.js'
import {
  changeable,
  readServerOptions,
  type ServerChanges,
  type ServerOptions,
  type Settings,
} from './server-options.js'
import { Session } from './session.js'
import { type ServerSecurity, serverSecurity } from './tls-options.js'
import type { TunnelInfo } from './tunnel-info.js'
import type { Exchanges } from './waiting-room.js'

/** A server that listens: its clients, their sessions and tunnels, and all who are inside. */
export class RunningServer extends Emitter<ServerEvents> implements Server {
  readonly host: string
  readonly port: number
  readonly address: string
  readonly httpPort: number | undefined
  readonly #listener: Listener
  readonly #front: Front | undefined
  /** As they were given. */
  #options: ServerOptions
  #settings: Settings
  #updated: Promise<void> = Promise.resolve()
  readonly #secrets: Secrets
  readonly #security: ServerSecurity | undefined
  readonly #reception: Reception
  /** Each with what to call when its client is gone, or comes from elsewhere. */
  readonly #sessions = new Map<Session, () => void>()
  readonly #resumable = new Map<string, Session>()
  readonly #tunnels = new Set<TunnelInfo>()
  readonly #exchanges: Exchanges = new Map()
  /** Joined visitors, of tunnels open and closed. */
  readonly #connections = new Connections()

  constructor(
    listener: Listener,
    options: ServerOptions,
    settings: Settings,
    security: ServerSecurity | undefined,
    front: Front | undefined,
  ) {
    super()
    this.host = listener.host
    this.port = listener.port
    this.address = `pipe://${formatAddress({ host: settings.publicHost ?? this.host, port: this.port })}`
    this.httpPort = front?.port
    this.#listener = listener
    this.#front = front
    this.#options = options
    this.#settings = settings
    this.#secrets = new Secrets(settings.secrets)
    this.#security = security
    this.#reception = new Reception({
      ...settings,
      secrets: this.#secrets,
      security,
      onClient: (channel, client, admission) => this.#serve(channel, client, admission),
      onDataStream: (channel, id) => this.#join(channel, id),
      onRefuse: (client, error) => this.tell('refuse', this.#refusal(client, error)),
    })
  }

  get secret(): string | undefined {
    return this.#secrets.main
  }

  get tls(): boolean | undefined {
    if (!this.#security) return false
    return this.#security.keys ? undefined : true
  }

  get closing(): boolean {
    return this.#connections.closing
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
    this.#dismiss(name)
  }

  update(changes: ServerChanges): Promise<void> {
    // One after the other: each begins with what the one before has left.
    const updated = this.#updated.then(() => this.#update(changes))
    this.#updated = updated.catch(() => {})
    return updated
  }

  async #update(changes: ServerChanges): Promise<void> {
    checkNames('changes', changes, changeable)
    const options = { ...this.#options, ...changes }
    const settings = readServerOptions(options)
    const security = await serverSecurity(settings.tls, settings.secrets)
    if (!security !== !this.#security) {
      throw new TunnelError(
        'invalid-option',
        'a server that runs can neither begin to encrypt nor stop it: start it again, or leave secret and tls as they are',
      )
    }
    // Whoever accepts connections holds the same object.
    if (security && this.#security) Object.assign(this.#security, security)
    this.#options = options
    this.#settings = settings
    this.#reception.door.limits = settings
    this.#front?.limit(settings.httpConnections)
    for (const name of this.#secrets.replace(settings.secrets)) this.#dismiss(name)
  }

  /** Takes a new connection. */
  accept(socket: Socket, client: SocketAddress): void {
    this.#reception.accept(socket, client)
  }

  /** Lets the holders of a secret go that was revoked. */
  #dismiss(name: string): void {
    for (const session of this.#sessions.keys()) {
      if (session.secretName === name) session.close(secretRevoked())
    }
  }

  /** Tells that Caddy was lost or, without an error, is back. */
  reportCaddy(error?: TunnelError): void {
    if (error) this.tell('caddyLost', error)
    else this.tell('caddyBack')
  }

  /** Serves a client until its control connection ends. */
  async #serve(channel: ServerChannel, client: SocketAddress, admission: Admission): Promise<void> {
    const { permit } = admission
    const session = this.#sessionOf(admission)
    this.#sessions.get(session)?.()
    this.#sessions.set(session, this.#reception.door.addClient(client.address, session))
    const running = session.run(channel, client, admission)
    if (this.#connections.closing) session.close(serverClosed())
    if (permit.isRevoked) session.close(secretRevoked())
    const error = await running
    if (error && !this.#connections.closing) this.tell('refuse', this.#refusal(client, error, permit.name))
  }

  #refusal(client: SocketAddress, error: TunnelError, secretName?: string): Refusal {
    return { client, error, secretName, failures: this.#reception.door.failures(client.address) }
  }

  /** The session that the client takes over, if it is one by the same secret, or else a new one. */
  #sessionOf({ permit, resume }: Admission): Session {
    const { maxClients } = this.#settings
    const kept = this.#resumable.get(resume ?? '')
    if (kept && kept.secretName === permit.name) return kept
    if (this.#sessions.size < maxClients) return this.#newSession(permit)
    const message = `${maxClients} clients are logged in already: try again later, or raise limits.clients of createServer`
    throw new TunnelError('limit-reached', message)
  }

  #newSession(permit: Permit): Session {
    const session: Session = new Session({
      ...this.#settings,
      mayVisit: (address) => this.#settings.mayVisit(address),
      permit,
      exchanges: this.#exchanges,
      names: this.#front?.names,
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
      onHeartbeat: (client) => this.tell('heartbeat', client),
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
      this.#reception.dismiss(channel, new TunnelError('exchange-expired', message))
      return
    }
    channel.send({ type: 'joined' })
    join(channel.release())
  }

  async #shut(grace: number): Promise<void> {
    const listenerClosed = this.#listener.close()
    this.#front?.stop()
    this.#reception.close(serverClosed())
    for (const session of this.#sessions.keys()) session.close(serverClosed())
    const end = performance.now() + grace
    await this.#connections.finish(grace)
    // Answers may still be on their way to visitors.
    await this.#front?.finish(Math.max(end - performance.now(), 0))
    await listenerClosed
    this.tell('close')
  }
}

function serverClosed(): TunnelError {
  return new TunnelError('server-closed', 'the server was closed')
}
