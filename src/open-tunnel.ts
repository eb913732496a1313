import { randomBytes } from 'node:crypto'
import { formatAddress } from './address.js'
import { readBasicAuth } from './basic-auth.js'
import { Client, type ClientOptions } from './client.js'
import type { OpenOptions } from './client-tunnels.js'
import { type WaitOptions, withDeadline } from './deadline.js'
import { type Endpoint, findEndpoint, type KnownEndpoint } from './endpoint.js'
import { reasonOf, TunnelError } from './errors.js'
import { readHostname } from './hostname.js'
import {
  type CheckedOptions,
  type LocalOptions,
  localNames,
  readLocalOptions,
  waitForTargets,
} from './local-options.js'
import { checkInteger, checkNames, checkPort, invalidOption, MAX_TIMEOUT } from './options.js'
import { untilItWorks } from './retry.js'
import { createServer } from './server.js'
import type { Server } from './server-info.js'
import { type Control, ServerLink } from './server-link.js'
import type { Target } from './target.js'
import type { ClientTls } from './tls-options.js'
import type { Tunnel } from './tunnel.js'
import { TunnelGroup } from './tunnel-group.js'
import { parseOwnUnixPath, parseUnixPath } from './unix.js'

/** Options of {@link openTunnel}. */
export interface TunnelOptions extends LocalOptions {
  /**
   * The server to go through: a `Server`, or an address such as `'host'`, `'host:8910'` or `'pipe://secret@host'`.
   * Default: the one that `PIPE_SERVER` names, else one of its own in this process, on 127.0.0.1.
   */
  server?: string | Endpoint
  /** What the server asks for. Default: what `server` holds, else `PIPE_SECRET` where the server is an address. */
  secret?: string
  /**
   * `true` or `{ ca, servername }`: encrypts, with a server that shows a certificate. `false`: does not encrypt. Default: what
   * `server` does, else encrypts by the secret, if any.
   */
  tls?: ClientTls
  /** Public port. Default 0: any. */
  port?: number
  /**
   * Makes an HTTP tunnel, of this name in front of the server's domain: `'shop'` for `http://shop.localhost:8080`. With `true`, the
   * server chooses one. Default: none, and a port of its own.
   */
  hostname?: string | boolean
  /** Asks visitors of an HTTP tunnel for a name and a password: `'user:pass'`. Default: none. */
  basicAuth?: string
  /** Unix socket on the server's machine that visitors use instead of a port: `'unix:/tmp/x.sock'`. Default: none. */
  listen?: string
  /**
   * One connection to the server carries all: the control connection and every visitor, as streams of yamux. Default false: a
   * connection for each visitor.
   */
  mux?: boolean
  /** Tries again while the server can't be reached, until `timeout`. Default false: the first failure is told. */
  retry?: boolean
  /** Connects again, and takes the public address back, when the control connection was lost. Default true. */
  reconnect?: boolean
  /** Attempts in a row to reconnect, before the tunnel is given up. Default: any number. */
  maxReconnects?: number
  /**
   * What becomes of visitors that come while the control connection is lost: they wait for it, or are refused at once.
   * Default `'wait'`.
   */
  whileLost?: 'wait' | 'refuse'
}

/** Names of those that are not {@link LocalOptions}. The type sees to it that none is missing. */
const NAMES: Record<Exclude<keyof TunnelOptions, keyof LocalOptions>, true> = {
  server: true,
  secret: true,
  tls: true,
  port: true,
  hostname: true,
  basicAuth: true,
  listen: true,
  mux: true,
  retry: true,
  reconnect: true,
  maxReconnects: true,
  whileLost: true,
}

/** Those of the control connection, which several tunnels share. */
export type LinkOptions = WaitOptions &
  Pick<TunnelOptions, 'server' | 'secret' | 'tls' | 'mux' | 'retry' | 'reconnect' | 'maxReconnects' | 'unref'>

/** One of several tunnels to open, with the options that are its own. */
export interface WantedTunnel extends Omit<TunnelOptions, keyof LinkOptions> {
  target: Target
}

/**
 * Makes `target` reachable at a public address; resolves when that is open for visitors. The target itself may
 * start later: until then visitors are turned away at once.
 *
 * Rejects with `invalid-option`, `server-unreachable`, `secret-wrong`, `secret-required`, `server-unproven`, `tls-required`,
 * `version-mismatch`, `port-taken`, `port-not-allowed`, `ports-exhausted`, `path-taken`, `path-not-allowed`,
 * `hostname-taken`, `hostname-not-allowed`, `http-unavailable`, `url-unreachable`, `address-unavailable`, `limit-reached`, `protocol-violation`, `connection-lost`, `server-closed`, `refused`, `timeout`
 * or `aborted`.
 */
export async function openTunnel(target: Target, options: TunnelOptions = {}): Promise<Tunnel> {
  checkNames('options', options, [...Object.keys(NAMES), ...localNames])
  const [tunnel] = await openTunnels([{ ...options, target }], options)
  return tunnel as Tunnel
}

/** Opens several tunnels over one control connection: all of them, or none. */
export async function openTunnels(wanted: WantedTunnel[], options: LinkOptions): Promise<Tunnel[]> {
  const { tunnels, release } = await openGroup(wanted, options)
  release()
  return tunnels
}

/** Tunnels over one control connection, and more to come. */
export interface OpenedGroup {
  /** Those that were opened first. */
  tunnels: Tunnel[]
  open(wanted: WantedTunnel, wait?: WaitOptions): Promise<Tunnel>
  /** No more will come: the control connection ends with the last tunnel. */
  release(): Promise<void>
}

/** Opens several tunnels over one control connection, all of them or none, and leaves that open for more. */
export async function openGroup(wanted: WantedTunnel[], options: LinkOptions): Promise<OpenedGroup> {
  const { unref = false, timeout = 10_000, signal, retry = false, mux = false } = options
  const maxReconnects = readMaxReconnects(options)
  const endpoint = findEndpoint(options.server, options.secret, options.tls)
  const read = (one: WantedTunnel) => readWanted(one, unref, endpoint === undefined)
  const locals = wanted.map(read)
  await waitForTargets(locals, { timeout, signal })

  const where = endpoint ? ` through ${formatAddress(endpoint)}` : ''
  const doing = (some: typeof locals) =>
    `opening a tunnel to ${some.map(({ target }) => target.name).join(', ')}${where}`
  const { group, tunnels } = await withDeadline(doing(locals), { timeout, signal }, async (aborted) => {
    const isHttp = locals.some(({ wanted }) => wanted.protocol === 'http')
    const embedded = endpoint ? undefined : await embedServer(wanted, options, isHttp)
    const link = new ServerLink((endpoint ?? findEndpoint(embedded, undefined)) as KnownEndpoint, {
      mux,
      unref,
    })
    let last: unknown
    const logIn = () => (retry ? link.logInSoon(timeout, aborted) : link.logIn(aborted))
    const attempt = () =>
      openThrough(
        link,
        logIn,
        locals,
        { maxReconnects, unref, release: async () => embedded?.close() },
        aborted,
      ).catch((error) => {
        // One that was given up for want of all time has nothing else to tell.
        if (aborted.aborted && error.code === 'aborted') throw aborted.reason
        last = error
        throw error
      })
    try {
      if (!retry) return await attempt()
      return await untilItWorks(attempt, {
        attempts: Number.POSITIVE_INFINITY,
        signal: aborted,
        unref: false,
      })
    } catch (error) {
      embedded?.close()
      if (!retry || error !== aborted.reason || !last) throw error
      const { code, message, cause } = error as TunnelError
      throw new TunnelError(code, `${message} (${reasonOf(last)})`, { cause })
    }
  })
  return {
    tunnels,
    async open(one, wait = {}) {
      const more = [read(one)] as const
      const waiting = { timeout, ...wait }
      await waitForTargets(more, waiting)
      return withDeadline(doing([...more]), waiting, (aborted) => group.open(more[0], aborted))
    },
    release: () => group.release(),
  }
}

/** A server for these tunnels alone. Its secret keeps other programs of the machine out; what never leaves it needs no TLS. */
function embedServer(
  wanted: WantedTunnel[],
  { secret, unref }: LinkOptions,
  isHttp: boolean,
): Promise<Server> {
  const flows = wanted.flatMap(({ maxFlows }) => maxFlows ?? [])
  const limits = flows.length > 0 ? { flows: Math.max(...flows) } : {}
  const held = secret ?? randomBytes(32).toString('hex')
  const http = isHttp ? { http: { port: 0 } } : {}
  return createServer({ secret: held, tls: false, unref, sockets: '/', limits, ...http })
}

/** One attempt. What it has opened is closed where it fails. */
async function openThrough(
  link: ServerLink,
  logIn: () => Promise<Control>,
  locals: Omit<OpenOptions, 'release'>[],
  { release, ...options }: ClientOptions & { release(): Promise<void> },
  aborted: AbortSignal,
): Promise<{ group: TunnelGroup; tunnels: Tunnel[] }> {
  const client = new Client(link, await logIn(), options)
  const group = new TunnelGroup(client, release)
  try {
    return { group, tunnels: await Promise.all(locals.map((one) => group.open(one, aborted))) }
  } catch (error) {
    // Not awaited: a server that does not answer may not keep the caller beyond the timeout.
    client.close()
    throw error
  }
}

/** How often a lost control connection is to be made anew. */
function readMaxReconnects(options: LinkOptions): number {
  const { mux = false, retry = false, reconnect = true, maxReconnects } = options
  for (const [name, value] of Object.entries({ mux, retry, reconnect })) {
    if (typeof value !== 'boolean') throw invalidOption(name, 'true or false', value)
  }
  if (maxReconnects !== undefined) checkInteger('maxReconnects', maxReconnects, 1, MAX_TIMEOUT)
  return reconnect ? (maxReconnects ?? Number.POSITIVE_INFINITY) : 0
}

/** Checks the options of one tunnel, and says what the client asks the server for. Throws `invalid-option`. */
export function readWanted(
  { target, port = 0, hostname, basicAuth, listen, whileLost, ...options }: WantedTunnel,
  unref: boolean,
  isEmbedded: boolean,
): CheckedOptions & Omit<OpenOptions, 'release'> {
  const local = readLocalOptions(target, { ...options, unref })
  const { flowTimeout, maxFlows, allow, deny } = local
  const asked = { port, flowTimeout, maxFlows, allow, deny, whileLost }
  checkPort('port', port)
  if (whileLost !== undefined && whileLost !== 'wait' && whileLost !== 'refuse')
    throw invalidOption('whileLost', "'wait' or 'refuse'", whileLost)
  const name = readHostname(hostname)
  const digest = readBasicAuth(basicAuth)
  if (digest && !name) throw new TunnelError('invalid-option', 'basicAuth is for tunnels with a hostname')
  if (name) {
    for (const [option, value] of Object.entries({ port: port || undefined, listen })) {
      if (value !== undefined) throw invalidOption(option, 'left out where hostname is given', value)
    }
    if (local.target.isUdp || local.target.scheme === 'https')
      throw invalidOption('target', 'one that speaks HTTP without TLS, as there is a hostname', target)
    const http = { protocol: 'http', hostname: name === true ? undefined : name, basicAuth: digest } as const
    return { ...local, wanted: { ...asked, ...http } }
  }
  if (listen === undefined) {
    return { ...local, wanted: { ...asked, protocol: local.target.isUdp ? 'udp' : 'tcp' } }
  }

  // Another server has a folder and a system of its own.
  const parse = isEmbedded ? parseOwnUnixPath : parseUnixPath
  const path = typeof listen === 'string' ? parse('listen', listen) : undefined
  if (path === undefined) throw invalidOption('listen', "a unix socket such as 'unix:/tmp/x.sock'", listen)
  if (port !== 0) throw invalidOption('port', 'left out where listen is given', port)
  if (local.target.isUdp) throw invalidOption('listen', 'left out for a udp target', listen)
  return { ...local, wanted: { ...asked, protocol: 'unix', path } }
}
