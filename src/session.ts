import type { Duplex } from 'node:stream'
import type { ServerChannel } from './channel.js'
import type { Connection, Rejection, Visitor } from './connection.js'
import { errorFromPeer, TunnelError, toTunnelError } from './errors.js'
import { openPort, type PortRange } from './ports.js'
import { errorFields, type FromClient, violation } from './protocol.js'
import { type Exchanges, ServerTunnel, type TunnelInfo } from './server-tunnel.js'
import { listen } from './tcp.js'

/** What a session has from its server. */
export interface SessionOptions {
  host: string
  /** The host that clients are told; null where they know it better. */
  publicHost: string | null
  ports: PortRange | undefined
  unref: boolean
  exchanges: Exchanges
  exchangeTimeout: number
  heartbeatInterval: number
  heartbeatTimeout: number
  maxTunnels: number
  maxWaiting: number
  onTunnel(tunnel: TunnelInfo): void
  onConnection(connection: Connection, tunnel: TunnelInfo, ...streams: Duplex[]): void
  onReject(rejection: Rejection, tunnel: TunnelInfo): void
}

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
        return this.#forward(message.tunnel, message.port)
      case 'close':
        return this.#close(message.tunnel)
      case 'reject':
        this.#tunnels.get(message.tunnel)?.turnAway(message.id, errorFromPeer(message.code, message.message))
        return
      default:
        throw violation(`sent ${message.type} after the login`)
    }
  }

  async #forward(number: number, port: number): Promise<void> {
    if (this.#tunnels.has(number)) throw violation(`asked for tunnel ${number} twice`)
    try {
      const tunnel = await this.#open(number, port)
      this.#tunnels.set(number, tunnel)
      const host = this.#options.publicHost
      this.#channel.send({ type: 'forwarded', tunnel: number, host, port: tunnel.port })
      this.#options.onTunnel(tunnel)
    } catch (caught) {
      const error = toTunnelError(caught, 'address-unavailable', 'the server could not open the port')
      this.#channel.send({ type: 'closed', tunnel: number, ...errorFields(error) })
    }
  }

  async #open(number: number, asked: number): Promise<ServerTunnel> {
    const { host, ports, unref, maxTunnels } = this.#options
    if (this.#tunnels.size >= maxTunnels) {
      throw new TunnelError(
        'limit-reached',
        `the client has as many tunnels as it may (${maxTunnels}): close one, or raise limits.tunnels`,
      )
    }
    // No visitor is accepted before the event loop turns, and by then the tunnel is there.
    const listener = await openPort(ports, asked, (port) =>
      listen({ host, port, unref }, (socket) => tunnel.park(socket)),
    )
    const tunnel: ServerTunnel = new ServerTunnel(listener, {
      ...this.#options,
      client: this.#client,
      onExchange: (id, { address, port }) => {
        this.#channel.send({ type: 'exchange', tunnel: number, id, address, port })
      },
      onConnection: (connection, ...streams) => this.#options.onConnection(connection, tunnel, ...streams),
      onReject: (rejection) => this.#options.onReject(rejection, tunnel),
    })
    return tunnel
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
