import { randomBytes } from 'node:crypto'
import type { ServerChannel } from './channel.js'
import type { Connection } from './connection.js'
import { errorFromPeer, TunnelError, toTunnelError } from './errors.js'
import { type GrantOptions, grant } from './grant.js'
import type { Visitor } from './listener.js'
import { MessageRate } from './message-rate.js'
import {
  errorFields,
  type FromClient,
  type FromServer,
  type fromClient,
  type Message,
  violation,
} from './protocol.js'
import type { PublicAddress } from './public-address.js'
import type { Permit } from './secrets.js'
import type { ServerTunnel, TunnelInfo } from './server-tunnel.js'

/** What a session has from its server. */
export interface SessionOptions extends Omit<GrantOptions, 'client' | 'isSilent' | 'makeRoom' | 'send'> {
  heartbeatInterval: number
  heartbeatTimeout: number
  /** How long the tunnels are kept for a client that is lost. */
  resumeTimeout: number
  /** The sessions of the server that can be taken over, by their key. */
  resumable: Map<string, Session>
  maxTunnels: number
  /** Gives up the address where it is kept for a client that is lost and was where this one is; tells whether it was. */
  makeRoom(address: PublicAddress, client: Visitor, permit: Permit): boolean
  /** Messages of the client in a second. */
  messages: number
  onTunnel(tunnel: TunnelInfo): void
  /** Cuts those of these that are silent for so long; gives back what calls it off. */
  cutSilent(connections: Iterable<Connection>, timeout: number): () => void
  onLost(client: Visitor, error: TunnelError): void
  onBack(client: Visitor): void
  onEnd(): void
}

/** A client is silent once it has missed a heartbeat, and had half an interval to make up for it. */
const SILENT_INTERVALS = 1.5

type Forward = Message<typeof fromClient, 'forward'>

/** A session's control connection. While it is lost, its tunnels are kept until the timer ends them. */
type Link =
  | { state: 'up'; channel: ServerChannel }
  | { state: 'lost'; timer: NodeJS.Timeout; spareSilent: () => void }
  | { state: 'ended' }

/** A client after its login, over one control connection after the other: owns its tunnels. */
export class Session {
  readonly #options: SessionOptions
  readonly #tunnels = new Map<number, ServerTunnel>()
  /** Of the tunnels, those that the client has not asked for again since it came back. */
  #kept = new Set<number>()
  /** Visitors inside. */
  readonly #connections = new Set<Connection>()
  /** It is `ended` before its first control connection, too. */
  #link: Link = { state: 'ended' }
  #client: Visitor = { address: '', port: 0 }
  /** When the client was last heard. */
  #heard = 0
  /** What takes the session over: the last key that was given out, and the one before, until the client is heard. */
  #keys: string[] = []
  readonly #rate: MessageRate

  constructor(options: SessionOptions) {
    this.#options = options
    this.#rate = new MessageRate(options.messages)
  }

  /** Name of the secret that the client holds. */
  get secretName(): string | undefined {
    return this.#options.permit.name
  }

  /** How many visitors wait for their data stream. */
  get waiting(): number {
    let sum = 0
    for (const tunnel of this.#tunnels.values()) sum += tunnel.waiting
    return sum
  }

  /**
   * Serves a client that has logged in until it leaves, breaks or falls silent. A control connection before this one is
   * given up. Never rejects; gives back what went wrong, where that ends the session.
   */
  async run(channel: ServerChannel, client: Visitor, proof: string | null): Promise<TunnelError | undefined> {
    this.#takeOver(channel, client, proof)
    const { heartbeatInterval, heartbeatTimeout } = this.#options
    const heartbeat = setInterval(() => channel.send({ type: 'heartbeat' }), heartbeatInterval).unref()
    let error: TunnelError | undefined
    try {
      for await (const message of channel.messages(heartbeatTimeout)) {
        this.#heard = performance.now()
        this.#forgetKeys(1)
        await this.#serve(message, channel)
      }
    } catch (caught) {
      error = toTunnelError(caught, 'connection-lost', 'the control connection broke')
      channel.send({ type: 'refuse', ...errorFields(error) })
    }
    clearInterval(heartbeat)
    channel.finish()
    if (this.#link.state !== 'up' || this.#link.channel !== channel) return undefined
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
  makeRoom(address: PublicAddress, client: Visitor, permit: Permit): boolean {
    if (this.#link.state !== 'lost' || client.address !== this.#client.address) return false
    if (permit !== this.#options.permit) return false
    for (const [number, tunnel] of this.#tunnels) {
      const isThere =
        address.protocol === 'unix' ? address.path === tunnel.path : address.port === tunnel.port
      if (!isThere || address.protocol !== tunnel.protocol) continue
      this.#tunnels.delete(number)
      tunnel.close(new TunnelError('connection-lost', 'the client is lost, and another took its place'))
      return true
    }
    return false
  }

  /** Lets the client go and tells it why. */
  close(error: TunnelError): void {
    if (this.#link.state === 'up') this.#link.channel.interrupt(error)
    else this.#end(error)
  }

  #takeOver(channel: ServerChannel, client: Visitor, proof: string | null): void {
    const { heartbeatTimeout, exchangeTimeout, resumeTimeout, onBack } = this.#options
    const before = this.#link
    if (before.state === 'lost') {
      clearTimeout(before.timer)
      before.spareSilent()
    } else if (before.state === 'up') {
      // It has died without a word.
      before.channel.stream.destroy()
      for (const tunnel of this.#tunnels.values()) tunnel.lose()
    }
    this.#link = { state: 'up', channel }
    this.#client = client
    this.#kept = new Set(this.#tunnels.keys())

    const resume = resumeTimeout > 0 ? { resumeTimeout, resume: this.#newKey() } : {}
    channel.send({ type: 'welcome', proof, heartbeatTimeout, exchangeTimeout, ...resume })
    if (before.state !== 'ended') onBack(client)
  }

  /** The key that was used goes on until the client is heard again: the very answer with the new one may be lost. */
  #newKey(): string {
    this.#forgetKeys(1)
    const key = randomBytes(32).toString('hex')
    this.#keys.unshift(key)
    this.#options.resumable.set(key, this)
    return key
  }

  #lose(error: TunnelError): void {
    const { resumeTimeout, heartbeatTimeout, cutSilent, onLost } = this.#options
    const spareSilent = cutSilent(this.#connections, Math.max(resumeTimeout, heartbeatTimeout))
    // One without tunnels has nothing to come back for, and would take a client's place.
    if (resumeTimeout > 0 && this.#tunnels.size > 0) {
      const timer = setTimeout(() => this.#end(error), resumeTimeout).unref()
      this.#link = { state: 'lost', timer, spareSilent }
      for (const tunnel of this.#tunnels.values()) tunnel.lose()
    } else {
      this.#end(error)
    }
    onLost(this.#client, error)
  }

  #end(error: TunnelError): void {
    if (this.#link.state === 'lost') clearTimeout(this.#link.timer)
    this.#link = { state: 'ended' }
    this.#forgetKeys(0)
    for (const tunnel of this.#tunnels.values()) tunnel.close(error)
    this.#tunnels.clear()
    this.#options.onEnd()
  }

  /** Forgets all keys but so many of the last. */
  #forgetKeys(count: number): void {
    for (const key of this.#keys.splice(count)) this.#options.resumable.delete(key)
  }

  #send(message: FromServer): void {
    if (this.#link.state === 'up') this.#link.channel.send(message)
  }

  async #serve(message: FromClient, channel: ServerChannel): Promise<void> {
    this.#rate.count(message.type)
    switch (message.type) {
      case 'heartbeat':
        return this.#giveUpKept()
      case 'forward':
        return this.#forward(message, channel)
      case 'close':
        return this.#close(message.tunnel)
      case 'reject':
        this.#tunnels.get(message.tunnel)?.turnAway(message.id, errorFromPeer(message.code, message.message))
        return
      default:
        throw violation(`sent ${message.type} after the login`)
    }
  }

  async #forward(message: Forward, channel: ServerChannel): Promise<void> {
    const number = message.tunnel
    const kept = this.#tunnels.get(number)
    if (kept) return this.#resume(kept, message)
    try {
      const tunnel = await this.#open(message)
      if (this.#link.state !== 'up' || this.#link.channel !== channel) {
        // Whoever asked for it has gone meanwhile.
        tunnel.close()
        return
      }
      this.#tunnels.set(number, tunnel)
      this.#forwarded(number, tunnel)
      this.#options.onTunnel(tunnel)
    } catch (caught) {
      const error = toTunnelError(
        caught,
        'address-unavailable',
        'the server could not open the public address',
      )
      channel.send({ type: 'closed', tunnel: number, ...errorFields(error) })
    }
  }

  /** The client is back and still wants a tunnel that was kept for it. */
  #resume(tunnel: ServerTunnel, { tunnel: number, protocol, port, path }: Forward): void {
    if (!this.#kept.delete(number)) throw violation(`asked for tunnel ${number} twice`)
    const isSame =
      protocol === tunnel.protocol &&
      (tunnel.path === undefined ? port === tunnel.port : path === tunnel.path)
    if (!isSame) throw violation(`asked for another tunnel ${number} than it had`)
    this.#forwarded(number, tunnel)
    tunnel.resume()
  }

  /** The client is back, and has asked by now for what it still wants. */
  #giveUpKept(): void {
    for (const number of this.#kept) this.#close(number)
    this.#kept.clear()
  }

  #forwarded(number: number, { port, path }: ServerTunnel): void {
    const host = path === undefined ? this.#options.publicHost : null
    this.#send({ type: 'forwarded', tunnel: number, host, port, path })
  }

  async #open(message: Forward): Promise<ServerTunnel> {
    const { maxTunnels, permit } = this.#options
    if (this.#tunnels.size >= maxTunnels) {
      throw new TunnelError(
        'limit-reached',
        `the client has as many tunnels as it may (${maxTunnels}): close one, or raise limits.tunnels`,
      )
    }
    const giveBack = permit.addTunnel()
    try {
      const tunnel = await this.#grant(message)
      tunnel.closed.then(giveBack)
      return tunnel
    } catch (error) {
      giveBack()
      throw error
    }
  }

  #grant(message: Forward): Promise<ServerTunnel> {
    return grant(message, {
      ...this.#options,
      client: () => this.#client,
      isSilent: () => performance.now() - this.#heard > SILENT_INTERVALS * this.#options.heartbeatInterval,
      makeRoom: (address) => this.#options.makeRoom(address, this.#client, this.#options.permit),
      send: (message) => {
        if (message.type === 'exchange') this.#rate.expectAnswer()
        this.#send(message)
      },
      onConnection: (connection, tunnel, ...streams) => {
        this.#options.permit.hold(connection.closed, streams)
        this.#connections.add(connection)
        connection.closed.then(() => this.#connections.delete(connection))
        this.#options.onConnection(connection, tunnel, ...streams)
      },
    })
  }

  #close(number: number): void {
    const tunnel = this.#tunnels.get(number)
    // Both sides may have closed it at the same time; then the client knows already.
    if (!tunnel) return
    this.#tunnels.delete(number)
    tunnel.close()
    const error = new TunnelError('closed', 'the tunnel was closed')
    this.#send({ type: 'closed', tunnel: number, ...errorFields(error) })
  }
}
