/** Who may visit, by address: lists of what is allowed and of what is denied. */
import net from 'node:net'
import { groupsOf } from './address.js'
import { TunnelError } from './errors.js'
import { invalidOption } from './options.js'

/** Most entries of a list, and the longest of them: an IPv6 address with an IPv4 one at its end, and a prefix of 3 digits. */
export const MAX_ENTRIES = 64
const MAX_ENTRY = 49

/** Whether a visitor of this address may come in. */
export type MayVisit = (address: string) => boolean

/** Addresses and ranges: `'192.0.2.7'`, `'10.0.0.0/8'`, `'2001:db8::/32'`. */
export interface VisitorLists {
  allow?: readonly string[] | undefined
  deny?: readonly string[] | undefined
}

/** Throws `invalid-option` where a list has what is no address or range, with that. */
export function checkLists({ allow, deny }: VisitorLists): void {
  checkRanges('allow', allow)
  checkRanges('deny', deny)
}

/** The same of one list, under its name. */
export function checkRanges(name: string, list: unknown): void {
  if (list === undefined) return
  if (!Array.isArray(list)) throw invalidOption(name, 'a list of addresses and ranges', list)
  if (list.length > MAX_ENTRIES) {
    throw invalidOption(
      name,
      `a list of at most ${MAX_ENTRIES} addresses and ranges`,
      `${list.length} entries`,
    )
  }
  const wrong = list.findIndex((entry) => !isRange(entry))
  if (wrong < 0) return
  throw invalidOption(`${name}[${wrong}]`, "an address or a range such as '10.0.0.0/8'", list[wrong])
}

/** Whether it is an IP address, or a range of them: an address, `/`, and how many of its bits count. */
export function isRange(entry: unknown): entry is string {
  return typeof entry === 'string' && entry.length <= MAX_ENTRY && parse(entry) !== undefined
}

/**
 * Whether a visitor passes these lists, which were checked: it is not on `deny`, and on `allow` if there is one. One of a unix
 * socket has no address and passes.
 */
export function visitorFilter({ allow, deny }: VisitorLists): MayVisit {
  if (!allow && !deny) return () => true
  const allowed = allow && setOf(allow)
  const denied = setOf(deny ?? [])
  return (address) => {
    if (address === 'unix') return true
    // The zone names an interface of this machine. Who is gone already has no address, and need not come in.
    const { family, host } = normalize(address.replace(/%.*/, '')) ?? {}
    if (!family || !host || denied[family].check(host, family)) return false
    return !allowed || allowed[family].check(host, family)
  }
}

/** Why a visitor that is not allowed is turned away. */
export function visitorDenied(address: string): TunnelError {
  return new TunnelError('visitor-denied', `${address} may not visit this tunnel: see allow and deny`)
}

/** By family: to Node, `::/0` has all of IPv4 in it. */
type AddressSet = Record<Family, net.BlockList>
type Family = 'ipv4' | 'ipv6'

function setOf(list: readonly string[]): AddressSet {
  const set = { ipv4: new net.BlockList(), ipv6: new net.BlockList() }
  for (const entry of list) {
    const range = parse(entry)
    if (range) set[range.family].addSubnet(range.host, range.bits, range.family)
  }
  return set
}

function parse(entry: string): { family: Family; host: string; bits: number } | undefined {
  const [, address = '', digits] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(entry) ?? []
  const found = normalize(address)
  if (!found) return undefined
  // Of an IPv4 address in IPv6, the first 96 bits are always the same.
  const fixed = found.family === 'ipv4' && net.isIPv6(address) ? 96 : 0
  const most = found.family === 'ipv4' ? 32 : 128
  const bits = digits === undefined ? most : Number(digits) - fixed
  return bits >= 0 && bits <= most ? { ...found, bits } : undefined
}

/** `::ffff:192.0.2.7` is the IPv4 address at its end (RFC 4291, 2.5.5.2). */
function normalize(address: string): { family: Family; host: string } | undefined {
  if (net.isIPv4(address)) return { family: 'ipv4', host: address }
  if (!net.isIPv6(address)) return undefined
  const groups = groupsOf(address)
  const isMapped = groups[5] === 0xffff && groups.slice(0, 5).every((group) => group === 0)
  if (!isMapped) return { family: 'ipv6', host: address }
  const host = groups
    .slice(6)
    .flatMap((group) => [group >> 8, group & 0xff])
    .join('.')
  return { family: 'ipv4', host }
}
