import { type Address, isAnyAddress, parseAddress } from './address.js'
import { checkHost, checkInteger, checkSecret, invalidOption } from './options.js'

/** Port that servers listen on and clients dial where none is given. */
export const DEFAULT_PORT = 8_910

/** The environment variables that stand in for options; nothing else in the library reads the environment. */
const SERVER_VARIABLE = 'PIPE_SERVER'
const SECRET_VARIABLE = 'PIPE_SECRET'

/** Where a server is, and what it asks for: a `Server`, or anything else of that shape. */
export interface Endpoint extends Address {
  readonly secret?: string | undefined
}

const WANTED = "a server, or an address such as 'host', 'host:8910' or 'pipe://secret@host:8910'"

/**
 * The server to use: as the option says, else as `PIPE_SERVER` does, else undefined, which means one of our own.
 * Its secret is the option, else what the server or its address holds, else `PIPE_SECRET`.
 */
export function findEndpoint(
  server: string | Endpoint | undefined,
  secret: string | undefined,
  environment: NodeJS.ProcessEnv = process.env,
): Endpoint | undefined {
  const given = server ?? (environment[SERVER_VARIABLE] || undefined)
  if (given === undefined) return undefined
  const endpoint = typeof given === 'string' ? parseEndpoint(given) : given
  const held = typeof given === 'string' ? (endpoint.secret ?? environment[SECRET_VARIABLE]) : endpoint.secret
  const known = secret ?? held
  checkHost('server.host', endpoint.host)
  checkInteger('server.port', endpoint.port, 1, 65_535)
  checkSecret(known)
  return {
    host: isAnyAddress(endpoint.host) ? 'localhost' : endpoint.host,
    port: endpoint.port,
    secret: known,
  }
}

function parseEndpoint(text: string): Endpoint {
  const { scheme, host, port, user } = parseAddress('server', WANTED, text)
  if (scheme && scheme !== 'pipe') throw invalidOption('server', WANTED, text)
  return { host, port: port ?? DEFAULT_PORT, secret: user }
}
