import { errorFromPeer, TunnelError, toTunnelError } from './errors.js'
import { type GrantOptions, grant } from './grant.js'
import { errorFields, type FromClient, type fromClient, type Message, violation } from './protocol.js'
import type { GrantedAddress } from './public-address.js'
import type { ServerTunnel } from './server-tunnel.js'
import type { TunnelInfo } from './tunnel-info.js'

/** What the tunnels of a session have from it. */
export interface SessionTunnelsOptions extends Omit<GrantOptions, 'takeBack'> {
  maxTunnels: number
  /** Resolves when the client has read enough to be told more; with false, when the control connection is gone. */
  hasRoom(): Promise<boolean>
  onTunnel(tunnel: TunnelInfo): void
}

type Forward = Message<typeof fromClient, 'forward'>

/** The tunnels of a session, by the numbers that the client gave them. */
export class SessionTunnels {
  readonly #options: SessionTunnelsOptions
  readonly #tunnels = new Map<number, ServerTunnel>()
  /** Those that were closed at the server, and why. The client may be lost before it hears of that. */
  readonly #takenBack = new Map<number, TunnelError>()
  /** While the client that came back says what it still wants: what it has not asked for again. */
  #kept: Set<number> | undefined

  constructor(options: SessionTunnelsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#tunnels.size
  }

  /** Whether the client has anything to come back for, if only to hear that it was taken. */
  get areWanted(): boolean {
    return this.#tunnels.size + this.#takenBack.size > 0
  }

  /** How many visitors wait for their data stream. */
  get waiting(): number {
    let sum = 0
    for (const tunnel of this.#tunnels.values()) sum += tunnel.waiting
    return sum
  }

  /** Does what the client asks for. `isCurrent` tells whether it is still there, over the same control connection. */
  async handle(message: FromClient, isCurrent: () => boolean): Promise<void> {
    switch (message.type) {
      case 'heartbeat':
        return this.#giveUpKept()
      case 'forward':
        return this.#forward(message, isCurrent)
      case 'close':
        return this.#close(message.tunnel)
      case 'reject':
        this.#tunnels.get(message.tunnel)?.turnAway(message.id, errorFromPeer(message.code, message.message))
        return
      default:
        throw violation(`sent ${message.type} after the login`)
    }
  }

  /** The client is lost. */
  lose(): void {
    for (const tunnel of this.#tunnels.values()) tunnel.lose()
  }

  /** The client is back, and is about to say which it still wants. */
  keepAll(): void {
    this.#kept = new Set(this.#tunnels.keys())
  }

  /** Gives an address up; tells whether it was there. */
  giveUp(address: GrantedAddress, error: TunnelError): boolean {
    for (const [number, tunnel] of this.#tunnels) {
      if (address.protocol !== tunnel.protocol || !isAt(tunnel, address)) continue
      this.#tunnels.delete(number)
      tunnel.end(error)
      return true
    }
    return false
  }

  /** Closes all. */
  end(error: TunnelError): void {
    for (const tunnel of this.#tunnels.values()) tunnel.end(error)
    this.#tunnels.clear()
  }

  async #forward(message: Forward, isCurrent: () => boolean): Promise<void> {
    const number = message.tunnel
    const kept = this.#tunnels.get(number)
    if (kept) return this.#resume(kept, message)
    const takenBack = this.#takenBack.get(number)
    // Unless it has just come back, it has heard, and the number stands for another tunnel.
    this.#takenBack.delete(number)
    try {
      if (takenBack && this.#kept) throw takenBack
      const tunnel = await this.#open(message)
      if (!isCurrent()) {
        // Whoever asked for it has gone meanwhile.
        tunnel.end()
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
      if (isCurrent()) this.#options.send({ type: 'closed', tunnel: number, ...errorFields(error) })
    }
  }

  /** The client is back and still wants a tunnel that was kept for it. */
  #resume(tunnel: ServerTunnel, { tunnel: number, ...asked }: Forward): void {
    if (!this.#kept?.delete(number)) throw violation(`asked for tunnel ${number} twice`)
    const { protocol, port, path = '', hostname = '' } = asked
    if (protocol !== tunnel.protocol || !isAt(tunnel, { port, path, hostname }))
      throw violation(`asked for another tunnel ${number} than it had`)
    this.#forwarded(number, tunnel)
    tunnel.resume(this.#options.hasRoom)
  }

  /** The client is back, and has asked by now for what it still wants. */
  #giveUpKept(): void {
    if (!this.#kept) return
    for (const number of this.#kept) this.#close(number)
    this.#takenBack.clear()
    this.#kept = undefined
  }

  #forwarded(number: number, { protocol, host: own, port, path, site }: ServerTunnel): void {
    const { publicHost, publicUdpHost } = this.#options
    const told = protocol === 'udp' ? publicUdpHost : publicHost
    const host = site ? own : path === undefined ? told : null
    const { hostname, scheme, probe } = site ?? {}
    this.#options.send({ type: 'forwarded', tunnel: number, host, port, path, hostname, scheme, probe })
  }

  async #open(message: Forward): Promise<ServerTunnel> {
    const { maxTunnels, permit } = this.#options
    if (this.#tunnels.size >= maxTunnels) {
      throw new TunnelError(
        'limit-reached',
        `the client has as many tunnels as it may (${maxTunnels}): close one, or raise limits.tunnels of createServer`,
      )
    }
    const giveBack = permit.addTunnel()
    try {
      const tunnel = await grant(message, {
        ...this.#options,
        takeBack: (tunnel, error) => this.#takeBack(message.tunnel, tunnel, error),
      })
      tunnel.closed.then(giveBack)
      return tunnel
    } catch (error) {
      giveBack()
      throw error
    }
  }

  /** The client gives a tunnel back. */
  #close(number: number): void {
    const tunnel = this.#tunnels.get(number)
    // Both sides may have closed it at the same time; then the client knows already.
    if (!tunnel) return
    tunnel.end()
    this.#closed(number, new TunnelError('closed', 'the tunnel was closed'))
  }

  /** A tunnel is closed at the server, unless it is gone already. */
  #takeBack(number: number, tunnel: ServerTunnel, error: TunnelError): void {
    if (this.#tunnels.get(number) !== tunnel) return
    this.#takenBack.set(number, error)
    tunnel.end(error)
    this.#closed(number, error)
  }

  #closed(number: number, error: TunnelError): void {
    this.#tunnels.delete(number)
    // The number is free again, also for another tunnel.
    this.#kept?.delete(number)
    this.#options.send({ type: 'closed', tunnel: number, ...errorFields(error) })
  }
}

/** Whether the tunnel is at this address of its protocol. */
function isAt(
  tunnel: ServerTunnel,
  address: { path: string } | { hostname: string } | { port: number },
): boolean {
  switch (tunnel.protocol) {
    case 'unix':
      return 'path' in address && address.path === tunnel.path
    case 'http':
      return 'hostname' in address && address.hostname === tunnel.hostname
    default:
      return 'port' in address && address.port === tunnel.port
  }
}
