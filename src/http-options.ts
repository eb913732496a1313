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
  /**
   * URL of the admin API of a Caddy that is to take https for all names: `'http://127.0.0.1:2019'`. The port then listens where that
   * Caddy finds it, and trusts that Caddy, unless `host` and `trustedProxies` say otherwise. Default: none.
   */
  caddy?: string
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
  caddy: CaddySettings | undefined
}

/** A Caddy in front. */
export interface CaddySettings {
  /** Its admin API. */
  admin: URL
  /** Whether a connection to it is to show where it finds us, and where it comes from. */
  showsHost: boolean
  showsProxy: boolean
}

const NAMES: Record<keyof HttpOptions, true> = {
  port: true,
  host: true,
  domain: true,
  trustedProxies: true,
  caddy: true,
}
const ORIGIN = /^(?:(https?):\/\/)?([^/:]+)(?::(\d{1,5}))?\/?$/i
const HOST = /^(?=.{1,180}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/

export function readHttpOptions(options: HttpOptions, serverHosts: readonly string[]): HttpSettings {
  checkNames('http', options, Object.keys(NAMES))
  const { port, host = serverHosts, domain = 'localhost', trustedProxies, caddy } = options
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
  const isSecure = scheme ? scheme.toLowerCase() === 'https' : caddy !== undefined
  if (caddy !== undefined && !isSecure)
    throw invalidOption('http.domain', 'one of https, as there is a Caddy', domain)
  return {
    hosts,
    port,
    domain: name.toLowerCase(),
    scheme: isSecure ? 'https' : 'http',
    publicPort: scheme || isSecure ? Number(publicPort ?? (isSecure ? 443 : 80)) : undefined,
    isTrusted: trustedProxies ? visitorFilter({ allow: trustedProxies }) : () => false,
    caddy: readCaddy(options),
  }
}

function readCaddy({ caddy, host, trustedProxies }: HttpOptions): CaddySettings | undefined {
  if (caddy === undefined) return undefined
  const admin = URL.canParse(caddy) ? new URL(caddy) : undefined
  if (admin?.protocol === 'http:' && admin.pathname === '/' && !admin.search && !admin.username)
    return { admin, showsHost: host === undefined, showsProxy: trustedProxies === undefined }
  throw invalidOption('http.caddy', "the admin API of a Caddy, such as 'http://127.0.0.1:2019'", caddy)
}
