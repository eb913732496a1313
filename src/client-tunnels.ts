import type { Duplex } from 'node:stream'
import { type Aborted, whenAborted } from './deadline.js'
import { errorFromPeer, printable, TunnelError } from './errors.js'
import { addressIn } from './granted.js'
import type { LocalSettings } from './local-settings.js'
import { LocalTunnel } from './local-tunnel.js'
import {
  errorFields,
  type FromClient,
  type FromServer,
  type fromClient,
  type fromServer,
  type Message,
  violation,
} from './protocol.js'
import { mayPass } from './retry.js'

/** How long the server may take to close its half of a tunnel, in milliseconds. */
const CLOSE_TIMEOUT = 5_000

/** Milliseconds until a tunnel that the server refuses after a loss is asked for again. */
const ASK_AGAIN = 1_000

type Forward = Message<typeof fromClient, 'forward'>

/** What a tunnel is opened with. */
export interface OpenOptions extends LocalSettings {
  /** What the server is asked for. */
  wanted: Omit<Forward, 'type' | 'tunnel'>
  release(): Promise<void>
}

/** What the tunnels of a client have from it. */
export interface ClientTunnelsOptions {
  /** The server's name, as the caller gave it. */
  host: string
  /** How often a tunnel that the server refuses after a loss is asked for again. */
  maxReconnects: number
  unref: boolean
  /** Sends a message, unless the control connection is lost. */
  send(message: FromClient): void
  /** Milliseconds to join a visitor with its target. */
  exchangeTimeout(): number
  openDataStream(id: string, aborted: Aborted): Promise<Duplex>
  /** Resets the control connection. */
  dropControl(): void
}

/** A tunnel of this client, by its number on the wire. */
type Entry =
  | {
      state: 'opening'
      request: Forward
      options: OpenOptions
      resolve(tunnel: LocalTunnel): void
      reject(error: TunnelError): void
    }
  | { state: 'open'; request: Forward; tunnel: LocalTunnel }
  /** The control connection was lost since it was open. `again` is there while the server is to be asked once more. */
  | { state: 'lost'; request: Forward; tunnel: LocalTunnel; refusals: number; again?: NodeJS.Timeout }
  | { state: 'closing'; resolve(): void }

/** The tunnels of a client, of which it has told the server, or will again after a loss. */
export class ClientTunnels {
  readonly #options: ClientTunnelsOptions
  readonly #tunnels = new Map<number, Entry>()
  #lastNumber = 0

  constructor(options: ClientTunnelsOptions) {
    this.#options = options
  }

  /** Whether there are any for which to reconnect. */
  get areWanted(): boolean {
    return [...this.#tunnels.values()].some(({ state }) => state === 'open' || state === 'lost')
  }

  /** Opens a tunnel; resolves when visitors get through. Rejects with the server's refusal or the signal's reason. */
  async open(options: OpenOptions, aborted: AbortSignal): Promise<LocalTunnel> {
    const number = ++this.#lastNumber
    const request: Forward = { type: 'forward', tunnel: number, ...options.wanted }
    const opened = new Promise<LocalTunnel>((resolve, reject) => {
      this.#tunnels.set(number, { state: 'opening', request, options, resolve, reject })
    })
    this.#options.send(request)
    const forget = whenAborted(aborted, (reason) => this.#giveUp(number, reason))
    try {
      return await opened
    } finally {
      forget()
    }
  }

  handle(message: FromServer): void {
    if (message.type === 'forwarded') this.#forwarded(message)
    else if (message.type === 'exchange') this.#exchange(message)
    else if (message.type === 'dropped') this.#dropped(message)
    else if (message.type === 'closed')
      this.#closed(message.tunnel, errorFromPeer(message.code, message.message))
    else throw violation(`sent ${message.type} after the login`)
  }

  /** The control connection is lost. Those that were being opened are given up; visitors inside may be silent for so long. */
  lose(error: TunnelError, patience: number): void {
    for (const [number, entry] of this.#tunnels) {
      if (entry.state === 'opening') this.#end(number, error)
      else if (entry.state === 'closing') entry.resolve()
      else this.#lose(number, entry, error, patience)
    }
  }

  /** Tells the server which tunnels are still wanted, and which are since the loss; it may have kept the others. */
  askAgain(): void {
    for (const [number, entry] of this.#tunnels) {
      if (entry.state === 'lost' || entry.state === 'opening') {
        this.#options.send(entry.request)
      } else if (entry.state === 'closing') {
        // Nobody waits for it since the loss, and a server that was restarted does not answer.
        this.#options.send({ type: 'close', tunnel: number })
        this.#tunnels.delete(number)
      }
    }
  }

  /** There will be no control connection any more. */
  end(error: TunnelError): void {
    for (const number of this.#tunnels.keys()) this.#end(number, error)
  }

  #lose(
    number: number,
    entry: Entry & { state: 'open' | 'lost' },
    error: TunnelError,
    patience: number,
  ): void {
    const { request, tunnel } = entry
    if (entry.state === 'lost') clearTimeout(entry.again)
    this.#tunnels.set(number, { state: 'lost', request, tunnel, refusals: 0 })
    if (entry.state === 'open') tunnel.disconnected(error, patience)
  }

  #forwarded(message: Message<typeof fromServer, 'forwarded'>): void {
    const { tunnel: number, port, path, hostname } = message
    const entry = this.#tunnels.get(number)
    // One that was given up meanwhile is being closed already.
    if (entry?.state !== 'opening' && entry?.state !== 'lost') return
    const { request } = entry
    if (entry.state === 'lost') clearTimeout(entry.again)
    const address = addressIn(message, request, this.#options.host)
    // From now on it is this one that is asked for.
    const again = request.protocol === 'http' ? { hostname } : { port, path: path ?? request.path }
    const open = { state: 'open', request: { ...request, ...again } } as const
    if (entry.state === 'lost') {
      this.#tunnels.set(number, { ...open, tunnel: entry.tunnel })
      if (address.site && address.site.url !== entry.tunnel.url) throw violation(`opened ${address.site.url}`)
      entry.tunnel.reconnected()
      return
    }
    const tunnel = new LocalTunnel({
      ...entry.options,
      ...address,
      protocol: request.protocol,
      exchangeTimeout: this.#options.exchangeTimeout(),
      giveBack: () => this.#giveBack(number),
      dropControl: this.#options.dropControl,
    })
    this.#tunnels.set(number, { ...open, tunnel })
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
      open: (aborted) => this.#options.openDataStream(id, aborted),
      turnAway: (error) => this.#options.send({ type: 'reject', tunnel: number, id, ...errorFields(error) }),
    })
  }

  #dropped({ tunnel: number, count, reason }: Message<typeof fromServer, 'dropped'>): void {
    const entry = this.#tunnels.get(number)
    if (entry?.state === 'open') entry.tunnel.drop(count, printable(reason))
  }

  /** The server does not have this tunnel, or no more. One that was lost may come back yet: its port may be free again in a while. */
  #closed(number: number, error: TunnelError): void {
    const entry = this.#tunnels.get(number)
    if (entry?.state === 'lost' && mayPass(error) && entry.refusals < this.#options.maxReconnects) {
      clearTimeout(entry.again)
      const again = setTimeout(() => this.#options.send(entry.request), ASK_AGAIN)
      if (this.#options.unref) again.unref()
      this.#tunnels.set(number, { ...entry, refusals: entry.refusals + 1, again })
    } else {
      this.#end(number, error)
    }
  }

  /** The server has closed its half of a tunnel, or is gone. */
  #end(number: number, error: TunnelError): void {
    const entry = this.#tunnels.get(number)
    this.#tunnels.delete(number)
    if (entry?.state === 'lost') clearTimeout(entry.again)
    if (entry?.state === 'opening') entry.reject(error)
    else if (entry?.state === 'closing') entry.resolve()
    else entry?.tunnel.end(error)
  }

  #giveUp(number: number, reason: TunnelError): void {
    const entry = this.#tunnels.get(number)
    if (entry?.state !== 'opening') return
    entry.reject(reason)
    this.#giveBack(number)
  }

  /**
   * Asks the server to close its half; resolves when it has, and in any case after a moment. While the server can't be
   * reached it resolves at once, and the server is told when it is back.
   */
  async #giveBack(number: number): Promise<void> {
    const entry = this.#tunnels.get(number)
    if (!entry) return
    if (entry.state === 'lost') {
      clearTimeout(entry.again)
      this.#tunnels.set(number, { state: 'closing', resolve() {} })
      this.#options.send({ type: 'close', tunnel: number })
      return
    }
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
      this.#options.send({ type: 'close', tunnel: number })
    })
  }
}
