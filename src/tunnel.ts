import type { EventEmitter } from 'node:events'
import type { Agent } from 'node:http'
import type { Conditions } from './conditions/options.js'
import type { Connection, Rejection } from './connection.js'
import type { CloseOptions, Stats } from './connections.js'
import type { Drop } from './drops.js'
import type { TunnelError } from './errors.js'
import type { RecordedRequest } from './inspector/record.js'
import type { Requests } from './inspector/requests.js'
import type { Protocol } from './protocol.js'

/** The events of a {@link Tunnel} and what their listeners are called with. */
export interface TunnelEvents {
  /** A visitor was joined to the target. */
  connection: [connection: Connection]
  /** A visitor was turned away, because the target or the server could not be reached. */
  reject: [rejection: Rejection]
  /** A request has ended: it was answered, or broke off. With the option `inspect` alone. */
  request: [request: RecordedRequest]
  /** Datagrams were dropped, at the server or here. Once a second at the most. */
  drop: [drop: Drop]
  /** The control connection was lost: the client is about to reconnect. Visitors inside stay. */
  disconnect: [error: TunnelError]
  /** The public address is open again. */
  reconnect: []
}

/** One public address bound to one target, while open. */
export interface Tunnel extends EventEmitter<TunnelEvents>, AsyncDisposable {
  /** Public address, with the scheme of the target: `http://127.0.0.1:41234`; `unix:/tmp/x.sock` for a unix socket. */
  readonly url: string
  /** Host of the public address; empty for a unix socket. */
  readonly host: string
  /** Port of the public address; 0 for a unix socket. */
  readonly port: number
  /** File of the public address, where that is a unix socket. */
  readonly path: string | undefined
  /** Name of an HTTP tunnel, in front of the server's domain. */
  readonly hostname: string | undefined
  /** What visitors speak. */
  readonly protocol: Protocol
  /** Where visitors end up: `localhost:3000`. */
  readonly target: string
  /**
   * For requests of `node:http` to an HTTP tunnel: it finds names in `localhost`, which Node asks the name server for. Undefined for
   * other tunnels.
   */
  readonly agent: Agent | undefined
  /**
   * `fetch` of a path at the public URL, or of any URL or `Request`. Like {@link agent}, it finds names in `localhost`. Rejects with `closed`
   * once the tunnel is.
   */
  fetch(path: string | URL | Request, init?: RequestInit): Promise<Response>
  /** How many visitors are inside now. */
  readonly connections: number
  /** What was counted since it was opened. */
  readonly stats: Stats
  /** The requests of HTTP/1 that went through it. Throws `invalid-option` where it was opened without `inspect`. */
  readonly requests: Requests
  /** Resolves, and never rejects, when the tunnel is closed: with the error, where it was not closed by you. */
  readonly closed: Promise<TunnelError | undefined>
  /**
   * Gives the public address back, and resolves when every socket is closed. Visitors inside get `grace`
   * milliseconds (default 0) to finish. Every call gives the same promise; one without `grace` after one that had
   * some cuts at once.
   */
  close(options?: CloseOptions): Promise<void>

  /** What is wrong with the network on purpose; `seed` is there where anything was said of it. */
  readonly conditions: Conditions
  /**
   * Replaces the conditions, for visitors inside too. Where the tunnel was opened without the option `conditions`, visitors that are
   * inside keep what they have. Throws `invalid-option`.
   */
  setConditions(conditions: Conditions): void
  /** Nothing flows until {@link resume}: visitors are let in and hear nothing. For visitors inside as in {@link setConditions}. */
  pause(): void
  /** What was paused flows again. */
  resume(): void
  /** Resets everybody who is inside now. */
  cut(): void
  /** Resets the control connection, so that the client reconnects. Throws `invalid-option` where `forward` has none. */
  dropControl(): void
}
