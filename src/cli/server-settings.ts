/** What `pipe server` runs with: of its flags, the environment and the configuration file. */
import { DEFAULT_PORT } from '../endpoint.js'
import { TunnelError } from '../errors.js'
import type { HttpOptions } from '../http-options.js'
import type { ServerOptions } from '../server-options.js'
import type { ServerAdminArguments } from './admin.js'
import { readConfig } from './config.js'
import { readServer } from './config-server.js'
import type { LogArguments } from './log.js'
import { readSecret, type SecretOptions, secretOfEnvironment } from './secret.js'
import { readServerTls, type ServerTlsArguments } from './tls.js'

interface HttpArguments {
  httpPort?: number
  domain?: string
  trustProxy?: string[]
  caddy?: string
}

export type ServerArguments = Omit<ServerOptions, 'secret' | 'tls' | 'http'> &
  SecretOptions &
  ServerTlsArguments &
  LogArguments &
  HttpArguments &
  ServerAdminArguments & { config?: string }

/** As the flags say, else the environment, else the file. */
export async function readSettings(
  options: ServerArguments,
): Promise<{ settings: ServerOptions; file: string | undefined }> {
  const { config, secret, secretFile, tlsCert, tlsKey, tls: mayEncrypt, ...others } = options
  const {
    httpPort,
    domain,
    trustProxy,
    caddy,
    logLevel,
    logFormat,
    adminPort,
    adminHost,
    adminSecretFile,
    ...flags
  } = others
  const loaded = await readConfig(config)
  const inFile = loaded ? readServer(loaded) : {}
  const settings = {
    port: DEFAULT_PORT,
    ...inFile,
    ...flags,
    http: readHttp({ httpPort, domain, trustProxy, caddy }, inFile),
    secret: readSecret({ secret, secretFile }) ?? secretOfEnvironment() ?? inFile.secret,
    tls: readServerTls({ tlsCert, tlsKey, tls: mayEncrypt }) ?? inFile.tls,
  }
  return { settings, file: loaded?.name }
}

/** The flags go before the file, each by itself. */
function readHttp(flags: HttpArguments, file: ServerOptions): HttpOptions | undefined {
  const { domain, trustProxy: trustedProxies, caddy = file.http?.caddy } = flags
  // Visitors come to Caddy: its port alone need not be known.
  const port = flags.httpPort ?? file.http?.port ?? (caddy === undefined ? undefined : 0)
  if (port !== undefined) {
    const given = { ...(domain && { domain }), ...(trustedProxies && { trustedProxies }) }
    return { ...file.http, ...given, port, ...(caddy !== undefined && { caddy }) }
  }
  const [name] =
    Object.entries({ '--domain': domain, '--trust-proxy': trustedProxies }).find(([, given]) => given) ?? []
  if (name) throw new TunnelError('invalid-option', `${name} must be left out where there is no --http-port`)
  return undefined
}
