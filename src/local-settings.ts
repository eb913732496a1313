import type { CheckedConditions } from './conditions/options.js'
import type { PublicName } from './http/access.js'
import type { InspectOptions } from './inspector/recorder.js'
import type { Logger } from './logger.js'
import type { Protocol } from './protocol.js'
import type { ProxyProtocol } from './proxy-header.js'
import type { ParsedTarget } from './target.js'
import type { MayVisit } from './visitor-filter.js'

/** What the caller wants of the way to the target. */
export interface LocalSettings {
  target: ParsedTarget
  proxyProtocol: ProxyProtocol | undefined
  /** What requests are to name as their host. */
  hostHeader: string | undefined
  /** Bytes per second and direction. */
  limit: number | undefined
  /** What is wrong with the network; undefined where nothing is to be. */
  conditions: CheckedConditions | undefined
  /** What is recorded of requests; undefined where nothing is. */
  inspect: Required<InspectOptions> | undefined
  /** Who may come in, by address. */
  mayVisit: MayVisit
  logger: Logger | undefined
  unref: boolean
}

export interface LocalTunnelOptions extends LocalSettings {
  protocol: Protocol
  host: string
  port: number
  path: string | undefined
  /** What makes an HTTP tunnel. */
  site?: PublicName | undefined
  /** Milliseconds to join a visitor with the target. */
  exchangeTimeout: number
  /** Gives the public address back: no visitor comes any more. */
  giveBack(): Promise<void>
  /** Resets the control connection, where there is one. */
  dropControl?(): void
  /** Closes what was opened for this tunnel. Called once, when it is closed or lost. */
  release(): Promise<void>
}
