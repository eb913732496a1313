import type { Duplex } from 'node:stream'
import type { Connection, Rejection } from './connection.js'
import { type Drop, gatherDrops, type OnDrop } from './drops.js'
import { TunnelError } from './errors.js'
import { nameFor } from './hostname.js'
import type { Names, SiteInfo } from './http/names.js'
import type { Listener } from './listener.js'
import { openPort, type PortRange } from './ports.js'
import type { FromServer, fromClient, Message } from './protocol.js'
import { type GrantedAddress, listenAt, type PublicAddress } from './public-address.js'
import type { Permit } from './secrets.js'
import { ServerTunnel, type ServerTunnelOptions } from './server-tunnel.js'
import { allowedPath } from './socket-folder.js'
import type { TunnelInfo } from './tunnel-info.js'
import { type MayVisit, visitorFilter } from './visitor-filter.js'

type Forward = Message<typeof fromClient, 'forward'>

/** What clients may have, and who is told of what comes to it. */
export interface GrantOptions
  extends Pick<
    ServerTunnelOptions,
    | 'client'
    | 'exchanges'
    | 'exchangeTimeout'
    | 'isSilent'
    | 'maxVisitors'
    | 'maxWaiting'
    | 'maxWaitingTotal'
    | 'takeBack'
  > {
  hosts: readonly string[]
  udpHosts: readonly string[]
  /** The host that clients are told; null where they know it better. */
  publicHost: string | null
  publicUdpHost: string | null
  ports: PortRange | undefined
  /** What the client's secret gives it. */
  permit: Permit
  /** Who may visit any tunnel, by address. */
  mayVisit: MayVisit
  /** The folder in which clients may listen on unix sockets. */
  sockets: string | undefined
  /** The names of HTTP tunnels, where the server has a port for these. */
  names: Names | undefined
  flowTimeout: number
  maxFlows: number
  unref: boolean
  /** Where the server counts. */
  tally: { drops: number }
  /** Gives up the address where it is kept for a client that is lost and was here too; tells whether it was. */
  makeRoom(address: GrantedAddress): boolean
  /** Tells the client, unless it is lost. */
  send(message: FromServer): void
  onReject(rejection: Rejection, tunnel: TunnelInfo): void
  onDrop(drop: Drop, tunnel: TunnelInfo): void
  onConnection(connection: Connection, tunnel: TunnelInfo, ...streams: Duplex[]): void
}

/**
 * Opens the public address that a client asks for. Rejects with `port-not-allowed`, `port-taken`, `ports-exhausted`,
 * `path-not-allowed`, `path-taken`, `hostname-not-allowed`, `hostname-taken`, `http-unavailable`, `address-unavailable` or
 * `limit-reached`.
 */
export async function grant(message: Forward, options: GrantOptions): Promise<ServerTunnel> {
  const { tunnel: number, protocol, port: asked, basicAuth, whileLost = 'wait' } = message
  const { permit, unref, send } = options
  const ports = permit.settings?.ports ?? options.ports
  const isWanted = visitorFilter(message)
  const mayVisit = (address: string) => options.mayVisit(address) && isWanted(address)
  let tunnel: ServerTunnel | undefined
  const tellDrops = gatherDrops(options.tally, (drop) => {
    send({ type: 'dropped', tunnel: number, ...drop })
    if (tunnel) options.onDrop(drop, tunnel)
  })
  const onDrop: OnDrop = (count, reason) => {
    tunnel?.countDrops(count)
    tellDrops(count, reason)
  }
  const settings = { unref, ...flowSettings(message, options), mayVisit, onDrop }
  const address = addressOf(message, options)
  // No visitor is handed over before the event loop turns, and by then the tunnel is there.
  const listenOn = (one: PublicAddress) =>
    listenAt(one, settings, (stream, visitor, cameTo) => tunnel?.park(stream, visitor, cameTo))
  const listen = async (): Promise<Listener & { readonly site?: SiteInfo }> => {
    if (address.protocol === 'unix') return listenOn(address)
    if (address.protocol !== 'http') return openPort(ports, asked, (port) => listenOn({ ...address, port }))
    const { hostname, names } = address
    return names.listen({
      hostname,
      basicAuth,
      take: (...visit) => tunnel?.park(...visit),
      turnedAway: (...turned) => tunnel?.turnedAway(...turned),
    })
  }
  const listener = await listen().catch((error) => {
    // A client that was killed comes back as another one.
    const isTaken = error instanceof TunnelError && /^(port|path|hostname)-taken$/.test(error.code)
    if (isTaken && options.makeRoom(address)) return listen()
    throw error
  })

  const granted: ServerTunnel = new ServerTunnel(listener, {
    ...options,
    protocol,
    path: address.protocol === 'unix' ? address.path : undefined,
    site: listener.site,
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

/** How often a name is made up that turns out to be taken, or somebody else's. */
const MAX_ATTEMPTS = 20

/** Where the tunnel is to be, if it may. */
function addressOf({ protocol, port, path, hostname }: Forward, options: GrantOptions) {
  const { hosts, udpHosts, sockets, names, permit } = options
  if (protocol === 'unix') return { protocol, path: allowedPath(sockets, path) }
  if (protocol !== 'http') return { protocol, hosts: protocol === 'udp' ? udpHosts : hosts, port }
  if (!names) {
    const message = 'the server has no port for HTTP tunnels: start it with --http-port (option http)'
    throw new TunnelError('http-unavailable', message)
  }
  if (hostname !== undefined && !permit.mayBeCalled(hostname)) throw notAllowed(hostname, permit)
  return { protocol, hostname: hostname ?? freeName(names, permit), names }
}

function notAllowed(hostname: string, { settings }: Permit): TunnelError {
  const next = settings?.hostnames
    ? `ask for one of ${settings.hostnames.join(', ')}`
    : 'another secret has it for itself, so ask for another'
  return new TunnelError('hostname-not-allowed', `the name ${hostname} is not allowed: ${next}`)
}

/** A name that this client may have and nobody has yet. */
function freeName(names: Names, permit: Permit): string {
  const patterns = permit.settings?.hostnames ?? ['*']
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    for (const pattern of patterns) {
      const name = nameFor(pattern)
      if (permit.mayBeCalled(name) && !names.isTaken(name)) return name
    }
  }
  const message = `every name of the secret ${permit.name} is taken: close a tunnel, or give it more hostnames`
  throw new TunnelError('hostname-taken', message)
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
