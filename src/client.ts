import type { Duplex } from 'node:stream'
import { type Address, formatAddress } from './address.js'
import { logIn } from './auth.js'
import { type ClientChannel, clientChannel } from './channel.js'
import { whenAborted } from './deadline.js'
import type { Endpoint } from './endpoint.js'
import { errorFromPeer, printable, TunnelError, toTunnelError } from './errors.js'
import { type LocalSettings, LocalTunnel } from './local-tunnel.js'
import {
  errorFields,
  type FromServer,
  type fromServer,
  type Message,
  type Protocol,
  violation,
} from './protocol.js'
import { reset } from './stream.js'
import { dialTcp } from './tcp.js'

/** How long the server may take to close its half of a tunnel, in milliseconds. */
const CLOSE_TIMEOUT = 5_000

/** What a tunnel is opened with. */
export interface OpenOptions extends LocalSettings {
  protocol: Protocol
  /** Public port; 0 for any. */
  port: number
  /** Of a unix socket to listen on. */
  path: string | undefined
  flowTimeout: number | undefined
  maxFlows: number | undefined
  release(): Promise<void>
}

/** A tunnel of this client, by its number on the wire. */
type Entry =
  | {
      state: 'opening'
      options: OpenOptions
      resolve(tunnel: LocalTunnel): void
      reject(error: TunnelError): void
    }
  | { state: 'open'; tunnel: LocalTunnel }
  | { state: 'closing'; resolve(): void }

/**
 * Connects to a server and logs in. Rejects with `server-unreachable`, with what the login rejects with, or with the
 * signal's reason.
 */
export async function connect(server: Endpoint, unref: boolean, aborted: AbortSignal): Promise<Client> {
  const address = formatAddress(server)
  const socket = await dialTcp(server, { unref, aborted }).catch((error) => {
    const next = 'is it running, and is this its port?'
    throw toTunnelError(error, 'server-unreachable', `no server answers at ${address}`, next)
  })
  const channel = clientChannel(socket)
  const forget = whenAborted(aborted, (reason) => socket.destroy(reason))
  try {
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
  async open(options: OpenOptions, aborted: AbortSignal): Promise<LocalTunnel> {
    // A server may end the connection right behind the login.
    if (this.#ended) throw this.#ended
    const number = ++this.#lastNumber
    const opened = new Promise<LocalTunnel>((resolve, reject) => {
      this.#tunnels.set(number, { state: 'opening', options, resolve, reject })
    })
    const { protocol, port, path, flowTimeout, maxFlows } = options
    this.#channel.send({ type: 'forward', tunnel: number, protocol, port, path, flowTimeout, maxFlows })
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
      case 'dropped':
        this.#dropped(message)
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

  #forwarded({ tunnel: number, host, port, path }: Message<typeof fromServer, 'forwarded'>): void {
    const entry = this.#tunnels.get(number)
    const isUnix = entry?.state === 'opening' && entry.options.protocol === 'unix'
    if (entry?.state === 'opening' && (path !== undefined) !== isUnix)
      throw violation('opened another kind of address')
    if (path === undefined && port === 0) throw violation('opened port 0')
    // One that was given up meanwhile is being closed already.
    if (entry?.state !== 'opening') return
    const tunnel = new LocalTunnel({
      ...entry.options,
      // Of a unix socket the server names the path.
      ...(path === undefined ? { host: host ?? this.#host, port, path } : { host: '', port: 0, path }),
      exchangeTimeout: this.#welcome.exchangeTimeout,
      giveBack: () => this.#giveBack(number),
    })
    this.#tunnels.set(number, { state: 'open', tunnel })
    entry.resolve(tunnel)
  }

  #exchange({ tunnel: number, id, ...from }: Message<typeof fromServer, 'exchange'>): void {
    const entry = this.#tunnels.get(number)
    // The server turns away by itself who waits at a tunnel that is being closed.
    if (entry?.state !== 'open') return
    entry.tunnel.join({
      id,
      visitor: { address: from.address, port: from.port },
      cameTo: { address: from.localAddress, port: from.localPort },
      open: (aborted) => this.#openDataStream(id, aborted),
      turnAway: (error) => this.#channel.send({ type: 'reject', tunnel: number, id, ...errorFields(error) }),
    })
  }

  #dropped({ tunnel: number, count, reason }: Message<typeof fromServer, 'dropped'>): void {
    const entry = this.#tunnels.get(number)
    if (entry?.state === 'open') entry.tunnel.drop(count, printable(reason))
  }

  /** A stream that the server has joined with the visitor of this id. */
  async #openDataStream(id: string, aborted: AbortSignal): Promise<Duplex> {
    const socket = await dialTcp(this.#server, { unref: this.#unref, aborted })
    const forget = whenAborted(aborted, (reason) => socket.destroy(reason))
    const channel = clientChannel(socket)
    try {
      channel.send({ type: 'exchange', id })
      const answer = await channel.receive()
      if (answer?.type === 'refuse') throw errorFromPeer(answer.code, answer.message)
      if (answer?.type !== 'joined') throw violation(`sent ${answer?.type ?? 'nothing'} where joined was due`)
      return channel.release()
    } catch (error) {
      reset(socket)
      throw error
    } finally {
      forget()
    }
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
