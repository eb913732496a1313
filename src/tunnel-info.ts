import { formatAddress } from './address.js'
import type { CloseOptions, Stats } from './connections.js'
import type { TunnelError } from './errors.js'
import type { SocketAddress } from './listener.js'
import type { Protocol } from './protocol.js'

/** A tunnel as its server shows it. */
export interface TunnelInfo {
  /** Short, and the same for as long as the tunnel is open, however often its client reconnects. */
  readonly id: string
  /** What its visitors speak. */
  readonly protocol: Protocol
  /**
   * Address that the server listens on for visitors, the first where there are several; empty for a unix socket, and the host of
   * the URL for an HTTP tunnel.
   */
  readonly host: string
  /** 0 for a unix socket; that of the URL for an HTTP tunnel. */
  readonly port: number
  /** File that it listens on, where that is a unix socket. */
  readonly path: string | undefined
  /** Name of an HTTP tunnel, in front of the domain. */
  readonly hostname: string | undefined
  /** Public URL of an HTTP tunnel. */
  readonly url: string | undefined
  /** Where the client's control connection comes from. */
  readonly client: SocketAddress
  /** Name of the secret that the client holds, where the server asks for one. */
  readonly secretName: string | undefined
  readonly openedAt: Date
  /** How many visitors are inside now. */
  readonly connections: number
  /** What was counted since it was opened. */
  readonly stats: Stats
  /** Resolves, and never rejects, when the tunnel is gone: with the error, where the client did not give it back. */
  readonly closed: Promise<TunnelError | undefined>
  /**
   * Takes the tunnel from its client, which is told so (`closed-by-server`) and does not ask for it again. Resolves when nobody is
   * inside any more: visitors get `grace` milliseconds (default 0) to finish.
   */
  close(options?: CloseOptions): Promise<void>
}

/** Where its visitors connect: `127.0.0.1:41234`, `udp:127.0.0.1:41234` or `unix:/tmp/x.sock`. */
export function formatTunnel({ protocol, host, port, path, url }: TunnelInfo): string {
  if (url !== undefined) return url
  if (path !== undefined) return `unix:${path}`
  return `${protocol === 'udp' ? 'udp:' : ''}${formatAddress({ host, port })}`
}
