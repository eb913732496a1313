/** Headers as they are passed on: raw, in their order and spelling (RFC 9110, 7.6), as names and values in turn. */

import net from 'node:net'
import type { MayVisit } from '../visitor-filter.js'

/** For one connection alone; `Connection` may name more. How long a body is, each side finds its own way to say. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  // Only announces what comes in any case, and Node throws where it can't come.
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/** What `Connection` can't take away, and what may not come behind a body. */
const FIXED = new Set([
  'authorization',
  'content-length',
  'content-type',
  'cookie',
  'host',
  'transfer-encoding',
])

/** What proxies say of the visitor. Many targets take `_` for `-`. */
const FORWARDED =
  /^(?:x[-_]forwarded[-_].+|x[-_]real[-_]ip|x[-_]client[-_]ip|true[-_]client[-_]ip|forwarded)$/i

/** Who sent a request, and what is to be told of that. */
export interface Origin {
  /** Address of the visitor. */
  address: string
  /** Headers that say so, and how it came. */
  headers: string[]
  /** Whether a proxy in front is believed what else it says. */
  isTrusted: boolean
}

/** Where a request came from, as far as those in front can be believed. */
export function originOf(
  rawHeaders: readonly string[],
  peer: string,
  scheme: string,
  isTrusted: MayVisit,
): Origin {
  const host = valuesOf(rawHeaders, 'host')[0] ?? ''
  if (!isTrusted(peer)) return origin(peer, peer, scheme, host, false)
  const path = [...listOf(rawHeaders, 'x-forwarded-for').map(withoutPort), peer]
  // The last that no proxy of ours is: what stands in front of it, it may have made up.
  let at = path.length - 1
  while (at > 0 && isTrusted(path[at] ?? '') && net.isIP(path[at - 1] ?? '')) at--
  // The last is what the trusted peer itself has said, where it adds to what came to it.
  const told = (name: string) => listOf(rawHeaders, name).at(-1)
  const proto = told('x-forwarded-proto') ?? scheme
  return origin(path[at] ?? peer, path.join(', '), proto, told('x-forwarded-host') ?? host, true)
}

/** What a header lists, in however many lines. */
function listOf(rawHeaders: readonly string[], name: string): string[] {
  const entries = valuesOf(rawHeaders, name).flatMap((value) => value.split(','))
  return entries.map((entry) => entry.trim()).filter(Boolean)
}

/** Some proxies tell the port of the visitor as well: `192.0.2.1:5678`, `[2001:db8::1]:5678`. */
function withoutPort(entry: string): string {
  const [, ipv6, ipv4] = /^(?:\[([^\]]+)\]|([\d.]+))(?::\d+)?$/.exec(entry) ?? []
  return ipv6 ?? ipv4 ?? entry
}

function origin(address: string, path: string, proto: string, host: string, isTrusted: boolean): Origin {
  const headers = ['X-Forwarded-For', path, 'X-Forwarded-Proto', proto, 'X-Forwarded-Host', host]
  return { address, headers, isTrusted }
}

/** The headers of a request for the target. */
export function requestHeaders(
  rawHeaders: readonly string[],
  { headers, isTrusted }: Origin,
  { upgrades, hidesAuthorization }: { upgrades: boolean; hidesAuthorization: boolean },
): string[] {
  const replaced = (name: string) =>
    isTrusted ? /^x[-_]forwarded[-_](?:for|proto|host)$/i.test(name) : FORWARDED.test(name)
  const kept = endToEnd(
    rawHeaders,
    (name) => replaced(name) || (hidesAuthorization && name === 'authorization'),
  )
  if (valuesOf(rawHeaders, 'te').some((value) => /\btrailers\b/i.test(value))) kept.push('TE', 'trailers')
  if (valuesOf(rawHeaders, 'transfer-encoding').length > 0) kept.push('Transfer-Encoding', 'chunked')
  if (upgrades) kept.push('Connection', 'Upgrade', 'Upgrade', valuesOf(rawHeaders, 'upgrade').join(', '))
  kept.push(...headers)
  return kept
}

/** The headers of an answer for the visitor. */
export function answerHeaders(rawHeaders: readonly string[]): string[] {
  return endToEnd(rawHeaders, () => false)
}

/** What comes behind a body, by name and value. */
export function trailersOf(rawTrailers: readonly string[]): [string, string][] {
  const trailers: [string, string][] = []
  eachOf(rawTrailers, (name, value, key) => {
    if (!HOP_BY_HOP.has(key) && !FIXED.has(key) && !FORWARDED.test(key)) trailers.push([name, value])
  })
  return trailers
}

/** All values of a header. */
export function valuesOf(rawHeaders: readonly string[], wanted: string): string[] {
  const values: string[] = []
  eachOf(rawHeaders, (_name, value, key) => {
    if (key === wanted) values.push(value)
  })
  return values
}

function endToEnd(rawHeaders: readonly string[], isLeftOut: (name: string) => boolean): string[] {
  const named = new Set<string>()
  for (const value of valuesOf(rawHeaders, 'connection')) {
    for (const name of value.toLowerCase().split(',')) named.add(name.trim())
  }
  const kept: string[] = []
  eachOf(rawHeaders, (name, value, key) => {
    if (HOP_BY_HOP.has(key) || (named.has(key) && !FIXED.has(key)) || isLeftOut(key)) return
    kept.push(name, value)
  })
  return kept
}

function eachOf(raw: readonly string[], use: (name: string, value: string, key: string) => void): void {
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] as string
    use(name, raw[i + 1] as string, name.toLowerCase())
  }
}
