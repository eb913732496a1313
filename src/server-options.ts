import { isAnyAddress, isLoopback } from './address.js'
import type { WaitOptions } from './deadline.js'
import { TunnelError } from './errors.js'
import { type HttpOptions, readHttpOptions } from './http-options.js'
import { checkLogger, type Logger } from './logger.js'
import {
  checkHost,
  checkInteger,
  checkNames,
  checkPort,
  checkTimeout,
  invalidOption,
  MAX_TIMEOUT,
} from './options.js'
import { parsePorts } from './ports.js'
import { type NamedSecret, readSecrets } from './secrets.js'
import { checkSocketFolder } from './socket-folder.js'
import { checkServerTls, type ServerTls } from './tls-options.js'
import { checkLists, visitorFilter } from './visitor-filter.js'

/** Options of `createServer`. */
export interface ServerOptions extends WaitOptions {
  /** Address to listen on, for clients and for visitors alike, or several. Default `'127.0.0.1'`. */
  host?: string | readonly string[]
  /** Port for clients. Default 0: any. */
  port?: number
  /**
   * Address to listen on for visitors of UDP tunnels, where that is another: replies come from the address that was listened on. Default:
   * `host`.
   */
  udpHost?: string
  /** The host that goes into public addresses. Default: `host`, or where that is all addresses, the one that the client dialled. */
  publicHost?: string
  /** Ports that clients may ask for, such as `'20000-20100'`. Default: from 1024 up, and any where they ask for none. */
  ports?: string | number
  /** Folder in which clients may listen on unix sockets for visitors. Default: none. */
  sockets?: string
  /** `{ port, host, domain, trustedProxies, caddy }`: one port for all HTTP tunnels, each with a name of its own. Default: none. */
  http?: HttpOptions
  /** What clients must hold, 8 characters or more. Default: none, which only a loopback address allows. */
  secret?: string
  /** More secrets, by their names. `secret` is the one named `'default'`. Default: none. */
  secrets?: Readonly<Record<string, NamedSecret>>
  /** `{ key, cert }`, in PEM: encrypts with this certificate. `false`: does not encrypt. Default: encrypts by the secret, if any. */
  tls?: ServerTls
  /** Visitors that may come, as addresses and ranges: `'192.0.2.7'`, `'10.0.0.0/8'`. At most 64. Default: all. */
  allow?: readonly string[]
  /** Visitors that may not, also where `allow` has them. Default: none. */
  deny?: readonly string[]
  /** Listens on an address that others can reach although there is no secret. Default false. */
  insecure?: boolean
  /** Milliseconds for a new connection to say what it is and to log in. Default 5,000. */
  handshakeTimeout?: number
  /** Milliseconds that a visitor waits for its data stream. Default 10,000. */
  exchangeTimeout?: number
  /** Milliseconds between heartbeats. Default 5,000. */
  heartbeatInterval?: number
  /** Milliseconds without a sign of life after which a client, or for it the server, counts as gone. Default 15,000. */
  heartbeatTimeout?: number
  /**
   * Milliseconds that the tunnels of a client are kept after its control connection was lost, for when it reconnects. 0 keeps
   * nothing. Default 30,000.
   */
  resumeTimeout?: number
  /** Milliseconds of silence after which a flow of a UDP tunnel ends, where the client does not say. Default 60,000. */
  flowTimeout?: number
  /** How much the server takes on. */
  limits?: ServerLimits
  /** Who is told what happens, such as `pino()` or `console`. Default: nobody. */
  logger?: Logger
  /** Lets the process end while the server is open. Default false. */
  unref?: boolean
  /** Milliseconds until the server listens. Default 10,000. */
  timeout?: number
}

/** How much a server takes on. */
export interface ServerLimits {
  /** Connections of strangers that have not logged in yet. Default 1,024. */
  newcomers?: number
  /** The same of one address; of one with clients, beside the data streams that are due. Default 256. */
  newcomersPerAddress?: number
  /** Clients that are logged in. Default 1,024. */
  clients?: number
  /** Messages of one client in a second, beside its answers to exchanges. Default 1,000. */
  messages?: number
  /** Tunnels of one client. Default 256. */
  tunnels?: number
  /** Visitors of one tunnel, inside and waiting. Default 4,096. */
  visitors?: number
  /** Visitors of one tunnel that wait for their data stream. Default 2,048. */
  waiting?: number
  /** The same of all tunnels. Default 8,192. */
  waitingTotal?: number
  /** Connections to the HTTP port. Default 8,192. */
  httpConnections?: number
  /** Flows of one UDP tunnel; one more ends the one that was silent the longest. Default 1,024. */
  flows?: number
}

/** Names of the options and of the limits. The types see to it that none is missing. */
const NAMES: Record<keyof ServerOptions, true> = {
  host: true,
  port: true,
  udpHost: true,
  publicHost: true,
  ports: true,
  sockets: true,
  http: true,
  secret: true,
  secrets: true,
  tls: true,
  allow: true,
  deny: true,
  insecure: true,
  handshakeTimeout: true,
  exchangeTimeout: true,
  heartbeatInterval: true,
  heartbeatTimeout: true,
  resumeTimeout: true,
  flowTimeout: true,
  limits: true,
  logger: true,
  unref: true,
  timeout: true,
  signal: true,
}
const LIMITS: Record<keyof ServerLimits, true> = {
  newcomers: true,
  newcomersPerAddress: true,
  clients: true,
  messages: true,
  tunnels: true,
  visitors: true,
  waiting: true,
  waitingTotal: true,
  httpConnections: true,
  flows: true,
}

/** Options that may change while a server runs. */
export const changeable = ['secret', 'secrets', 'tls', 'allow', 'deny', 'ports', 'limits'] as const
export type ServerChanges = Pick<ServerOptions, (typeof changeable)[number]>

/** The options as a server works with them. */
export type Settings = ReturnType<typeof readServerOptions>

/** Checks the options and fills in the defaults. */
export function readServerOptions(options: ServerOptions) {
  checkNames('options', options, Object.keys(NAMES))
  if (options.limits !== undefined) checkNames('limits', options.limits, Object.keys(LIMITS))
  const { host = '127.0.0.1', port = 0, udpHost, publicHost, ports, sockets } = options
  const { secret, tls, insecure = false, allow, deny, logger, unref = false } = options
  const { handshakeTimeout = 5_000, exchangeTimeout = 10_000, timeout = 10_000, signal } = options
  const { heartbeatInterval = 5_000, heartbeatTimeout = 15_000 } = options
  const { resumeTimeout = 30_000, flowTimeout = 60_000 } = options
  const { newcomers = 1_024, newcomersPerAddress = 256, clients = 1_024 } = options.limits ?? {}
  const { messages = 1_000, tunnels = 256, flows = 1_024, httpConnections = 8_192 } = options.limits ?? {}
  const { visitors = 4_096, waiting = 2_048, waitingTotal = 8_192 } = options.limits ?? {}

  // Brackets are for a port behind them.
  const bare = (one: unknown) => (typeof one === 'string' ? one.replace(/^\[(.*)\]$/, '$1') : one) as string
  const hosts = [...new Set([host].flat().map(bare))]
  if (hosts.length === 0) throw invalidOption('host', 'an address or a list of them', '[]')
  for (const one of hosts) checkHost('host', one)
  if (udpHost !== undefined) checkHost('udpHost', udpHost)
  const udpHosts = udpHost === undefined ? hosts : [bare(udpHost)]
  checkPort('port', port)
  if (publicHost !== undefined) checkHost('publicHost', publicHost)
  const secrets = readSecrets(secret, options.secrets)
  checkServerTls(tls)
  checkLists({ allow, deny })
  checkLogger(logger)
  if (sockets !== undefined) checkSocketFolder(sockets)
  for (const [name, value] of Object.entries({
    handshakeTimeout,
    exchangeTimeout,
    heartbeatInterval,
    heartbeatTimeout,
    flowTimeout,
  })) {
    checkTimeout(name, value)
  }
  checkInteger('resumeTimeout', resumeTimeout, 0, MAX_TIMEOUT)
  for (const [name, value] of Object.entries({
    newcomers,
    newcomersPerAddress,
    clients,
    messages,
    tunnels,
    visitors,
    waiting,
    waitingTotal,
    httpConnections,
    flows,
  })) {
    checkInteger(`limits.${name}`, value, 1, 1_000_000)
  }
  if (heartbeatTimeout < 2 * heartbeatInterval) {
    throw invalidOption(
      'heartbeatTimeout',
      `at least twice heartbeatInterval (${heartbeatInterval})`,
      heartbeatTimeout,
    )
  }
  const open = [...hosts, ...udpHosts].find((one) => !isLoopback(one))
  if (secrets.length === 0 && !insecure && open !== undefined) {
    throw new TunnelError(
      'insecure-address',
      `${open} can be reached by others, who could open tunnels: set a secret, or the option insecure if all who can reach it are trusted`,
    )
  }
  return {
    hosts,
    udpHosts,
    port,
    publicHost: publicHost ?? firstOf(hosts),
    publicUdpHost: publicHost ?? firstOf(udpHosts),
    ports: ports === undefined ? undefined : parsePorts(ports),
    sockets,
    http: options.http && readHttpOptions(options.http, hosts),
    secrets,
    tls,
    mayVisit: visitorFilter({ allow, deny }),
    logger,
    unref,
    handshakeTimeout,
    exchangeTimeout,
    heartbeatInterval,
    heartbeatTimeout,
    resumeTimeout,
    flowTimeout,
    newcomers,
    newcomersPerAddress,
    maxClients: clients,
    messages,
    maxTunnels: tunnels,
    maxVisitors: visitors,
    maxWaiting: waiting,
    maxWaitingTotal: waitingTotal,
    maxFlows: flows,
    httpConnections,
    timeout,
    signal,
  }
}

/** The host that clients are told; null where that is all addresses, of which they know one. */
function firstOf(hosts: readonly string[]): string | null {
  return hosts.some(isAnyAddress) ? null : (hosts[0] ?? null)
}
