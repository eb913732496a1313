import { isIPv4, isIPv6 } from 'node:net'
import { groupsOf } from './address.js'
import type { SocketAddress } from './listener.js'
import { invalidOption } from './options.js'

/** Versions of the PROXY protocol: 1 is a line of text, 2 is binary. */
export type ProxyProtocol = 1 | 2

export function checkProxyProtocol(value: unknown): void {
  if (value !== undefined && value !== 1 && value !== 2) throw invalidOption('proxyProtocol', '1 or 2', value)
}

/**
 * What tells a target who its visitor is and which address it came to, in front of the visitor's first byte
 * (haproxy.org/download/3.0/doc/proxy-protocol.txt). A visitor without an IP address is «unknown».
 */
export async function proxyHeader(
  version: ProxyProtocol,
  visitor: SocketAddress,
  cameTo: SocketAddress,
): Promise<Uint8Array> {
  // Loaded by who needs it alone.
  const proxy = await import('proxy-protocol-js')
  const from = withoutZone(visitor)
  const to = withoutZone(cameTo)
  const isV4 = isIPv4(from.address) && isIPv4(to.address)
  const isV6 = isIPv6(from.address) && isIPv6(to.address)

  if (version === 1) {
    if (!isV4 && !isV6) return Buffer.from('PROXY UNKNOWN\r\n')
    const { INETProtocol, Peer, V1ProxyProtocol } = proxy
    const header = new V1ProxyProtocol(
      isV4 ? INETProtocol.TCP4 : INETProtocol.TCP6,
      new Peer(from.address, from.port),
      new Peer(to.address, to.port),
    )
    return Buffer.from(header.build())
  }

  const { Command, IPv4Address, IPv4ProxyAddress, IPv6Address, IPv6ProxyAddress, TransportProtocol } = proxy
  const address = isV4
    ? new IPv4ProxyAddress(
        IPv4Address.createFrom(bytesOfV4(from.address)),
        from.port,
        IPv4Address.createFrom(bytesOfV4(to.address)),
        to.port,
      )
    : isV6
      ? new IPv6ProxyAddress(
          IPv6Address.createFrom(bytesOfV6(from.address)),
          from.port,
          IPv6Address.createFrom(bytesOfV6(to.address)),
          to.port,
        )
      : new proxy.UnspecProxyAddress()
  const protocol = isV4 || isV6 ? TransportProtocol.STREAM : TransportProtocol.UNSPEC
  return new proxy.V2ProxyProtocol(Command.PROXY, protocol, address).build()
}

/** `fe80::1%eth0` names an interface of the server, which means nothing elsewhere. */
function withoutZone({ address, port }: SocketAddress): SocketAddress {
  return { address: address.replace(/%.*/, ''), port }
}

type Four<T> = [T, T, T, T]

function bytesOfV4(address: string): Four<number> {
  return address.split('.').map(Number) as Four<number>
}

function bytesOfV6(address: string) {
  const bytes = groupsOf(address).flatMap((group) => [group >> 8, group & 0xff])
  return bytes as [...Four<number>, ...Four<number>, ...Four<number>, ...Four<number>]
}
