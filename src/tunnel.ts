import type { EventEmitter } from 'node:events'
import type net from 'node:net'
import { type Address, formatAddress } from './address.js'
import {
  type CloseOptions,
  type Connection,
  Connections,
  joinConnection,
  type Rejection,
} from './connection.js'
import { Emitter } from './emitter.js'
import { TunnelError, type TunnelErrorCode, toTunnelError } from './errors.js'
import { encode, type FromClient, type fromServer, type Message } from './protocol.js'
import { reset } from './relay.js'
import type { ParsedTarget } from './target.js'
import { connected, dial } from './tcp.js'

/** The events of a {@link Tunnel} and what their listeners are called with. */
export interface TunnelEvents {
  /** A visitor was joined to the target. */
  connection: [connection: Connection]
  /** A visitor was turned away, because the target or the server could not be reached. */
  reject: [rejection: Rejection]
}

/** One public address bound to one target, while open. */
export interface Tunnel extends EventEmitter<TunnelEvents>, AsyncDisposable {
  /** Public address, with the scheme of the target: `http://127.0.0.1:41234`. */
  readonly url: string
  /** Host of the public address. */
  readonly host: string
  /** Port of the public address. */
  readonly port: number
  readonly protocol: 'tcp'
  /** Where visitors end up: `localhost:3000`. */
  readonly target: string
  /** How many visitors are inside now. */
  readonly connections: number
  /** Resolves, and never rejects, when the tunnel is closed: with the error, where it was not closed by you. */
  readonly closed: Promise<TunnelError | undefined>
  /**
   * Gives the public address back, and resolves when every socket is closed. Visitors inside get `grace`
   * milliseconds (default 0) to finish. Every call gives the same promise; one without `grace` cuts at once.
   */
  close(options?: CloseOptions): Promise<void>
}

type Exchange = Message<typeof fromServer, 'exchange'>

export interface ClientTunnelOptions {
  target: ParsedTarget
  host: string
  port: number
  /** Where data streams go. */
  server: Address
  /** Milliseconds to answer an exchange. */
  exchangeTimeout: number
  unref: boolean
  /** Tells the server that a visitor can't be served. */
  onReject(rejection: Rejection): void
  /** Gives the public address back; resolves when the server has closed its half. */
  giveBack(): Promise<void>
  /** Closes what was opened for this tunnel. Called once, when it is closed or lost. */
  release(): Promise<void>
}

/** The client's half of a tunnel: owns the sockets to the target and the data streams. */
export class ClientTunnel extends Emitter<TunnelEvents> implements Tunnel {
  readonly url: string
  readonly host: string
  readonly port: number
  readonly protocol = 'tcp'
  readonly target: string
  readonly closed: Promise<TunnelError | undefined>
  readonly #options: ClientTunnelOptions
  /** Sockets of exchanges that are being made. */
  readonly #dialling = new Set<net.Socket>()
  readonly #connections = new Connections()
  #resolveClosed: (error: TunnelError | undefined) => void = () => {}
  #released: Promise<void> | undefined

  constructor(options: ClientTunnelOptions) {
    super()
    const { target, host, port } = options
    this.url = `${target.scheme}://${formatAddress({ host, port })}`
    this.host = host
    this.port = port
    this.target = target.name
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.#options = options
  }

  get connections(): number {
    return this.#connections.size
  }

  close(options: CloseOptions = {}): Promise<void> {
    return this.#connections.close(options, (grace) => this.#shut(grace))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /**
   * The control connection is gone, or the server closed its half. Visitors inside are left alone: their data
   * streams do not depend on it, and a server that closes with grace still waits for them.
   */
  lose(error: TunnelError): void {
    this.#resolveClosed(error)
    this.#release()
  }

  /** Answers the server's exchange: dials the target, then the server, and joins the two. Never rejects. */
  async exchange({ id, address, port }: Exchange): Promise<void> {
    const { target, server } = this.#options
    const visitor = { address, port }
    const sockets: net.Socket[] = []
    try {
      const toTarget = await this.#dial(
        sockets,
        target,
        'target-unreachable',
        `the target ${target.name} can't be reached`,
      )
      const toServer = await this.#dial(
        sockets,
        server,
        'server-unreachable',
        'no data stream to the server could be opened',
      )
      const opening: FromClient = { type: 'exchange', id }
      toServer.write(encode(opening))
      const connection = joinConnection(id, visitor, toServer, toTarget)
      this.#connections.add(connection, toTarget)
      this.tell('connection', connection)
    } catch (caught) {
      for (const socket of sockets) reset(socket)
      const rejection = { id, visitor, error: toTunnelError(caught, 'closed', 'the exchange failed') }
      this.#options.onReject(rejection)
      this.tell('reject', rejection)
    } finally {
      for (const socket of sockets) this.#dialling.delete(socket)
    }
  }

  /** A connected socket, among `sockets` and in the tunnel's care even before it is one. */
  async #dial(
    sockets: net.Socket[],
    address: Address,
    code: TunnelErrorCode,
    failure: string,
  ): Promise<net.Socket> {
    const { exchangeTimeout, unref } = this.#options
    const socket = dial(address, unref)
    sockets.push(socket)
    this.#dialling.add(socket)
    try {
      await connected(socket, exchangeTimeout)
    } catch (error) {
      throw toTunnelError(error, code, failure)
    }
    if (this.#connections.closing) throw new TunnelError('closed', 'the tunnel was closed')
    return socket
  }

  #release(): Promise<void> {
    this.#released ??= this.#options.release()
    return this.#released
  }

  async #shut(grace: number): Promise<void> {
    await this.#options.giveBack()
    for (const socket of this.#dialling) reset(socket)
    await this.#connections.finish(grace)
    await this.#release()
    this.#resolveClosed(undefined)
  }
}
