import { randomBytes } from 'node:crypto'
import { formatAddress } from './address.js'
import { connect, type OpenOptions } from './client.js'
import { withDeadline } from './deadline.js'
import { type Endpoint, findEndpoint } from './endpoint.js'
import { type LocalOptions, readLocalOptions, waitForTargets } from './local-options.js'
import type { Tunnel } from './local-tunnel.js'
import { checkPort, invalidOption } from './options.js'
import { createServer } from './server.js'
import type { Target } from './target.js'
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
  /** Public port. Default 0: any. */
  port?: number
  /** Unix socket on the server's machine that visitors use instead of a port: `'unix:/tmp/x.sock'`. Default: none. */
  listen?: string
}

/** One of several tunnels to open. */
export interface WantedTunnel {
  target: Target
  port?: number | undefined
}

/**
 * Makes `target` reachable at a public address; resolves when that is open for visitors. The target itself may
 * start later: until then visitors are turned away at once.
 *
 * Rejects with `invalid-option`, `server-unreachable`, `secret-wrong`, `secret-required`, `server-unproven`,
 * `version-mismatch`, `port-taken`, `port-not-allowed`, `ports-exhausted`, `path-taken`, `path-not-allowed`,
 * `address-unavailable`, `limit-reached`, `protocol-violation`, `connection-lost`, `server-closed`, `refused`, `timeout`
 * or `aborted`.
 */
export async function openTunnel(target: Target, options: TunnelOptions = {}): Promise<Tunnel> {
  const [tunnel] = await openTunnels([{ target, port: options.port }], options)
  return tunnel as Tunnel
}

/** Opens several tunnels over one control connection: all of them, or none. */
export async function openTunnels(
  wanted: WantedTunnel[],
  options: Omit<TunnelOptions, 'port'>,
): Promise<Tunnel[]> {
  const { unref = false, timeout = 10_000, signal } = options
  const endpoint = findEndpoint(options.server, options.secret)
  const locals = wanted.map((one) => readWanted(one, options, endpoint === undefined))
  await waitForTargets(locals, options)
  const opened: { close(): Promise<void> }[] = []
  const closeAll = async () => {
    for (const one of [...opened].reverse()) await one.close()
  }
  /** A server for this call alone. Its secret keeps other programs of the machine out. */
  const embedServer = async () => {
    const secret = options.secret ?? randomBytes(32).toString('hex')
    const limits = options.maxFlows === undefined ? {} : { flows: options.maxFlows }
    const server = await createServer({ secret, unref, sockets: '/', limits })
    opened.push(server)
    return server
  }

  const where = endpoint ? ` through ${formatAddress(endpoint)}` : ''
  const doing = `opening a tunnel to ${locals.map(({ target }) => target.name).join(', ')}${where}`
  return withDeadline(doing, { timeout, signal }, async (aborted) => {
    try {
      const client = await connect(endpoint ?? (await embedServer()), unref, aborted)
      opened.push(client)
      let open = locals.length
      const release = async () => {
        open--
        if (open === 0) await closeAll()
      }
      return await Promise.all(locals.map((one) => client.open({ ...one, release }, aborted)))
    } catch (error) {
      // Not awaited: a server that does not answer may not keep the caller beyond the timeout.
      closeAll()
      throw error
    }
  })
}

/** What the client asks the server for. */
function readWanted(
  { target, port = 0 }: WantedTunnel,
  options: Omit<TunnelOptions, 'port'>,
  isEmbedded: boolean,
): Omit<OpenOptions, 'release'> {
  const local = readLocalOptions(target, options)
  const { listen } = options
  const asked = { ...local, port, path: undefined }
  checkPort('port', port)
  if (listen === undefined) return { ...asked, protocol: local.target.isUdp ? 'udp' : 'tcp' }

  // Another server has a folder and a system of its own.
  const parse = isEmbedded ? parseOwnUnixPath : parseUnixPath
  const path = typeof listen === 'string' ? parse('listen', listen) : undefined
  if (path === undefined) throw invalidOption('listen', "a unix socket such as 'unix:/tmp/x.sock'", listen)
  if (port !== 0) throw invalidOption('port', 'left out where listen is given', port)
  if (local.target.isUdp) throw invalidOption('listen', 'left out for a udp target', listen)
  return { ...asked, protocol: 'unix', path }
}
