/** The public names, one by one. */
export type { CloseOptions, Connection, ConnectionEnd, Rejection, Stats } from './connection.js'
export type { WaitOptions } from './deadline.js'
export type { Drop } from './drops.js'
export type { Endpoint } from './endpoint.js'
export { TunnelError, type TunnelErrorCode } from './errors.js'
export { type ForwardOptions, forward } from './forward.js'
export type { Visitor } from './listener.js'
export type { LocalOptions } from './local-options.js'
export type { Tunnel, TunnelEvents } from './local-tunnel.js'
export { openTunnel, type TunnelOptions } from './open-tunnel.js'
export type { ProxyProtocol } from './proxy-header.js'
export type { NamedSecret } from './secrets.js'
export {
  createServer,
  type Refusal,
  type Server,
  type ServerEvents,
} from './server.js'
export type { ServerLimits, ServerOptions } from './server-options.js'
export type { TunnelInfo } from './server-tunnel.js'
export type { Target } from './target.js'
export type { Rate } from './throttle.js'
export type { ClientTls, ServerTls } from './tls-options.js'
