import type { Duplex } from 'node:stream'
import type { Connection, Rejection } from './connection.js'
import { type Drop, gatherDrops } from './drops.js'
import { TunnelError } from './errors.js'
import { openPort, type PortRange } from './ports.js'
import type { FromServer, fromClient, Message } from './protocol.js'
import { listenAt, type PublicAddress } from './public-address.js'
import type { Permit } from './secrets.js'
import { ServerTunnel, type ServerTunnelOptions, type TunnelInfo } from './server-tunnel.js'
import { allowedPath } from './socket-folder.js'
import { type MayVisit, visitorFilter } from './visitor-filter.js'

type Forward = Message<typeof fromClient, 'forward'>

/** What clients may have, and who is told of what comes to it. */
export interface GrantOptions
  extends Pick<
    ServerTunnelOptions,
    'client' | 'exchanges' | 'exchangeTimeout' | 'isSilent' | 'maxVisitors' | 'maxWaiting' | 'maxWaitingTotal'
  > {
  hosts: readonly string[]
  /** The host that clients are told; null where they know it better. */
  publicHost: string | null
  ports: PortRange | undefined
  /** What the client's secret gives it. */
  permit: Permit
  /** Who may visit any tunnel, by address. */
  mayVisit: MayVisit
  /** The folder in which clients may listen on unix sockets. */
  sockets: string | undefined
  flowTimeout: number
  maxFlows: number
  unref: boolean
  /** Where the server counts. */
  tally: { drops: number }
  /** Gives up the address where it is kept for a client that is lost and was here too; tells whether it was. */
  makeRoom(address: PublicAddress): boolean
  /** Tells the client, unless it is lost. */
  send(message: FromServer): void
  onReject(rejection: Rejection, tunnel: TunnelInfo): void
  onDrop(drop: Drop, tunnel: TunnelInfo): void
  onConnection(connection: Connection, tunnel: TunnelInfo, ...streams: Duplex[]): void
}

/**
 * Opens the public address that a client asks for. Rejects with `port-not-allowed`, `port-taken`, `ports-exhausted`,
 * `path-not-allowed`, `path-taken`, `address-unavailable` or `limit-reached`.
 */
export async function grant(message: Forward, options: GrantOptions): Promise<ServerTunnel> {
  const { tunnel: number, protocol, port: asked, whileLost = 'wait' } = message
  const { permit, unref, hosts, sockets, send } = options
  const ports = permit.settings?.ports ?? options.ports
  const isWanted = visitorFilter(message)
  const mayVisit = (address: string) => options.mayVisit(address) && isWanted(address)
  let tunnel: ServerTunnel | undefined
  const onDrop = gatherDrops(options.tally, (drop) => {
    send({ type: 'dropped', tunnel: number, ...drop })
    if (tunnel) options.onDrop(drop, tunnel)
  })
  const settings = { unref, ...flowSettings(message, options), mayVisit, onDrop }
  // No visitor is handed over before the event loop turns, and by then the tunnel is there.
  const listenOn = (address: PublicAddress) =>
    listenAt(address, settings, (stream, visitor, cameTo) => tunnel?.park(stream, visitor, cameTo))
  const path = protocol === 'unix' ? allowedPath(sockets, message.path) : undefined
  const address: PublicAddress =
    protocol === 'unix' ? { protocol, path: path ?? '' } : { protocol, hosts, port: asked }
  const listen = () =>
    address.protocol === 'unix'
      ? listenOn(address)
      : openPort(ports, asked, (port) => listenOn({ ...address, port }))
  const listener = await listen().catch((error) => {
    // A client that was killed comes back as another one.
    const isTaken = error instanceof TunnelError && /^(port|path)-taken$/.test(error.code)
    if (isTaken && options.makeRoom(address)) return listen()
    throw error
  })

  const granted: ServerTunnel = new ServerTunnel(listener, {
    ...options,
    protocol,
    path,
    whileLost,
    secretName: permit.name,
    mayVisit,
    onExchange: (id, { address, port }, cameTo) => {
      const where = { address, port, localAddress: cameTo.address, localPort: cameTo.port }
      send({ type: 'exchange', tunnel: number, id, ...where })
    },
    onConnection: (connection, ...streams) => options.onConnection(connection, granted, ...streams),
    onReject: (rejection) => options.onReject(rejection, granted),
  })
  tunnel = granted
  return granted
}

/** As the client wants them, as far as it may; else the server's own. */
function flowSettings({ protocol, flowTimeout, maxFlows }: Forward, options: GrantOptions) {
  const most = options.maxFlows
  if (protocol === 'udp' && maxFlows !== undefined && maxFlows > most) {
    throw new TunnelError(
      'limit-reached',
      `maxFlows may be ${most} at this server, not ${maxFlows}: raise limits.flows of createServer`,
    )
  }
  return { flowTimeout: flowTimeout ?? options.flowTimeout, maxFlows: maxFlows ?? most }
}
