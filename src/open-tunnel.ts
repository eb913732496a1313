import { randomBytes } from 'node:crypto'
import { formatAddress } from './address.js'
import { connect } from './client.js'
import { type WaitOptions, withDeadline } from './deadline.js'
import { type Endpoint, findEndpoint } from './endpoint.js'
import { checkPort } from './options.js'
import { createServer } from './server.js'
import { parseTarget, type Target } from './target.js'
import type { Tunnel } from './tunnel.js'

/** Options of {@link openTunnel}. */
export interface TunnelOptions extends WaitOptions {
  /**
   * The server to go through: a `Server`, or an address such as `'host'`, `'host:8910'` or `'pipe://secret@host'`.
   * Default: the one that `PIPE_SERVER` names, else one of its own in this process, on 127.0.0.1.
   */
  server?: string | Endpoint
  /** What the server asks for. Default: what `server` holds, else `PIPE_SECRET` where the server is an address. */
  secret?: string
  /** Public port. Default 0: any. */
  port?: number
  /** Lets the process end while the tunnel is open. Default false. */
  unref?: boolean
  /** Milliseconds until the public address is open. Default 10,000. */
  timeout?: number
}

/** One of several tunnels to open. */
export interface WantedTunnel {
  target: Target
  port?: number
}

/**
 * Makes `target` reachable at a public address; resolves when that is open for visitors. The target itself may
 * start later: until then visitors are turned away at once.
 *
 * Rejects with `invalid-option`, `server-unreachable`, `secret-wrong`, `secret-required`, `server-unproven`,
 * `version-mismatch`, `port-taken`, `port-not-allowed`, `ports-exhausted`, `address-unavailable`, `limit-reached`,
 * `protocol-violation`, `connection-lost`, `server-closed`, `refused`, `timeout` or `aborted`.
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
  const parsed = wanted.map(({ target, port = 0 }) => {
    checkPort('port', port)
    return { target: parseTarget(target), port }
  })
  const endpoint = findEndpoint(options.server, options.secret)
  const opened: { close(): Promise<void> }[] = []
  const closeAll = async () => {
    for (const one of [...opened].reverse()) await one.close()
  }
  /** A server for this call alone. Its secret keeps other programs of the machine out. */
  const embedServer = async () => {
    const server = await createServer({ secret: options.secret ?? randomBytes(32).toString('hex'), unref })
    opened.push(server)
    return server
  }

  const where = endpoint ? ` through ${formatAddress(endpoint)}` : ''
  const doing = `opening a tunnel to ${parsed.map(({ target }) => target.name).join(', ')}${where}`
  return withDeadline(doing, { timeout, signal }, async (aborted) => {
    try {
      const client = await connect(endpoint ?? (await embedServer()), unref, aborted)
      opened.push(client)
      let open = parsed.length
      const release = async () => {
        open--
        if (open === 0) await closeAll()
      }
      return await Promise.all(parsed.map((one) => client.open({ ...one, release }, aborted)))
    } catch (error) {
      // Not awaited: a server that does not answer may not keep the caller beyond the timeout.
      closeAll()
      throw error
    }
  })
}
