import { isAnyAddress, isLoopback } from './address.js'
import type { WaitOptions } from './deadline.js'
import { TunnelError } from './errors.js'
import {
  checkHost,
  checkInteger,
  checkPort,
  checkSecret,
  checkTimeout,
  invalidOption,
  MAX_TIMEOUT,
} from './options.js'
import { parsePorts } from './ports.js'
import { checkSocketFolder } from './socket-folder.js'

/** Options of `createServer`. */
export interface ServerOptions extends WaitOptions {
  /** Address to listen on, for clients and for visitors alike, or several. Default `'127.0.0.1'`. */
  host?: string | readonly string[]
  /** Port for clients. Default 0: any. */
  port?: number
  /** The host that goes into public addresses. Default: `host`, or where that is all addresses, the one that the client dialled. */
  publicHost?: string
  /** Ports that clients may ask for, such as `'20000-20100'`. Default: from 1024 up, and any where they ask for none. */
  ports?: string | number
  /** Folder in which clients may listen on unix sockets for visitors. Default: none. */
  sockets?: string
  /** What clients must hold, 8 characters or more. Default: none, which only a loopback address allows. */
  secret?: string
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
  /** Lets the process end while the server is open. Default false. */
  unref?: boolean
  /** Milliseconds until the server listens. Default 10,000. */
  timeout?: number
}

/** How much a server takes on. */
export interface ServerLimits {
  /** Connections that have not logged in yet. Default 4,096. */
  newcomers?: number
  /** Tunnels of one client. Default 256. */
  tunnels?: number
  /** Visitors of one tunnel that wait for their data stream. Default 2,048. */
  waiting?: number
  /** Flows of one UDP tunnel; one more ends the one that was silent the longest. Default 1,024. */
  flows?: number
}

/** The options as a server works with them. */
export type Settings = ReturnType<typeof readServerOptions>

/** Checks the options and fills in the defaults. */
export function readServerOptions(options: ServerOptions) {
  const { host = '127.0.0.1', port = 0, publicHost, ports, sockets } = options
  const { secret, insecure = false, unref = false } = options
  const { handshakeTimeout = 5_000, exchangeTimeout = 10_000, timeout = 10_000, signal } = options
  const { heartbeatInterval = 5_000, heartbeatTimeout = 15_000 } = options
  const { resumeTimeout = 30_000, flowTimeout = 60_000 } = options
  const { newcomers = 4_096, tunnels = 256, waiting = 2_048, flows = 1_024 } = options.limits ?? {}

  // Brackets are for a port behind them.
  const bare = (one: unknown) => (typeof one === 'string' ? one.replace(/^\[(.*)\]$/, '$1') : one) as string
  const hosts = [...new Set([host].flat().map(bare))]
  if (hosts.length === 0) throw invalidOption('host', 'an address or a list of them', '[]')
  for (const one of hosts) checkHost('host', one)
  checkPort('port', port)
  if (publicHost !== undefined) checkHost('publicHost', publicHost)
  checkSecret('secret', secret)
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
  for (const [name, value] of Object.entries({ newcomers, tunnels, waiting, flows })) {
    checkInteger(`limits.${name}`, value, 1, 1_000_000)
  }
  if (heartbeatTimeout < 2 * heartbeatInterval) {
    throw invalidOption(
      'heartbeatTimeout',
      `at least twice heartbeatInterval (${heartbeatInterval})`,
      heartbeatTimeout,
    )
  }
  const open = hosts.find((one) => !isLoopback(one))
  if (secret === undefined && !insecure && open !== undefined) {
    throw new TunnelError(
      'insecure-address',
      `${open} can be reached by others, who could open tunnels: set a secret, or the option insecure if all who can reach it are trusted`,
    )
  }
  return {
    hosts,
    port,
    publicHost: publicHost ?? (hosts.some(isAnyAddress) ? null : (hosts[0] ?? null)),
    ports: ports === undefined ? undefined : parsePorts(ports),
    sockets,
    secret,
    unref,
    handshakeTimeout,
    exchangeTimeout,
    heartbeatInterval,
    heartbeatTimeout,
    resumeTimeout,
    flowTimeout,
    newcomers,
    maxTunnels: tunnels,
    maxWaiting: waiting,
    maxFlows: flows,
    timeout,
    signal,
  }
}
