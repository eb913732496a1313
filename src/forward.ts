import { randomUUID } from 'node:crypto'
import { formatAddress } from './address.js'
import { withDeadline } from './deadline.js'
import { TunnelError } from './errors.js'
import { type LocalOptions, localNames, readLocalOptions, waitForTargets } from './local-options.js'
import { LocalTunnel } from './local-tunnel.js'
import { checkNames, invalidOption } from './options.js'
import { formatPublicAddress, listenAt, type PublicAddress, parseListen } from './public-address.js'
import { reset } from './stream.js'
import type { Target } from './target.js'
import type { Tunnel } from './tunnel.js'

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
  checkNames('options', options, ['mode', ...localNames])
  const { timeout = 10_000, signal, mode } = options
  const address = parseListen(listen)
  const local = readLocalOptions(target, options)
  const { flowTimeout = 60_000, maxFlows = 1_024 } = local
  if (local.target.isUdp !== (address.protocol === 'udp')) {
    const wanted = local.target.isUdp ? 'a udp: address' : 'a tcp: or unix: address'
    throw invalidOption('listen', `${wanted}, as the target is one`, listen)
  }
  if (leadsBack(address, local.target.name)) {
    throw invalidOption('target', 'another address than the one that is listened on', target)
  }
  if (mode !== undefined) checkMode(mode, address)
  await waitForTargets([local], options)

  const doing = `listening on ${formatPublicAddress(address)}`
  return withDeadline(doing, { timeout, signal }, async (aborted) => {
    const { unref, mayVisit } = local
    const settings = { unref, aborted, flowTimeout, maxFlows, mayVisit, mode }
    const onDrop = (count: number, reason: string) => tunnel.drop(count, reason)
    // No visitor is handed over before the event loop turns, and by then the tunnel is there.
    const listener = await listenAt(address, { ...settings, onDrop }, (stream, visitor, cameTo) => {
      tunnel.join({
        id: randomUUID(),
        visitor,
        cameTo,
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

/** Other names by which an address that is listened on can be dialled. */
const alsoKnownAs = new Map([
  ['127.0.0.1', ['localhost']],
  ['::1', ['localhost']],
  ['0.0.0.0', ['127.0.0.1', 'localhost']],
  ['::', ['::1', '127.0.0.1', 'localhost']],
])

/** Whether the target is what is listened on: one visitor would become as many as the system has room for. */
function leadsBack(address: PublicAddress, target: string): boolean {
  if (address.protocol === 'unix') return target === `unix:${address.path}`
  const names = address.hosts.flatMap((host) => [host, ...(alsoKnownAs.get(host) ?? [])])
  return names.some((host) => formatAddress({ host, port: address.port }) === target)
}

function checkMode(mode: unknown, address: PublicAddress): void {
  if (!Number.isInteger(mode) || Number(mode) < 0 || Number(mode) > 0o777) {
    throw invalidOption('mode', 'permissions from 0 to 0o777, such as 0o660', mode)
  }
  if (address.protocol !== 'unix') {
    throw new TunnelError('invalid-option', 'mode must be left out where no unix socket is listened on')
  }
}
