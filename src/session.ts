import type { Admission } from './auth.js'
import type { ServerChannel } from './channel.js'
import type { Connection } from './connection.js'
import { TunnelError, toTunnelError } from './errors.js'
import type { SocketAddress } from './listener.js'
import { MessageRate } from './message-rate.js'
import { errorFields, type FromServer } from './protocol.js'
import type { GrantedAddress } from './public-address.js'
import { ResumeKeys } from './resume-keys.js'
import type { Permit } from './secrets.js'
import { SessionTunnels, type SessionTunnelsOptions } from './session-tunnels.js'

/** What a session has from its server. */
export interface SessionOptions
  extends Omit<SessionTunnelsOptions, 'client' | 'hasRoom' | 'isSilent' | 'makeRoom' | 'send'> {
  heartbeatInterval: number
  heartbeatTimeout: number
  /** How long the tunnels are kept for a client that is lost. */
  resumeTimeout: number
  /** The sessions of the server that can be taken over, by their key. */
  resumable: Map<string, Session>
  /** Gives up the address where it is kept for a client that is lost and was where this one is; tells whether it was. */
  makeRoom(address: GrantedAddress, client: SocketAddress, permit: Permit): boolean
  /** Messages of the client in a second. */
  messages: number
  /** Cuts those of these that are silent for so long; gives back what calls it off. */
  cutSilent(connections: Iterable<Connection>, timeout: number): () => void
  onLost(client: SocketAddress, error: TunnelError): void
  onBack(client: SocketAddress): void
  onHeartbeat(client: SocketAddress): void
  onEnd(): void
}

/** A client is silent once it has missed a heartbeat, and had half an interval to make up for it. */
const SILENT_INTERVALS = 1.5

/** A session's control connection. While it is lost, its tunnels are kept until the timer ends them. */
type Control =
  | { state: 'new' }
  | { state: 'up'; channel: ServerChannel }
  | { state: 'lost'; timer: NodeJS.Timeout; spareSilent: () => void }
  | { state: 'ended' }

/** A client after its login, over one control connection after the other: owns its tunnels. */
export class Session {
  readonly #options: SessionOptions
  readonly #tunnels: SessionTunnels
  readonly #keys: ResumeKeys<Session>
  readonly #rate: MessageRate
  /** Visitors inside. */
  readonly #connections = new Set<Connection>()
  #control: Control = { state: 'new' }
  #client: SocketAddress = { address: '', port: 0 }
  /** When the client was last heard. */
  #heard = 0

  constructor(options: SessionOptions) {
    const { permit, messages, heartbeatInterval, resumable } = options
    this.#options = options
    this.#rate = new MessageRate(messages)
    this.#keys = new ResumeKeys(this, resumable)
    this.#tunnels = new SessionTunnels({
      ...options,
      client: () => this.#client,
      isSilent: () => performance.now() - this.#heard > SILENT_INTERVALS * heartbeatInterval,
      makeRoom: (address) => options.makeRoom(address, this.#client, permit),
      send: (message) => this.#send(message),
      hasRoom: async () => this.#control.state === 'up' && this.#control.channel.hasRoom(),
      onConnection: (connection, tunnel, ...streams) => {
        permit.hold(streams)
        this.#connections.add(connection)
        connection.closed.then(() => {
          permit.release(streams)
          this.#connections.delete(connection)
        })
        options.onConnection(connection, tunnel, ...streams)
      },
    })
  }

  /** Name of the secret that the client holds. */
  get secretName(): string | undefined {
    return this.#options.permit.name
  }

  /** How many visitors wait for their data stream. */
  get waiting(): number {
    return this.#tunnels.waiting
  }

  /**
   * Serves a client that has logged in until it leaves, breaks or falls silent. A control connection before this one is
   * given up. Never rejects; gives back what the client did wrong, if anything.
   */
  async run(
    channel: ServerChannel,
    client: SocketAddress,
    { proof, resume }: Admission,
  ): Promise<TunnelError | undefined> {
    this.#takeOver(channel, client)
    this.#welcome(channel, proof, resume)
    const { heartbeatInterval, heartbeatTimeout } = this.#options
    const heartbeat = setInterval(() => channel.send({ type: 'heartbeat' }), heartbeatInterval).unref()
    const isCurrent = () => this.#control.state === 'up' && this.#control.channel === channel
    let error: TunnelError | undefined
    try {
      for await (const message of channel.messages(heartbeatTimeout)) {
        this.#heard = performance.now()
        this.#keys.forgetUsed()
        this.#rate.count(message.type)
        if (message.type === 'heartbeat') this.#options.onHeartbeat(client)
        await this.#tunnels.handle(message, isCurrent)
      }
    } catch (caught) {
      error = toTunnelError(caught, 'connection-lost', 'the control connection broke')
      channel.send({ type: 'refuse', ...errorFields(error) })
    }
    clearInterval(heartbeat)
    channel.finish()
    if (!isCurrent()) return undefined
    if (error?.code === 'connection-lost') {
      this.#lose(error)
      return undefined
    }
    this.#end(error ?? new TunnelError('connection-lost', 'the client left without closing its tunnels'))
    return error
  }

  /**
   * Gives the address up while it is kept for a client that is lost, in favour of one on the same machine with the same secret:
   * who was killed comes back without its key. Tells whether it was.
   */
  makeRoom(address: GrantedAddress, client: SocketAddress, permit: Permit): boolean {
    if (this.#control.state !== 'lost' || client.address !== this.#client.address) return false
    if (permit !== this.#options.permit) return false
    const error = new TunnelError('connection-lost', 'the client is lost, and another took its place')
    const wasThere = this.#tunnels.giveUp(address, error)
    if (wasThere && this.#tunnels.size === 0) this.#end(error)
    return wasThere
  }

  /** Lets the client go and tells it why. */
  close(error: TunnelError): void {
    if (this.#control.state === 'up') this.#control.channel.interrupt(error)
    else this.#end(error)
  }

  #takeOver(channel: ServerChannel, client: SocketAddress): void {
    const before = this.#control
    if (before.state === 'lost') {
      clearTimeout(before.timer)
      before.spareSilent()
    } else if (before.state === 'up') {
      // It has died without a word. What it still holds of messages is not to be served any more.
      const error = new TunnelError('connection-lost', 'the client came back over another connection')
      before.channel.interrupt(error)
      before.channel.stream.destroy()
      this.#tunnels.lose()
      this.#options.onLost(this.#client, error)
    }
    this.#control = { state: 'up', channel }
    this.#client = client
    if (before.state === 'new') return
    this.#tunnels.keepAll()
    this.#options.onBack(client)
  }

  #welcome(channel: ServerChannel, proof: string | null, used: string | undefined): void {
    const { heartbeatTimeout, exchangeTimeout, resumeTimeout } = this.#options
    const resume = resumeTimeout > 0 ? { resumeTimeout, resume: this.#keys.renew(used) } : {}
    channel.send({ type: 'welcome', proof, heartbeatTimeout, exchangeTimeout, ...resume })
  }

  #lose(error: TunnelError): void {
    const { resumeTimeout, heartbeatTimeout, cutSilent, onLost } = this.#options
    const spareSilent = cutSilent(this.#connections, Math.max(resumeTimeout, heartbeatTimeout))
    // One without tunnels has nothing to come back for, and would take a client's place.
    if (resumeTimeout > 0 && this.#tunnels.areWanted) {
      const timer = setTimeout(() => this.#end(error), resumeTimeout).unref()
      this.#control = { state: 'lost', timer, spareSilent }
      this.#tunnels.lose()
    } else {
      this.#end(error)
    }
    onLost(this.#client, error)
  }

  #end(error: TunnelError): void {
    if (this.#control.state === 'lost') clearTimeout(this.#control.timer)
    this.#control = { state: 'ended' }
    this.#keys.clear()
    this.#tunnels.end(error)
    this.#options.onEnd()
  }

  #send(message: FromServer): void {
    if (this.#control.state !== 'up') return
    if (message.type === 'exchange') this.#rate.expectAnswer()
    this.#control.channel.send(message)
  }
}
