import type { EventEmitter } from 'node:events'
import type net from 'node:net'
import { type Address, formatAddress } from './address.js'
import { type ClientChannel, clientChannel } from './channel.js'
import {
  type CloseOptions,
  type Connection,
  Connections,
  joinConnection,
  type Rejection,
} from './connection.js'
import { Emitter } from './emitter.js'
import { errorFromPeer, TunnelError, toTunnelError } from './errors.js'
import { type fromServer, type Message, violation } from './protocol.js'
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
   * milliseconds (default 0) to finish. Every call gives the same promise; one without `grace` after one that had
   * some cuts at once.
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
    const { target, server, exchangeTimeout } = this.#options
    const visitor = { address, port }
    const sockets: net.Socket[] = []
    const timer = setTimeout(() => {
      for (const socket of sockets) socket.destroy(new Error(`no answer within ${exchangeTimeout} ms`))
    }, exchangeTimeout).unref()
    try {
      const toTarget = await this.#dial(sockets, target).catch((error) => {
        throw toTunnelError(error, 'target-unreachable', `the target ${target.name} can't be reached`)
      })
      const toServer = await this.#dial(sockets, server)
      await openDataStream(clientChannel(toServer), id)
      const connection = joinConnection(id, visitor, toServer, toTarget)
      this.#connections.add(connection, toTarget, toServer)
      this.tell('connection', connection)
    } catch (caught) {
      for (const socket of sockets) reset(socket)
      const error = this.#connections.closing
        ? new TunnelError('closed', 'the tunnel was closed')
        : toTunnelError(caught, 'server-unreachable', 'no data stream to the server could be opened')
      this.#options.onReject({ id, visitor, error })
      this.tell('reject', { id, visitor, error })
    } finally {
      clearTimeout(timer)
      for (const socket of sockets) this.#dialling.delete(socket)
    }
  }

  /** A connected socket, among `sockets` and in the tunnel's care even before it is one. */
  async #dial(sockets: net.Socket[], address: Address): Promise<net.Socket> {
    const socket = dial(address, this.#options.unref)
    sockets.push(socket)
    this.#dialling.add(socket)
    await connected(socket)
    if (this.#connections.closing) throw new Error('closing')
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

/** Says which visitor the stream is for; resolves when the server has joined the two. */
async function openDataStream(channel: ClientChannel, id: string): Promise<void> {
  channel.send({ type: 'exchange', id })
  const answer = await channel.receive()
  if (answer?.type === 'refuse') throw errorFromPeer(answer.code, answer.message)
  if (answer?.type !== 'joined') throw violation(`sent ${answer?.type ?? 'nothing'} where joined was due`)
  channel.release()
}
