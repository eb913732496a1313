import net from 'node:net'
import { invalidOption } from './options.js'

/** An address to dial or to listen on. IPv6 addresses are without brackets here. */
export interface Address {
  host: string
  port: number
}

/** What a text says of an address; what it leaves out is undefined. */
interface AddressParts {
  scheme: string | undefined
  user: string | undefined
  host: string
  port: number | undefined
}

/**
 * Understands `[scheme://][user@]host[:port]`, `:port` and `port`, the last two as ports of `localhost`, with the
 * platform's own parser (WHATWG URL). `tcp:` and `udp:` may stand without slashes, as socat has them. Anything behind
 * the port is refused.
 */
export function parseAddress(name: string, wanted: string, value: unknown): AddressParts {
  const text = String(value).replace(/^(?:(tcp|udp):)(?!\/\/)/i, '$1://')
  const [, scheme, where = ''] = /^(?:([^/]*):\/\/)?(.*)$/s.exec(text) ?? []
  const rest = where.replace(/^:?(?=\d+$)/, 'localhost:')
  let hasPath = false
  try {
    // A scheme that the parser does not know, so that it keeps the port even where that is the scheme's own.
    const url = new URL(`any://${rest}`)
    hasPath = !/^\/?$/.test(url.pathname)
    if (!hasPath && isHost(url.hostname) && !url.search && !url.hash && !url.password) {
      return {
        scheme: scheme?.toLowerCase(),
        user: url.username ? decodeURIComponent(url.username) : undefined,
        host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
        port: url.port ? Number(url.port) : undefined,
      }
    }
  } catch {
    // Not an address at all: told below.
  }
  throw invalidOption(name, hasPath ? 'an address without a path' : wanted, value)
}

/** Digits alone are no name; `8080:3000` would lead to the machine 0.0.31.144. */
function isHost(host: string): boolean {
  return /[^\d]/.test(host) && /^(?:[\w.%-]+|\[.*\])$/.test(host)
}

/** `host:port`, with brackets where the host is an IPv6 address. */
export function formatAddress({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** Whether only this machine reaches the address. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (net.isIPv4(host) && host.startsWith('127.'))
}

/** Whether it stands for every address of the machine. */
export function isAnyAddress(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

/** The eight groups of an IPv6 address without a zone. The platform's parser brings it to one form first: no dots, and `::` for the longest run of zeros. */
export function groupsOf(address: string): number[] {
  const [head = '', tail = ''] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const groups = (text: string) => (text ? text.split(':').map((group) => Number.parseInt(group, 16)) : [])
  const [left, right] = [groups(head), groups(tail)]
  return [...left, ...Array<number>(8 - left.length - right.length).fill(0), ...right]
}

/** What one user has: an IPv4 address, or a network of IPv6, in which everybody has 2^64 addresses (RFC 4291, 2.5.4). */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address
  const bare = address.replace(/%.*/, '')
  return net.isIPv6(bare) ? groupsOf(bare).slice(0, 4).join(':') : address
}
