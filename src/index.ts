/** The public names, one by one. */
export type { CloseOptions, Connection, ConnectionEnd, Rejection, Visitor } from './connection.js'
export type { WaitOptions } from './deadline.js'
export type { Endpoint } from './endpoint.js'
export { TunnelError, type TunnelErrorCode } from './errors.js'
export { openTunnel, type TunnelOptions } from './open-tunnel.js'
export {
  createServer,
  type Refusal,
  type Server,
  type ServerEvents,
} from './server.js'
export type { ServerLimits, ServerOptions } from './server-options.js'
export type { TunnelInfo } from './server-tunnel.js'
export type { Target } from './target.js'
export type { Tunnel, TunnelEvents } from './tunnel.js'
