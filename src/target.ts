import { type Address, formatAddress, parseAddress } from './address.js'
import { TunnelError } from './errors.js'
import { invalidOption, show } from './options.js'

/** What ends up serving: `3000`, `':3000'`, `'localhost:3000'`, `'https://localhost:3000'`, `'tcp://[::1]:5432'`. */
export type Target = string | number

/** A target, understood. */
export interface ParsedTarget extends Address {
  /** Becomes that of the tunnel's URL. */
  scheme: string
  /** As in messages: `localhost:3000`. */
  name: string
}

const WANTED =
  "a port or an address such as 3000, 'localhost:3000', 'https://localhost:3000' or 'tcp://[::1]:5432'"

/** Schemes that a target may have, and the port that each means where none is given. */
const defaultPorts = new Map<string, number | undefined>([
  ['http', 80],
  ['https', 443],
  ['tcp', undefined],
])

/** Understands a target. A port alone is one of `localhost`, and the scheme is `http` where none is given. */
export function parseTarget(target: Target): ParsedTarget {
  if (!Number.isInteger(target) && typeof target !== 'string') throw invalidOption('target', WANTED, target)
  const { scheme, host, port, user } = parseAddress('target', WANTED, target)
  const where = { host, port: port ?? defaultPorts.get(scheme ?? '') ?? 0 }
  if (where.port === 0 && port === undefined && !user) {
    const example = `${scheme ? `${scheme}://` : ''}${formatAddress({ host, port: 3000 })}`
    throw new TunnelError('invalid-option', `target ${show(target)} has no port: write ${example}`)
  }
  if (user || where.port === 0 || !defaultPorts.has(scheme ?? 'http'))
    throw invalidOption('target', WANTED, target)
  return { ...where, scheme: scheme ?? 'http', name: formatAddress(where) }
}
