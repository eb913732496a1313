/** What is put into Caddy's configuration for one domain, and taken out of it again; the rest stays as it is. */
import { type Address, formatAddress } from '../address.js'
import { TunnelError } from '../errors.js'

/** Caddy's configuration, as far as it is understood here (caddyserver.com/docs/json). What is left out may be null as well. */
export interface CaddyConfig {
  apps?: { http?: HttpApp; tls?: TlsApp }
}

interface HttpApp {
  https_port?: number
  servers?: Record<string, HttpServer>
}

interface HttpServer {
  '@id'?: string
  listen?: string[]
  routes?: Route[]
  tls_connection_policies?: { '@id'?: string; match?: object }[]
}

interface Route {
  '@id'?: string
  match?: { host?: string[]; not?: { host: string[] }[] }[]
  handle?: { handler: string; routes?: Route[] }[]
  terminal?: boolean
}

interface TlsApp {
  automation?: Automation
}

interface Automation {
  policies?: Policy[]
  on_demand?: { ask?: string; permission?: object }
}

/** How certificates are obtained. The first whose subjects match a name is its. */
interface Policy {
  '@id'?: string
  subjects?: string[]
  issuers?: { module: string }[]
  on_demand?: boolean
}

/** What Caddy is to do for one domain. */
export interface Site {
  domain: string
  /** Where requests for names of the domain go. */
  upstream: Address
  /** URL that is asked whether a name may have a certificate. */
  ask: string
}

const HTTPS_PORT = 443
/** Domains for which no public authority signs: Caddy does so itself. */
const INTERNAL = /(?:^|\.)(?:localhost|local|internal|home\.arpa)$/

/** By this path an `ask` is known as ours. */
export const askPath = (domain: string) => `/pipe-tunnel/${domain}`

/** The configuration with this site in place of an earlier one. Throws `caddy-conflict` where it has what is at odds with it. */
export function withSite(config: CaddyConfig | null, site: Site): CaddyConfig {
  const changed = withoutSite(config, site.domain) ?? {}
  const http = changed.apps?.http ?? {}
  const tls = changed.apps?.tls ?? {}
  const automation = tls.automation ?? {}
  const others = otherHosts(http, site.domain)
  checkWildcard(others, automation, site)
  checkOnDemand(automation, site)

  addRoute(http, others, site)
  addPolicies(automation, others, site)
  return { ...changed, apps: { ...changed.apps, http, tls: { ...tls, automation } } }
}

/** The configuration without what this package has put into it for the domain, or an earlier process of it. */
export function withoutSite(config: CaddyConfig | null, domain: string): CaddyConfig | null {
  const changed = structuredClone(config)
  return strip(changed, domain) ? null : changed
}

/** The `ask` of whoever has put this domain there. */
export function askOf(config: CaddyConfig | null, domain: string): string | undefined {
  const ask = config?.apps?.tls?.automation?.on_demand?.ask
  return ask?.endsWith(askPath(domain)) ? ask : undefined
}

const idPrefix = (domain: string) => `pipe-tunnel:${domain}:`
const wildcardOf = (domain: string) => `*.${domain}`

/** Hosts of the domain that Caddy has sites for by itself. */
function otherHosts(http: HttpApp, domain: string): string[] {
  const hosts = [...routesOf(httpsServer(http))].flatMap(({ match }) =>
    (match ?? []).flatMap(({ host }) => host ?? []),
  )
  return [...new Set(hosts.map((host) => host.toLowerCase()))].filter((host) => isIn(host, domain))
}

function addRoute(http: HttpApp, others: string[], { domain, upstream }: Site): void {
  const route: Route = {
    '@id': `${idPrefix(domain)}route`,
    // It comes first, and leaves the domain's other sites to who has them.
    match: [{ host: [wildcardOf(domain)], ...(others.length > 0 && { not: [{ host: others }] }) }],
    handle: [proxyTo(upstream)],
    terminal: true,
  }
  const server = httpsServer(http)
  if (!server) {
    const own = { '@id': `${idPrefix(domain)}server`, listen: [`:${httpsPort(http)}`], routes: [route] }
    http.servers = { ...http.servers, [`pipe-tunnel-${domain}`]: own }
    return
  }
  server.routes = [route, ...(server.routes ?? [])]
  const policies = server.tls_connection_policies ?? []
  if (policies.length === 0 || policies.some(({ match }) => !match)) return
  policies.push({ '@id': `${idPrefix(domain)}connections`, match: { sni: [wildcardOf(domain)] } })
}

function addPolicies(automation: Automation, others: string[], { domain, ask }: Site): void {
  const policies = automation.policies ?? []
  const isGeneral = ({ subjects }: Policy) =>
    !subjects?.length || subjects.some((one) => takesMore(one, domain))
  // Behind the policies of single names, and in front of the one that would take all.
  const found = policies.findIndex(isGeneral)
  const at = found < 0 ? policies.length : found
  const covered = new Set(policies.slice(0, at).flatMap(({ subjects }) => subjects ?? []))
  const uncovered = others.filter((host) => !covered.has(host))
  const rest: Policy = { ...policies[found] }
  if (!rest.issuers && INTERNAL.test(domain)) rest.issuers = [{ module: 'internal' }]
  automation.policies = [
    ...policies.slice(0, at),
    // The certificates of the other sites go on to be there before anybody visits.
    ...(uncovered.length > 0 ? [{ ...rest, '@id': `${idPrefix(domain)}others`, subjects: uncovered }] : []),
    { ...rest, '@id': `${idPrefix(domain)}policy`, subjects: [wildcardOf(domain)], on_demand: true },
    ...policies.slice(at),
  ]
  automation.on_demand = { ...automation.on_demand, ask }
}

/** Whether the pattern is for all names of the domain, and for others. */
function takesMore(pattern: string, domain: string): boolean {
  const labels = wildcardOf(domain).split('.')
  const given = pattern.split('.')
  return given.length === labels.length && given.every((one, i) => one === '*' || one === labels[i])
}

const httpsPort = ({ https_port: port }: HttpApp) => port ?? HTTPS_PORT

/** The server that takes https. */
function httpsServer(http: HttpApp): HttpServer | undefined {
  const port = httpsPort(http)
  return Object.values(http.servers ?? {}).find(({ listen }) => listen?.some((one) => listensOn(one, port)))
}

/** Addresses are such as `:443`, `tcp/[::]:443` and `127.0.0.1:8000-8010`. */
function listensOn(listen: string, port: number): boolean {
  const [, from, to = from] = /:(\d+)(?:-(\d+))?$/.exec(listen) ?? []
  return Number(from) <= port && port <= Number(to) && !listen.startsWith('udp')
}

/** All routes, those within routes too. */
function* routesOf(owner: { routes?: Route[] } | undefined): Generator<Route> {
  for (const route of owner?.routes ?? []) {
    yield route
    for (const handler of route.handle ?? []) yield* routesOf(handler)
  }
}

/** Whether it is a name of the domain or stands for all of them, as `*.` in front of it does. */
function isIn(host: string, domain: string): boolean {
  return host.endsWith(`.${domain}`) && !host.slice(0, -domain.length - 1).includes('.')
}

function checkWildcard(hosts: string[], { policies }: Automation, { domain, upstream }: Site): void {
  const wildcard = wildcardOf(domain)
  const has = hosts.includes(wildcard)
    ? 'a site'
    : policies?.some(({ subjects }) => subjects?.includes(wildcard)) && 'a certificate for'
  if (!has) return
  const next = `lead ${wildcard} to ${formatAddress(upstream)} there and leave caddy out, or choose another domain`
  throw new TunnelError('caddy-conflict', `Caddy has ${has} ${wildcard} already: ${next}`)
}

/** Bodies go through as they are: Caddy would ask for compressed ones and unpack them. */
function proxyTo(upstream: Address) {
  return {
    handler: 'reverse_proxy',
    transport: { protocol: 'http', compression: false },
    upstreams: [{ dial: formatAddress(upstream) }],
  }
}

/** Caddy can ask one only, whichever site it is for. */
function checkOnDemand({ policies, on_demand: own }: Automation, { domain }: Site): void {
  const asked = own?.ask ?? (own?.permission && JSON.stringify(own.permission))
  // What asks there has been put there by a pipe server, of a domain that is not this one.
  const [, other] = /\/pipe-tunnel\/([\w.-]+)$/.exec(own?.ask ?? '') ?? []
  if (other !== undefined) {
    const message = `this Caddy takes https for another pipe server already, that of *.${other} (it asks ${asked})`
    throw new TunnelError(
      'caddy-conflict',
      `${message}, and can do so for one alone: close that one, take out of Caddy's configuration what it has left, or use another Caddy`,
    )
  }
  const reason = asked
    ? `it asks ${asked} already whether a name may have a certificate`
    : policies?.some((policy) => policy.on_demand)
      ? 'another site gets certificates on demand for any name'
      : undefined
  if (reason === undefined) return
  const message = `certificates of *.${domain} can't be obtained on demand by this Caddy, as ${reason}`
  throw new TunnelError(
    'caddy-conflict',
    `${message}: take that out of its configuration, or use another Caddy`,
  )
}

/** Takes out what is ours, and around it what has become empty by that. Tells whether nothing is left. */
function strip(value: unknown, domain: string): boolean {
  if (typeof value !== 'object' || value === null) return false
  let isChanged = false
  for (const [key, child] of Object.entries(value).reverse()) {
    const isAsk = key === 'ask' && typeof child === 'string' && child.endsWith(askPath(domain))
    if (!isAsk && !isOurs(child, domain) && !strip(child, domain)) continue
    isChanged = true
    if (Array.isArray(value)) value.splice(Number(key), 1)
    else delete (value as Record<string, unknown>)[key]
  }
  return isChanged && Object.keys(value).length === 0
}

/** Whether it bears our id, and nobody else has put anything into it. */
function isOurs(value: unknown, domain: string): boolean {
  const { '@id': id, routes } = (value ?? {}) as HttpServer
  if (typeof id !== 'string' || !id.startsWith(idPrefix(domain))) return false
  return (routes ?? []).every((route) => isOurs(route, domain))
}
