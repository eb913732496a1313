import type { RequestListener } from 'node:http'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import { type Address, formatAddress, parseAddress } from './address.js'
import { TunnelError } from './errors.js'
import { dialServer, watch } from './hand-over.js'
import { invalidOption, show } from './options.js'
import type { DialOptions } from './socket.js'
import { dialTcp } from './tcp.js'
import { dialUdp, type FlowOptions } from './udp-target.js'
import { dialUnix, parseOwnUnixPath } from './unix.js'

/**
 * What ends up serving: `3000`, `':3000'`, `'localhost:3000'`, `'https://localhost:3000'`, `'tcp://[::1]:5432'`,
 * `'udp://localhost:53'`, `'unix:/run/app.sock'`, a `URL` of these, a `net.Server` or `http.Server` of this process, which
 * need not listen, or what handles requests.
 */
export type Target = string | number | URL | net.Server | RequestListener

/** A target, understood. */
export interface ParsedTarget {
  /** Becomes that of the tunnel's URL. */
  readonly scheme: string
  /** As in messages: `localhost:3000`. */
  readonly name: string
  /** As in the Host header of a request for it. */
  readonly host: string
  /** Whether it receives datagrams; else it accepts connections. */
  readonly isUdp: boolean
  /** Whether it may understand a PROXY header. */
  readonly takesHeader: boolean
  /** A connection to it, or a flow. Rejects with the system's error, or the signal's reason. */
  dial(options: DialOptions & FlowOptions): Promise<Duplex>
}

const WANTED =
  "a port or an address such as 3000, 'localhost:3000', 'https://localhost:3000', 'tcp://[::1]:5432', 'udp://localhost:53' or 'unix:/run/app.sock', a server or a request handler"

const stream = { isUdp: false, takesHeader: true } as const

/** Schemes that a target may have, and the port that each means where none is given. */
const defaultPorts = new Map<string, number | undefined>([
  ['http', 80],
  ['https', 443],
  ['tcp', undefined],
  ['udp', undefined],
])

/** Understands a target. A port alone is one of `localhost`, and the scheme is `http` where none is given. */
export function parseTarget(target: Target): ParsedTarget {
  if (target instanceof net.Server) return serverTarget(target)
  if (typeof target === 'function') return handlerTarget(target)
  if (target instanceof URL) return parseTarget(target.href)
  if (!Number.isInteger(target) && typeof target !== 'string') throw invalidOption('target', WANTED, target)

  const path = parseOwnUnixPath('target', String(target))
  if (path !== undefined) {
    const name = `unix:${path}`
    return { scheme: 'http', name, host: 'localhost', ...stream, dial: (options) => dialUnix(path, options) }
  }
  const { scheme, where } = parseAddressTarget(target)
  const name = formatAddress(where)
  const host = name.replace(/:80$/, '')
  return scheme === 'udp'
    ? { scheme, name, host, isUdp: true, takesHeader: false, dial: (options) => dialUdp(where, options) }
    : { scheme, name, host, ...stream, dial: (options) => dialTcp(where, options) }
}

function parseAddressTarget(target: string | number): { scheme: string; where: Address } {
  const { scheme, host, port, user } = parseAddress('target', WANTED, target)
  const where = { host, port: port ?? defaultPorts.get(scheme ?? '') ?? 0 }
  if (where.port === 0 && port === undefined && !user) {
    const example = `${scheme ? `${scheme}://` : ''}${formatAddress({ host, port: 3000 })}`
    throw new TunnelError('invalid-option', `target ${show(target)} has no port: write ${example}`)
  }
  if (user || where.port === 0 || !defaultPorts.has(scheme ?? 'http'))
    throw invalidOption('target', WANTED, target)
  return { scheme: scheme ?? 'http', where }
}

function serverTarget(server: net.Server): ParsedTarget {
  watch(server)
  // What tells the kinds apart without loading the modules that define them.
  const speaksHttp = 'requestTimeout' in server
  const isSecure = 'setSecureContext' in server
  return {
    scheme: speaksHttp ? (isSecure ? 'https' : 'http') : 'tcp',
    name: `${isSecure ? (speaksHttp ? 'https' : 'tls') : speaksHttp ? 'http' : 'net'}.Server`,
    host: 'localhost',
    isUdp: false,
    takesHeader: !speaksHttp,
    dial: (options) => dialServer(server, options),
  }
}

function handlerTarget(handler: RequestListener): ParsedTarget {
  let server: net.Server | undefined
  return {
    scheme: 'http',
    name: 'a request handler',
    host: 'localhost',
    isUdp: false,
    takesHeader: false,
    async dial(options) {
      const { createServer } = await import('node:http')
      server ??= createServer(handler)
      return dialServer(server, options)
    },
  }
}
