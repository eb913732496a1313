import type { Duplex } from 'node:stream'
import type { ServerChannel } from './channel.js'
import type { Connection, Rejection } from './connection.js'
import { type Drop, gatherDrops } from './drops.js'
import { errorFromPeer, TunnelError, toTunnelError } from './errors.js'
import type { Listener, Visitor } from './listener.js'
import { openPort, type PortRange } from './ports.js'
import { errorFields, type FromClient, type fromClient, type Message, violation } from './protocol.js'
import { listenAt, type PublicAddress } from './public-address.js'
import { type Exchanges, ServerTunnel, type TunnelInfo } from './server-tunnel.js'
import { allowedPath } from './socket-folder.js'

/** What a session has from its server. */
export interface SessionOptions {
  hosts: readonly string[]
  /** The host that clients are told; null where they know it better. */
  publicHost: string | null
  ports: PortRange | undefined
  /** The folder in which clients may listen on unix sockets. */
  sockets: string | undefined
  flowTimeout: number
  maxFlows: number
  unref: boolean
  exchanges: Exchanges
  exchangeTimeout: number
  heartbeatInterval: number
  heartbeatTimeout: number
  maxTunnels: number
  maxWaiting: number
  /** Where the server counts. */
  tally: { drops: number }
  onTunnel(tunnel: TunnelInfo): void
  onConnection(connection: Connection, tunnel: TunnelInfo, ...streams: Duplex[]): void
  onReject(rejection: Rejection, tunnel: TunnelInfo): void
  onDrop(drop: Drop, tunnel: TunnelInfo): void
}

type Forward = Message<typeof fromClient, 'forward'>

/** The server's half of a control connection after the login: owns the client's tunnels. */
export class Session {
  readonly #channel: ServerChannel
  readonly #client: Visitor
  readonly #options: SessionOptions
  readonly #tunnels = new Map<number, ServerTunnel>()

  constructor(channel: ServerChannel, client: Visitor, options: SessionOptions) {
    this.#channel = channel
    this.#client = client
    this.#options = options
  }

  /** Serves the client until it leaves, breaks or falls silent. Never rejects; gives back what went wrong. */
  async run(): Promise<TunnelError | undefined> {
    const { heartbeatInterval, heartbeatTimeout } = this.#options
    const heartbeat = setInterval(() => this.#channel.send({ type: 'heartbeat' }), heartbeatInterval).unref()
    let error: TunnelError | undefined
    try {
      for await (const message of this.#channel.messages(heartbeatTimeout)) await this.#serve(message)
    } catch (caught) {
      error = toTunnelError(caught, 'connection-lost', 'the control connection broke')
      this.#channel.send({ type: 'refuse', ...errorFields(error) })
    }
    clearInterval(heartbeat)
    this.#closeTunnels(
      error ?? new TunnelError('connection-lost', 'the client left without closing its tunnels'),
    )
    this.#channel.finish()
    return error
  }

  /** Lets the client go and tells it why. */
  close(error: TunnelError): void {
    this.#channel.interrupt(error)
  }

  async #serve(message: FromClient): Promise<void> {
    switch (message.type) {
      case 'heartbeat':
        return
      case 'forward':
        return this.#forward(message)
      case 'close':
        return this.#close(message.tunnel)
      case 'reject':
        this.#tunnels.get(message.tunnel)?.turnAway(message.id, errorFromPeer(message.code, message.message))
        return
      default:
        throw violation(`sent ${message.type} after the login`)
    }
  }

  async #forward(message: Forward): Promise<void> {
    const number = message.tunnel
    if (this.#tunnels.has(number)) throw violation(`asked for tunnel ${number} twice`)
    try {
      const tunnel = await this.#open(message)
      this.#tunnels.set(number, tunnel)
      const host = tunnel.path === undefined ? this.#options.publicHost : null
      const { port, path } = tunnel
      this.#channel.send({ type: 'forwarded', tunnel: number, host, port, path })
      this.#options.onTunnel(tunnel)
    } catch (caught) {
      const error = toTunnelError(
        caught,
        'address-unavailable',
        'the server could not open the public address',
      )
      this.#channel.send({ type: 'closed', tunnel: number, ...errorFields(error) })
    }
  }

  async #open(message: Forward): Promise<ServerTunnel> {
    const { ports, unref, maxTunnels, hosts, sockets } = this.#options
    const { tunnel: number, protocol, port: asked } = message
    if (this.#tunnels.size >= maxTunnels) {
      throw new TunnelError(
        'limit-reached',
        `the client has as many tunnels as it may (${maxTunnels}): close one, or raise limits.tunnels`,
      )
    }
    let tunnel: ServerTunnel | undefined
    const onDrop = gatherDrops(this.#options.tally, (drop) => {
      this.#channel.send({ type: 'dropped', tunnel: number, ...drop })
      if (tunnel) this.#options.onDrop(drop, tunnel)
    })
    const settings = { unref, ...this.#flowSettings(message), onDrop }
    // No visitor is handed over before the event loop turns, and by then the tunnel is there.
    const listenOn = (address: PublicAddress) =>
      listenAt(address, settings, (stream, visitor, cameTo) => tunnel?.park(stream, visitor, cameTo))
    const path = protocol === 'unix' ? allowedPath(sockets, message.path) : undefined
    const listener = await (protocol === 'unix'
      ? listenOn({ protocol, path: path ?? '' })
      : openPort(ports, asked, (port) => listenOn({ protocol, hosts, port })))
    tunnel = this.#tunnelAt(listener, message, path)
    return tunnel
  }

  #tunnelAt(
    listener: Listener,
    { tunnel: number, protocol }: Forward,
    path: string | undefined,
  ): ServerTunnel {
    const tunnel: ServerTunnel = new ServerTunnel(listener, {
      ...this.#options,
      protocol,
      path,
      client: this.#client,
      onExchange: (id, { address, port }, cameTo) => {
        const where = { address, port, localAddress: cameTo.address, localPort: cameTo.port }
        this.#channel.send({ type: 'exchange', tunnel: number, id, ...where })
      },
      onConnection: (connection, ...streams) => this.#options.onConnection(connection, tunnel, ...streams),
      onReject: (rejection) => this.#options.onReject(rejection, tunnel),
    })
    return tunnel
  }

  /** As the client wants them, as far as it may; else the server's own. */
  #flowSettings({ protocol, flowTimeout, maxFlows }: Forward): { flowTimeout: number; maxFlows: number } {
    const most = this.#options.maxFlows
    if (protocol === 'udp' && maxFlows !== undefined && maxFlows > most) {
      throw new TunnelError(
        'limit-reached',
        `maxFlows may be ${most} at this server, not ${maxFlows}: raise limits.flows there`,
      )
    }
    return { flowTimeout: flowTimeout ?? this.#options.flowTimeout, maxFlows: maxFlows ?? most }
  }

  #close(number: number): void {
    const tunnel = this.#tunnels.get(number)
    // Both sides may have closed it at the same time; then the client knows already.
    if (!tunnel) return
    this.#tunnels.delete(number)
    tunnel.close()
    const error = new TunnelError('closed', 'the tunnel was closed')
    this.#channel.send({ type: 'closed', tunnel: number, ...errorFields(error) })
  }

  #closeTunnels(error: TunnelError): void {
    for (const tunnel of this.#tunnels.values()) tunnel.close(error)
    this.#tunnels.clear()
  }
}
