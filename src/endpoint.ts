import { isPromise } from 'node:util/types'
import { type Address, isAnyAddress, parseAddress } from './address.js'
import { checkHost, checkInteger, checkSecret, invalidOption, SECRET_VARIABLE } from './options.js'
import { type ClientTls, checkClientTls } from './tls-options.js'

/** Port that servers listen on and clients dial where none is given. */
export const DEFAULT_PORT = 8_910

/** The environment variable that stands in for the option; beside that of the secret, the library reads no other. */
const SERVER_VARIABLE = 'PIPE_SERVER'

/** Where a server is, and what it asks for: a `Server`, or anything else of that shape. */
export interface Endpoint extends Address {
  readonly secret?: string | undefined
  /** How it encrypts, as the option of `openTunnel` says it; by the secret, if any, where that is left out. */
  readonly tls?: ClientTls | undefined
}

/** A server, understood. */
export interface KnownEndpoint extends Endpoint {
  /** Whether another server may come to the same address. One that was given as an object is gone once it is closed. */
  readonly comesBack: boolean
}

const WANTED =
  "a Server, or an address such as 'host', 'host:8910' or 'pipe://secret@host:8910' (server, --to or PIPE_SERVER)"

/**
 * The server to use: as the option says, else as `PIPE_SERVER` does, else undefined, which means one of our own.
 * Its secret is the option, else what the server or its address holds, else `PIPE_SECRET`.
 */
export function findEndpoint(
  server: string | Endpoint | undefined,
  secret: string | undefined,
  tls?: ClientTls,
  environment: NodeJS.ProcessEnv = process.env,
): KnownEndpoint | undefined {
  checkClientTls(tls)
  const given = server ?? (environment[SERVER_VARIABLE] || undefined)
  if (given === undefined) return undefined
  if (typeof given !== 'string' && (typeof given !== 'object' || isPromise(given))) {
    throw invalidOption('server', WANTED, given)
  }
  const held: Endpoint = typeof given === 'string' ? parseEndpoint(given) : given
  const { host, port } = held
  checkHost('server.host', host)
  checkInteger('server.port', port, 1, 65_535)
  // A server that is given as an object knows whether it has a secret.
  const isText = typeof given === 'string'
  const known = secret ?? held.secret ?? (isText ? environment[SECRET_VARIABLE] : undefined)
  checkSecret(secret === undefined && held.secret === undefined ? SECRET_VARIABLE : 'secret', known)
  return {
    host: isAnyAddress(host) ? 'localhost' : host,
    port,
    secret: known,
    tls: tls ?? held.tls,
    comesBack: isText,
  }
}

function parseEndpoint(text: string): Endpoint {
  const { scheme, host, port, user } = parseAddress('server', WANTED, text)
  if (scheme && scheme !== 'pipe') throw invalidOption('server', WANTED, text)
  return { host, port: port ?? DEFAULT_PORT, secret: user }
}
