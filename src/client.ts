import { type Address, formatAddress } from './address.js'
import { logIn } from './auth.js'
import { type ClientChannel, clientChannel } from './channel.js'
import { whenAborted } from './deadline.js'
import type { Endpoint } from './endpoint.js'
import { errorFromPeer, TunnelError, toTunnelError } from './errors.js'
import { errorFields, type FromServer, type fromServer, type Message, violation } from './protocol.js'
import type { ParsedTarget } from './target.js'
import { connected, dial } from './tcp.js'
import { ClientTunnel } from './tunnel.js'

/** How long the server may take to close its half of a tunnel, in milliseconds. */
const CLOSE_TIMEOUT = 5_000

/** What a tunnel is opened with. */
export interface OpenOptions {
  target: ParsedTarget
  /** Public port; 0 for any. */
  port: number
  release(): Promise<void>
}

/** A tunnel of this client, by its number on the wire. */
type Entry =
  | {
      state: 'opening'
      options: OpenOptions
      resolve(tunnel: ClientTunnel): void
      reject(error: TunnelError): void
    }
  | { state: 'open'; tunnel: ClientTunnel }
  | { state: 'closing'; resolve(): void }

/**
 * Connects to a server and logs in. Rejects with `server-unreachable`, with what the login rejects with, or with the
 * signal's reason.
 */
export async function connect(server: Endpoint, unref: boolean, aborted: AbortSignal): Promise<Client> {
  const socket = dial(server, unref)
  const channel = clientChannel(socket)
  const forget = whenAborted(aborted, (reason) => socket.destroy(reason))
  const address = formatAddress(server)
  try {
    await connected(socket).catch((error) => {
      throw toTunnelError(
        error,
        'server-unreachable',
        `no server answers at ${address}`,
        'is it running, and is this its port?',
      )
    })
    const welcome = await logIn(channel, server.secret)
    // Data streams go where this one went, also where the name has several addresses.
    const reached = { host: socket.remoteAddress ?? server.host, port: server.port }
    return new Client(server.host, reached, channel, welcome, unref)
  } catch (caught) {
    socket.destroy()
    const error = toTunnelError(caught, 'connection-lost', 'the connection broke')
    if (error.code !== 'protocol-violation' && error.code !== 'connection-lost') throw error
    const failure = `${address} does not answer as a pipe-tunnel server does`
    throw new TunnelError(error.code, `${failure} (${error.message}): is this its port?`, { cause: error })
  } finally {
    forget()
  }
}

/** The client's half of a control connection after the login: any number of tunnels. */
export class Client {
  /** The server's name, as the caller gave it. */
  readonly #host: string
  readonly #server: Address
  readonly #channel: ClientChannel
  readonly #welcome: Message<typeof fromServer, 'welcome'>
  readonly #unref: boolean
  readonly #tunnels = new Map<number, Entry>()
  readonly #done: Promise<void>
  /** Why there is no control connection any more. */
  #ended: TunnelError | undefined
  #lastNumber = 0

  constructor(
    host: string,
    server: Address,
    channel: ClientChannel,
    welcome: Message<typeof fromServer, 'welcome'>,
    unref: boolean,
  ) {
    this.#host = host
    this.#server = server
    this.#channel = channel
    this.#welcome = welcome
    this.#unref = unref
    this.#done = this.#run()
  }

  /** Opens a tunnel; resolves when visitors get through. Rejects with the server's refusal or the signal's reason. */
  async open(options: OpenOptions, aborted: AbortSignal): Promise<ClientTunnel> {
    // A server may end the connection right behind the login.
    if (this.#ended) throw this.#ended
    const number = ++this.#lastNumber
    const opened = new Promise<ClientTunnel>((resolve, reject) => {
      this.#tunnels.set(number, { state: 'opening', options, resolve, reject })
    })
    this.#channel.send({ type: 'forward', tunnel: number, protocol: 'tcp', port: options.port })
    const forget = whenAborted(aborted, (reason) => this.#giveUp(number, reason))
    try {
      return await opened
    } finally {
      forget()
    }
  }

  /** Ends the control connection; resolves when its socket is closed. */
  async close(): Promise<void> {
    this.#channel.interrupt(new TunnelError('closed', 'the client was closed'))
    await this.#done
  }

  /** Handles the server's messages until one side is gone. Never rejects. */
  async #run(): Promise<void> {
    let error = new TunnelError('connection-lost', 'the server ended the control connection')
    try {
      for await (const message of this.#channel.messages(this.#welcome.heartbeatTimeout))
        this.#handle(message)
    } catch (caught) {
      error = toTunnelError(caught, 'connection-lost', 'the control connection broke')
    }
    this.#ended = error
    for (const number of this.#tunnels.keys()) this.#end(number, error)
    await this.#channel.finish()
  }

  #handle(message: FromServer): void {
    switch (message.type) {
      case 'heartbeat':
        this.#channel.send({ type: 'heartbeat' })
        break
      case 'forwarded':
        this.#forwarded(message)
        break
      case 'exchange':
        this.#exchange(message)
        break
      case 'closed':
        this.#end(message.tunnel, errorFromPeer(message.code, message.message))
        break
      case 'refuse':
        throw errorFromPeer(message.code, message.message)
      default:
        throw violation(`sent ${message.type} after the login`)
    }
  }

  #forwarded({ tunnel: number, host, port }: Message<typeof fromServer, 'forwarded'>): void {
    const entry = this.#tunnels.get(number)
    // One that was given up meanwhile is being closed already.
    if (entry?.state !== 'opening') return
    const { target, release } = entry.options
    const tunnel = new ClientTunnel({
      target,
      host: host ?? this.#host,
      port,
      server: this.#server,
      exchangeTimeout: this.#welcome.exchangeTimeout,
      unref: this.#unref,
      onReject: ({ id, error }) =>
        this.#channel.send({ type: 'reject', tunnel: number, id, ...errorFields(error) }),
      giveBack: () => this.#giveBack(number),
      release,
    })
    this.#tunnels.set(number, { state: 'open', tunnel })
    entry.resolve(tunnel)
  }

  #exchange(message: Message<typeof fromServer, 'exchange'>): void {
    const entry = this.#tunnels.get(message.tunnel)
    // The server turns away by itself who waits at a tunnel that is being closed.
    if (entry?.state === 'open') entry.tunnel.exchange(message)
  }

  /** The server has closed its half of a tunnel, or is gone. */
  #end(number: number, error: TunnelError): void {
    const entry = this.#tunnels.get(number)
    this.#tunnels.delete(number)
    if (entry?.state === 'opening') entry.reject(error)
    else if (entry?.state === 'open') entry.tunnel.lose(error)
    else entry?.resolve()
  }

  #giveUp(number: number, reason: TunnelError): void {
    const entry = this.#tunnels.get(number)
    if (entry?.state !== 'opening') return
    entry.reject(reason)
    this.#giveBack(number)
  }

  /** Asks the server to close its half; resolves when it has, and in any case after a moment. */
  async #giveBack(number: number): Promise<void> {
    if (!this.#tunnels.has(number)) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(
        () => this.#end(number, new TunnelError('timeout', 'no answer')),
        CLOSE_TIMEOUT,
      )
      const closedOnMessage = () => {
        clearTimeout(timer)
        resolve()
      }
      this.#tunnels.set(number, { state: 'closing', resolve: closedOnMessage })
      this.#channel.send({ type: 'close', tunnel: number })
    })
  }
}
