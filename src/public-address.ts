import { formatAddress, parseAddress } from './address.js'
import { type Listener, type ListenOptions, listenOnAll, type OnVisitor } from './listener.js'
import { invalidOption } from './options.js'
import { listenTcp } from './tcp.js'
import { type FlowSettings, listenUdp } from './udp.js'
import { listenUnix, parseOwnUnixPath } from './unix.js'

/** Where visitors come in. */
export type PublicAddress =
  | { protocol: 'tcp' | 'udp'; hosts: readonly string[]; port: number }
  | { protocol: 'unix'; path: string }

/** The same, where a server has it opened: an HTTP tunnel has a name in place of an address. */
export type GrantedAddress = PublicAddress | { protocol: 'http'; hostname: string }

const WANTED = "a port, 'host:port', 'tcp:host:port', 'udp:host:port' or 'unix:/path' to listen on"

/** Understands what `forward` listens on. A port alone, and one of `localhost`, is one of 127.0.0.1. */
export function parseListen(value: string | number): PublicAddress {
  if (!Number.isInteger(value) && typeof value !== 'string') throw invalidOption('listen', WANTED, value)
  const path = parseOwnUnixPath('listen', String(value))
  if (path !== undefined) return { protocol: 'unix', path }
  const { scheme = 'tcp', host, port, user } = parseAddress('listen', WANTED, value)
  if (user !== undefined || port === undefined || (scheme !== 'tcp' && scheme !== 'udp')) {
    throw invalidOption('listen', WANTED, value)
  }
  return { protocol: scheme, hosts: [host === 'localhost' ? '127.0.0.1' : host], port }
}

/** As in messages. */
export function formatPublicAddress(address: PublicAddress): string {
  if (address.protocol === 'unix') return `unix:${address.path}`
  return address.hosts.map((host) => formatAddress({ host, port: address.port })).join(' and ')
}

/** Listens there for visitors. Rejects with `port-taken`, `path-taken`, `address-unavailable`, or the signal's reason. */
export function listenAt(
  address: PublicAddress,
  options: ListenOptions & FlowSettings & { mode?: number | undefined },
  onVisitor: OnVisitor,
): Promise<Listener> {
  switch (address.protocol) {
    case 'unix':
      return listenUnix({ ...address, ...options }, onVisitor)
    case 'tcp':
      return listenOnAll(address, onVisitor, (one, take) => listenTcp({ ...one, ...options }, take))
    case 'udp':
      return listenOnAll(address, onVisitor, (one, take) => listenUdp({ ...one, ...options }, take))
  }
}
