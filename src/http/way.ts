import type http from 'node:http'
import type { SocketAddress } from '../listener.js'
import { whenTurned } from '../turn.js'
import type { Site } from './names.js'
import { type StreamEnd, streamPair } from './stream-pair.js'

/** Milliseconds before a target may close a connection by its own account, from which on it is not used for a request any more. */
const MARGIN = 1_000
/** Longest that a connection to a target stays without a request, in milliseconds: as long as its visitor's. */
const LONGEST_IDLE = 75_000

export interface WayOptions {
  http: typeof http
  site: Site
  visitor: SocketAddress
  cameTo: SocketAddress
}

/**
 * The connections from one visitor connection to one target: one that is used for request after request, or several where an earlier one is
 * still busy. Each comes to the tunnel as a visitor of its own.
 */
export class Way {
  readonly agent: http.Agent
  readonly #options: WayOptions
  #isClosed = false
  /** When a connection that carries no request should not be used any more. */
  #freshUntil = Number.POSITIVE_INFINITY
  readonly #end = () => this.close()

  constructor(options: WayOptions) {
    this.#options = options
    const { http, site } = options
    this.agent = Object.assign(new http.Agent({ keepAlive: true }), {
      createConnection: () => this.connect(),
      keepSocketAlive: (socket: StreamEnd) => this.#keep(socket),
      reuseSocket: (socket: StreamEnd, request: http.ClientRequest) => {
        socket.off('data', idleOnData).off('end', idleOnEnd)
        http.Agent.prototype.reuseSocket.call(this.agent, socket, request)
      },
    })
    site.endIdle.add(this.#end)
  }

  get isFor() {
    return this.#options
  }

  /** Whether a request may go over a connection that is there. */
  get isFresh(): boolean {
    return !this.#isClosed && performance.now() < this.#freshUntil
  }

  /** A connection of its own to the target. */
  connect(): StreamEnd {
    const { site, visitor, cameTo } = this.#options
    const [ours, theirs] = streamPair()
    // Node does not listen to it before that, where it is turned away at once.
    site.take(theirs, visitor, cameTo, (error) => whenTurned(() => ours.destroy(error)))
    return ours
  }

  /** Ends connections that carry no request, and others when they have been answered. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#options.site.endIdle.delete(this.#end)
    for (const socket of Object.values(this.agent.freeSockets).flat()) socket?.end()
  }

  /** The target has said how long it keeps a connection without a request. */
  keepsFor(header: string | undefined): void {
    const [, seconds] = /\btimeout=(\d{1,6})/i.exec(header ?? '') ?? []
    const idle = seconds === undefined ? LONGEST_IDLE : Number(seconds) * 1_000 - MARGIN
    this.#freshUntil = performance.now() + idle
  }

  /** A request was answered: the connection waits for the next. */
  #keep(socket: StreamEnd): boolean {
    socket.on('data', idleOnData).on('end', idleOnEnd)
    if (this.#isClosed) socket.end()
    return true
  }
}

/** What a target says unasked would be taken for the answer to the next request. */
function idleOnData(this: StreamEnd) {
  this.destroy()
}

function idleOnEnd(this: StreamEnd) {
  this.end()
}
