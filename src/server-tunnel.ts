import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { type Connection, joinConnection, type Rejection } from './connection.js'
import { type CloseOptions, Connections, type Stats } from './connections.js'
import { reserve } from './descriptors.js'
import { TunnelError } from './errors.js'
import type { SiteInfo } from './http/names.js'
import type { Listener, SocketAddress, Visitor } from './listener.js'
import type { Protocol } from './protocol.js'
import { reset } from './stream.js'
import { newTunnelId } from './tunnel-id.js'
import type { TunnelInfo } from './tunnel-info.js'
import { type MayVisit, visitorDenied } from './visitor-filter.js'
import { WaitingRoom, type WaitingRoomOptions } from './waiting-room.js'

export interface ServerTunnelOptions extends Omit<WaitingRoomOptions, 'onJoin'> {
  protocol: Protocol
  path: string | undefined
  /** What makes the URL of an HTTP tunnel. */
  site: SiteInfo | undefined
  /** Where the client's control connection comes from, or came from last. */
  client(): SocketAddress
  secretName: string | undefined
  /** Who may visit, by address. */
  mayVisit: MayVisit
  /** Visitors that may wait at once, here and at the server. */
  maxWaiting: number
  maxWaitingTotal: number
  /** Visitors that may be here at once, inside and waiting. */
  maxVisitors: number
  onConnection(connection: Connection, ...streams: Duplex[]): void
  /** It is to be closed at the server: tells the client, where it is still that client's. */
  takeBack(tunnel: ServerTunnel, error: TunnelError): void
}

/**
 * Visitors of each tunnel that may wait though those of others have used up what may wait at the server: nobody can keep a
 * neighbour's visitors out.
 */
const OWN_PLACES = 16

/**
 * The server's half of a tunnel: owns the public port and, in its waiting room, the visitors that wait. Those that were joined
 * outlive it.
 */
export class ServerTunnel implements TunnelInfo {
  readonly id = newTunnelId()
  readonly protocol: Protocol
  readonly host: string
  readonly port: number
  readonly path: string | undefined
  readonly site: SiteInfo | undefined
  readonly secretName: string | undefined
  readonly openedAt = new Date()
  readonly closed: Promise<TunnelError | undefined>
  readonly #listener: Listener
  readonly #options: ServerTunnelOptions
  readonly #waiting: WaitingRoom
  /** Visitors that were joined. */
  readonly #connections = new Connections()
  #resolveClosed: (error: TunnelError | undefined) => void = () => {}

  constructor(listener: Listener, options: ServerTunnelOptions) {
    this.protocol = options.protocol
    this.host = listener.host
    this.port = listener.port
    this.path = options.path
    this.site = options.site
    this.secretName = options.secretName
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.#listener = listener
    this.#options = options
    this.#waiting = new WaitingRoom({
      ...options,
      onJoin: (...joining) => this.#join(...joining),
      onReject: (rejection) => this.#reject(rejection),
    })
  }

  get client(): SocketAddress {
    return this.#options.client()
  }

  get hostname(): string | undefined {
    return this.site?.hostname
  }

  get url(): string | undefined {
    return this.site?.url
  }

  get connections(): number {
    return this.#connections.size
  }

  get stats(): Stats {
    return this.#connections.stats
  }

  close(options: CloseOptions = {}): Promise<void> {
    return this.#connections.close(options, (grace) => {
      const message = 'the tunnel was closed at the server, by who runs it'
      this.#options.takeBack(this, new TunnelError('closed-by-server', message))
      return this.#connections.finish(grace)
    })
  }

  /** How many visitors wait for their data stream. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** The client is lost: visitors wait for it to come back. */
  lose(): void {
    this.#waiting.lose()
  }

  /** The client is back, and is told of all who wait. Resolves when it was told, or when there is no room for more for good. */
  resume(hasRoom: () => Promise<boolean>): Promise<void> {
    return this.#waiting.resume(hasRoom)
  }

  /** A visitor has come: it waits while the client is told of it. Who can't be joined is reset, unless its owner knows better. */
  park(
    stream: Duplex,
    visitor: Visitor,
    cameTo: SocketAddress,
    turnAway: (error: TunnelError) => void = () => reset(stream),
  ): void {
    const error = this.#whyNot(visitor) ?? reserve.keep()
    if (error) {
      turnAway(error)
      this.#reject({ id: randomUUID(), visitor, error })
    } else {
      this.#waiting.enter({ stream, visitor, cameTo, turnAway })
    }
  }

  /** A visitor was turned away by who looks at its requests. */
  turnedAway(visitor: Visitor, error: TunnelError): void {
    this.#reject({ id: randomUUID(), visitor, error })
  }

  /** Resets a visitor that waits. */
  turnAway(id: string, error: TunnelError): void {
    this.#waiting.turnAway(id, error)
  }

  /** Counts datagrams that were dropped. */
  countDrops(count: number): void {
    this.#connections.drops += count
  }

  /** Frees the port at once and turns away who waits. Visitors inside stay. */
  end(error?: TunnelError): void {
    this.#listener.close()
    this.#waiting.turnAllAway(error ?? new TunnelError('closed', 'the tunnel was closed'))
    this.#resolveClosed(error)
  }

  /** Why no visitor may come in now, if so. */
  #whyNot(visitor: Visitor): TunnelError | undefined {
    const { mayVisit, exchanges, maxWaiting, maxWaitingTotal, maxVisitors, whileLost } = this.#options
    if (!mayVisit(visitor.address)) return visitorDenied(visitor.address)
    const waiting = this.#waiting.size
    if (waiting >= maxWaiting) return tooMany(`${maxWaiting} visitors wait at this tunnel`, 'waiting')
    if (exchanges.size >= maxWaitingTotal && waiting >= OWN_PLACES)
      return tooMany(`${maxWaitingTotal} visitors wait at this server`, 'waitingTotal')
    // Flows have a bound of their own.
    if (this.protocol !== 'udp' && waiting + this.#connections.size >= maxVisitors)
      return tooMany(`${maxVisitors} visitors are at this tunnel`, 'visitors')
    if (this.#waiting.isLost && whileLost === 'refuse') {
      return new TunnelError('connection-lost', 'the control connection of the tunnel is lost')
    }
    return undefined
  }

  #join(id: string, visitor: Visitor, fromVisitor: Duplex, fromTarget: Duplex): void {
    const connection = joinConnection({ id, visitor, fromVisitor, fromTarget })
    this.#connections.add(connection, fromVisitor, fromTarget)
    this.#options.onConnection(connection, fromVisitor, fromTarget)
  }

  #reject(rejection: Rejection): void {
    this.#connections.rejections++
    this.#options.onReject(rejection)
  }
}

function tooMany(what: string, limit: string): TunnelError {
  return new TunnelError('limit-reached', `${what} already: raise limits.${limit} of createServer for more`)
}
