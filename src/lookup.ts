import type { LookupAddress } from 'node:dns'
import { lookup } from 'node:dns/promises'
import type net from 'node:net'

/** Look-ups that are under way, by host. */
const lookups = new Map<string, Promise<LookupAddress[]>>()

/**
 * The addresses of a host, looked up each time, but never the same one twice at a time: Node has four threads for it and
 * can't cancel one, so a name server that is silent would hold up every other name.
 *
 * `localhost` and all names in it are both loopback addresses, whatever the machine's own tables say (RFC 6761, 6.3): servers
 * listen on either, and there is nothing to ask.
 */
export async function lookUp(host: string): Promise<LookupAddress[]> {
  if (LOCAL.test(host)) return LOOPBACK
  const pending = lookups.get(host) ?? lookup(host, { all: true }).finally(() => lookups.delete(host))
  lookups.set(host, pending)
  return pending
}

/** The same, as `net.connect` takes it. */
export const lookupForConnect: net.LookupFunction = (host, _options, callback) => {
  // At once, where nothing is asked: a turn of the event loop per connection is saved.
  if (LOCAL.test(host)) return callback(null, LOOPBACK)
  lookUp(host)
    .then(
      (addresses) => callback(null, addresses),
      (error) => callback(error, []),
    )
    .catch(() => {})
}

const LOCAL = /^(?:.+\.)?localhost\.?$/i

const LOOPBACK: LookupAddress[] = [
  { address: '127.0.0.1', family: 4 },
  { address: '::1', family: 6 },
]
