import { randomUUID } from 'node:crypto'
import { withDeadline } from './deadline.js'
import { type LocalOptions, readLocalOptions, waitForTargets } from './local-options.js'
import { LocalTunnel, type Tunnel } from './local-tunnel.js'
import { checkInteger, invalidOption } from './options.js'
import { formatPublicAddress, listenAt, parseListen } from './public-address.js'
import { reset } from './stream.js'
import type { Target } from './target.js'

/** Options of {@link forward}. */
export interface ForwardOptions extends LocalOptions {
  /** Permissions of the unix socket's file, such as `0o660`. Default: what the process's umask makes them. */
  mode?: number
}

/** Milliseconds that the target may take to accept a connection. */
const EXCHANGE_TIMEOUT = 10_000

/**
 * Listens on this machine and relays each visitor to `target`, with no server in between; resolves when it listens.
 * What to listen on is a port, `'host:port'`, `'tcp:host:port'`, `'udp:host:port'` or `'unix:/path'`. A unix socket's
 * file that nobody listens on any more is replaced, and it is removed at the end.
 *
 * Rejects with `invalid-option`, `port-taken`, `path-taken`, `address-unavailable`, `timeout` or `aborted`.
 */
export async function forward(
  listen: string | number,
  target: Target,
  options: ForwardOptions = {},
): Promise<Tunnel> {
  const { timeout = 10_000, signal, mode, flowTimeout = 60_000, maxFlows = 1_024 } = options
  const address = parseListen(listen)
  const local = readLocalOptions(target, options)
  if (local.target.isUdp !== (address.protocol === 'udp')) {
    const wanted = local.target.isUdp
      ? 'a udp: address, as the target is one'
      : 'a tcp: or unix: address, as the target is one'
    throw invalidOption('listen', wanted, listen)
  }
  if (mode !== undefined) {
    if (address.protocol !== 'unix')
      throw invalidOption('mode', 'left out where no unix socket is listened on', mode)
    checkInteger('mode', mode, 0, 0o777)
  }
  await waitForTargets([local], options)

  const doing = `listening on ${formatPublicAddress(address)}`
  return withDeadline(doing, { timeout, signal }, async (aborted) => {
    const { unref } = local
    // No visitor is handed over before the event loop turns, and by then the tunnel is there.
    const settings = { unref, aborted, flowTimeout, maxFlows, mode }
    const onDrop = (count: number, reason: string) => tunnel.drop(count, reason)
    const listener = await listenAt(address, { ...settings, onDrop }, (stream, visitor, to) => {
      tunnel.join({
        id: randomUUID(),
        visitor,
        local: to,
        open: async () => stream,
        turnAway: () => reset(stream),
      })
    })
    let closed: Promise<void> | undefined
    const tunnel: LocalTunnel = new LocalTunnel({
      ...local,
      protocol: address.protocol,
      host: listener.host,
      port: listener.port,
      path: address.protocol === 'unix' ? address.path : undefined,
      exchangeTimeout: EXCHANGE_TIMEOUT,
      async giveBack() {
        closed = listener.close()
      },
      release: async () => closed,
    })
    return tunnel
  })
}
