import type { Agent } from 'node:http'
import type { Duplex } from 'node:stream'
import { formatAddress } from './address.js'
import type { Arrival } from './arrival.js'
import { Network } from './conditions/network.js'
import { type Conditions, readConditions } from './conditions/options.js'
import { joinConnection } from './connection.js'
import { type CloseOptions, Connections, type Stats } from './connections.js'
import { Deadline } from './deadline.js'
import { reserve } from './descriptors.js'
import { gatherDrops } from './drops.js'
import { Emitter } from './emitter.js'
import { TunnelError, toTunnelError } from './errors.js'
import { hostRewriter } from './host-header.js'
import type { InspectOptions } from './inspector/recorder.js'
import { type Requests, TunnelRequests } from './inspector/requests.js'
import type { LocalTunnelOptions } from './local-settings.js'
import { logTunnel } from './log-events.js'
import type { Protocol } from './protocol.js'
import { proxyHeader } from './proxy-header.js'
import { reset } from './stream.js'
import { Throttle } from './throttle.js'
import type { Tunnel, TunnelEvents } from './tunnel.js'
import { visitorDenied } from './visitor-filter.js'

/** The half of a tunnel beside the target: owns the streams to it, and those of the visitors joined with them. */
export class LocalTunnel extends Emitter<TunnelEvents> implements Tunnel {
  readonly url: string
  readonly host: string
  readonly port: number
  readonly path: string | undefined
  readonly hostname: string | undefined
  readonly protocol: Protocol
  readonly target: string
  readonly closed: Promise<TunnelError | undefined>
  readonly #options: LocalTunnelOptions
  readonly #throttle: { in: Throttle; out: Throttle } | undefined
  /** Made when somebody asks for conditions: visitors that came before do not pass through it. */
  #network: Network | undefined
  readonly #requests: TunnelRequests | undefined
  /** Visitors that are being joined, by their id. */
  readonly #joining = new Map<string, Deadline>()
  readonly #connections = new Connections()
  #agent: Agent | undefined
  readonly #onDrop = gatherDrops(this.#connections, (drop) => this.tell('drop', drop))
  #resolveClosed: (error: TunnelError | undefined) => void = () => {}
  #released: Promise<void> | undefined
  /** Spares visitors inside who are silent, from a loss on. */
  #spareSilent = () => {}

  constructor(options: LocalTunnelOptions) {
    super()
    const { target, host, port, path, protocol, limit, conditions, inspect, logger } = options
    const address =
      path === undefined ? `${target.scheme}://${formatAddress({ host, port })}` : `unix:${path}`
    this.url = options.site?.url ?? address
    this.hostname = options.site?.hostname
    this.host = host
    this.port = port
    this.path = path
    this.protocol = protocol
    this.target = target.name
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.#options = options
    if (limit !== undefined) this.#throttle = { in: new Throttle(limit), out: new Throttle(limit) }
    if (conditions) this.#network = new Network(conditions)
    if (logger) logTunnel(this, logger)
    if (inspect) this.#requests = this.#record(inspect)
  }

  get connections(): number {
    return this.#connections.size
  }

  get stats(): Stats {
    return this.#connections.stats
  }

  get agent(): Agent | undefined {
    return this.#agent
  }

  async fetch(path: string | URL | Request, init?: RequestInit): Promise<Response> {
    if (this.#connections.closing || this.#released) throw new TunnelError('closed', 'the tunnel is closed')
    const { publicFetch } = await import('./http/public-fetch.js')
    return publicFetch(path, init ?? {}, this)
  }

  /** Resolves when visitors of an HTTP tunnel get through. Rejects with `url-unreachable`, why it is closed, or the signal's reason. */
  async reach(aborted: AbortSignal): Promise<void> {
    const { site, unref } = this.#options
    if (!site) return
    const { reach } = await import('./http/access.js')
    this.#agent = await reach(site, { aborted, unref, closed: this.closed })
  }

  get requests(): Requests {
    if (this.#requests) return this.#requests
    throw new TunnelError('invalid-option', 'requests are not recorded: open the tunnel with inspect: true')
  }

  close(options: CloseOptions = {}): Promise<void> {
    return this.#connections.close(options, (grace) => this.#shut(grace))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  get conditions(): Conditions {
    return this.#network?.conditions ?? {}
  }

  setConditions(conditions: Conditions): void {
    const checked = readConditions(conditions, this.#options.target.isUdp)
    if (this.#network) this.#network.set(checked)
    else this.#network = new Network(checked)
  }

  pause(): void {
    if (!this.#network) this.setConditions({})
    this.#network?.pause(true)
  }

  resume(): void {
    this.#network?.pause(false)
  }

  cut(): void {
    this.#connections.cut()
  }

  dropControl(): void {
    const { dropControl } = this.#options
    if (!dropControl) throw new TunnelError('invalid-option', 'a tunnel of forward has no control connection')
    dropControl()
  }

  /**
   * The public address is gone. Visitors inside are left alone: their streams do not depend on it, and a server that
   * closes with grace still waits for them.
   */
  end(error: TunnelError): void {
    this.#resolveClosed(error)
    this.#release()
  }

  /** Nobody new comes until it is reconnected. Visitors that are silent as long as `patience` are cut then. */
  disconnected(error: TunnelError, patience: number): void {
    this.#spareSilent = this.#connections.cutSilent(this.#connections.inside, patience, 'bytesIn')
    this.tell('disconnect', error)
  }

  reconnected(): void {
    this.#spareSilent()
    this.tell('reconnect')
  }

  /** Counts datagrams that were dropped elsewhere, and tells of them. */
  drop(count: number, reason: string): void {
    this.#onDrop(count, reason)
  }

  /** Joins a visitor with the target. Never rejects. */
  async join(arrival: Arrival): Promise<void> {
    const { id, visitor, cameTo, open, replayOf } = arrival
    const { target, unref, exchangeTimeout, proxyProtocol, hostHeader, mayVisit } = this.#options
    // After a loss the server tells again of who waits.
    if (this.#joining.has(id)) return
    // A server has looked already, unless it is of an earlier version.
    const denial = mayVisit(visitor.address) ? undefined : visitorDenied(visitor.address)
    // For the data stream, while the target is dialled.
    const refusal = denial ?? this.#network?.refusal ?? reserve.keep()
    if (refusal) return this.#reject(arrival, refusal)

    const aborted = new Deadline(exchangeTimeout, () => new Error(`no answer within ${exchangeTimeout} ms`))
    this.#joining.set(id, aborted)
    const streams: Duplex[] = []
    const keep = (stream: Duplex) => {
      streams.push(stream)
      aborted.throwIfAborted()
      return stream
    }
    try {
      const header = proxyProtocol && (await proxyHeader(proxyProtocol, visitor, cameTo))
      const stages = hostHeader === undefined ? undefined : await hostRewriter(hostHeader)
      const tap = await this.#requests?.tap({ connection: id, visitor, replayOf })
      const fromTarget = keep(
        await target
          .dial({ unref, aborted, onDrop: this.#onDrop, throttle: this.#throttle, network: this.#network })
          .catch((error) => {
            throw toTunnelError(error, 'target-unreachable', `the target ${target.name} can't be reached`)
          }),
      )
      reserve.spend()
      const fromVisitor = keep(await open(aborted))
      if (header) fromTarget.write(header)
      // A flow drops what is too fast by itself: held back, it would come too late to be of use.
      const shaped = target.isUdp ? {} : { throttle: this.#throttle, conditions: this.#network?.stages() }
      const connection = joinConnection({ id, visitor, fromVisitor, fromTarget, stages, tap, ...shaped })
      this.#connections.add(connection, fromTarget, fromVisitor)
      this.tell('connection', connection)
    } catch (caught) {
      for (const stream of streams) reset(stream)
      const error = this.#connections.closing
        ? new TunnelError('closed', 'the tunnel was closed')
        : toTunnelError(caught, 'server-unreachable', 'no data stream to the server could be opened')
      this.#reject(arrival, error)
    } finally {
      reserve.release()
      aborted.stop()
      this.#joining.delete(id)
    }
  }

  #record(inspect: Required<InspectOptions>): TunnelRequests {
    const { host, port } = this
    const joinAgain = (arrival: Omit<Arrival, 'cameTo'>) => {
      // No server keeps it away.
      if (this.#connections.closing) arrival.turnAway(new TunnelError('closed', 'the tunnel was closed'))
      else this.join({ ...arrival, cameTo: { address: host, port } })
    }
    const isHttp = /^https?:/.test(this.url)
    const requests = new TunnelRequests(inspect, isHttp ? this.url : 'http://localhost', joinAgain)
    requests.recorder.on('request', (request) => this.tell('request', request))
    this.closed.then(() => requests.recorder.close())
    return requests
  }

  #reject({ id, visitor, turnAway }: Arrival, error: TunnelError): void {
    turnAway(error)
    this.#connections.rejections++
    this.tell('reject', { id, visitor, error })
  }

  #release(): Promise<void> {
    this.#released ??= this.#options.release()
    return this.#released
  }

  async #shut(grace: number): Promise<void> {
    await this.#options.giveBack()
    for (const joining of this.#joining.values()) joining.abort(new Error('closing'))
    await this.#connections.finish(grace)
    this.#agent?.destroy()
    await this.#release()
    this.#resolveClosed(undefined)
  }
}
