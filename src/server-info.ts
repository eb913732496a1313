/** A server as its users see it. */
import type { EventEmitter } from 'node:events'
import type { Connection, Rejection } from './connection.js'
import type { CloseOptions, Stats } from './connections.js'
import type { Drop } from './drops.js'
import type { TunnelError } from './errors.js'
import type { SocketAddress } from './listener.js'
import type { ServerChanges } from './server-options.js'
import type { TunnelInfo } from './tunnel-info.js'

/** The events of a {@link Server} and what their listeners are called with. */
export interface ServerEvents {
  /** A client opened a tunnel. */
  tunnel: [tunnel: TunnelInfo]
  /** A visitor was joined to its data stream. */
  connection: [connection: Connection, tunnel: TunnelInfo]
  /** A visitor was turned away. */
  reject: [rejection: Rejection, tunnel: TunnelInfo]
  /** Datagrams were dropped. Once a second for each tunnel at the most. */
  drop: [drop: Drop, tunnel: TunnelInfo]
  /** A client was refused: at its login, or later for what it did. */
  refuse: [refusal: Refusal]
  /** The control connection of a client was lost. Its tunnels, if any, are kept for `resumeTimeout`. */
  disconnect: [loss: Refusal]
  /** A client that was lost is back, and has its tunnels again. */
  reconnect: [client: SocketAddress]
  /** A client has answered a heartbeat: every `heartbeatInterval`, for each. */
  heartbeat: [client: SocketAddress]
  /** The Caddy in front can't be reached or configured any more. It is tried again. */
  caddyLost: [error: TunnelError]
  /** The Caddy in front has lost its configuration, or was lost, and is configured again. */
  caddyBack: []
  /** The server is closed. */
  close: []
}

/** A client that was refused or lost, as events show it. */
export interface Refusal {
  readonly client: SocketAddress
  readonly error: TunnelError
  /** Name of the secret that it holds, where it has shown that. */
  readonly secretName: string | undefined
  /** How many logins from its address have failed of late, by a wrong secret. */
  readonly failures: number
}

/** The public side of tunnels. */
export interface Server extends EventEmitter<ServerEvents>, AsyncDisposable {
  /** Address that it listens on, the first where there are several. */
  readonly host: string
  /** Port for clients. */
  readonly port: number
  /** Port for visitors of HTTP tunnels, where there is one. */
  readonly httpPort: number | undefined
  /** Where clients connect, without the secret: `pipe://127.0.0.1:8910`. */
  readonly address: string
  /** What clients must hold: the secret named `'default'`, where there is one. */
  readonly secret: string | undefined
  /** How clients have to connect, as the option of `openTunnel` says it; undefined stands for TLS by the secret. */
  readonly tls: boolean | undefined
  /** Whether it is closed, or `close` was called. */
  readonly closing: boolean
  /** How many visitors are inside now. */
  readonly connections: number
  /** What was counted since it was started. */
  readonly stats: Stats
  /** The tunnels that are open now. */
  readonly tunnels: readonly TunnelInfo[]
  /**
   * Closes all tunnels and resolves when every socket is closed. Visitors inside get `grace` milliseconds (default 0)
   * to finish. Every call gives the same promise; one without `grace` after one that had some cuts at once.
   */
  close(options?: CloseOptions): Promise<void>
  /**
   * Takes a secret back, by its name, at once and for as long as the server runs: its clients are refused, their tunnels
   * closed, and visitors inside are cut. Throws `invalid-option` where there is none of that name.
   */
  revoke(name: string): void
  /**
   * Changes options while it runs; those that are left out stay as they are. Secrets that are not among `secrets` any more are
   * revoked. Lists and new secrets hold at once, `ports` and the limits of a client for those that log in from then on. Rejects with
   * `invalid-option`, and then nothing has changed.
   */
  update(changes: ServerChanges): Promise<void>
}
