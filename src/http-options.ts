/** What a server is told of HTTP tunnels. */
import { checkHost, checkNames, checkPort, invalidOption } from './options.js'
import { checkRanges, type MayVisit, visitorFilter } from './visitor-filter.js'

/** The port of HTTP tunnels, which have it in common: each request is for the tunnel that its Host header names. */
export interface HttpOptions {
  /** Port for visitors of all HTTP tunnels; 0 is any. */
  port: number
  /** Address to listen on, or several. Default: that of the server. */
  host?: string | readonly string[]
  /**
   * What names of tunnels are in: `shop.example.com` for `'example.com'`. With `'https://example.com'`, something in front does
   * the encryption, and public URLs begin so. Default `'localhost'`.
   */
  domain?: string
  /**
   * Proxies in front that tell the visitor's address by X-Forwarded-For, as addresses and ranges. Default: none, and what others say of
   * it is replaced.
   */
  trustedProxies?: readonly string[]
}

/** The same, understood. */
export interface HttpSettings {
  hosts: readonly string[]
  port: number
  domain: string
  scheme: 'http' | 'https'
  /** Port of public URLs, where it is not the one that is listened on. */
  publicPort: number | undefined
  /** Whether a peer is believed what it says of its visitor. */
  isTrusted: MayVisit
}

const NAMES: Record<keyof HttpOptions, true> = { port: true, host: true, domain: true, trustedProxies: true }
const ORIGIN = /^(?:(https?):\/\/)?([^/:]+)(?::(\d{1,5}))?\/?$/i
const HOST = /^(?=.{1,180}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/

export function readHttpOptions(options: HttpOptions, serverHosts: readonly string[]): HttpSettings {
  checkNames('http', options, Object.keys(NAMES))
  const { port, host = serverHosts, domain = 'localhost', trustedProxies } = options
  checkPort('http.port', port)
  const hosts = [...new Set([host].flat())]
  if (hosts.length === 0) throw invalidOption('http.host', 'an address or a list of them', '[]')
  for (const one of hosts) checkHost('http.host', one)
  checkRanges('http.trustedProxies', trustedProxies)
  const [, scheme, name = '', publicPort] = ORIGIN.exec(String(domain)) ?? []
  const isHost = HOST.test(name.toLowerCase())
  if (!isHost || (publicPort !== undefined && (!scheme || Number(publicPort) > 65_535))) {
    throw invalidOption('http.domain', "a host name, or an origin such as 'https://example.com'", domain)
  }
  const isSecure = scheme?.toLowerCase() === 'https'
  return {
    hosts,
    port,
    domain: name.toLowerCase(),
    scheme: isSecure ? 'https' : 'http',
    publicPort: scheme ? Number(publicPort ?? (isSecure ? 443 : 80)) : undefined,
    isTrusted: trustedProxies ? visitorFilter({ allow: trustedProxies }) : () => false,
  }
}
