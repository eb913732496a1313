import { once } from 'node:events'
import { resolve } from 'node:path'
import { DEFAULT_PORT } from '../endpoint.js'
import { TunnelError } from '../errors.js'
import type { HttpOptions } from '../http-options.js'
import { createServer } from '../server.js'
import type { Server } from '../server-info.js'
import type { ServerOptions } from '../server-options.js'
import { readConfig, readServer } from './config.js'
import { GRACE, onEndSignals, writeLine } from './exit.js'
import { type LogArguments, openLog } from './log.js'
import { closingLine } from './report.js'
import { readSecret, type SecretOptions } from './secret.js'
import { readServerTls, type ServerTlsArguments } from './tls.js'

interface HttpArguments {
  httpPort?: number
  domain?: string
  trustProxy?: string[]
}

type ServerArguments = Omit<ServerOptions, 'secret' | 'tls' | 'http'> &
  SecretOptions &
  ServerTlsArguments &
  LogArguments &
  HttpArguments & { config?: string }

/** `pipe server`: runs until it is told to end. */
export async function runServer(options: ServerArguments): Promise<void> {
  const settings = await readSettings(options)
  const { logger, say } = await openLog(options)
  const server = await createServer({ ...settings, logger })
  const closed = once(server, 'close')
  // Before anything is printed: a script may answer the address with a signal at once.
  const stopListening = onEndSignals((count) => {
    if (count === 1 && server.connections > 0) say(closingLine(server.connections))
    server.close({ grace: count === 1 ? GRACE : 0 })
  })
  writeLine(process.stdout, server.address)
  const { host, http, ports, sockets, secret, secrets } = settings
  const terms = [
    ...(Array.isArray(host) && host.length > 1 ? [`listens on ${host.join(' and ')}`] : []),
    secret === undefined && !secrets ? 'asks for no secret' : 'asks for the secret',
    encryption(server),
    ...(http ? [`HTTP tunnels on port ${server.httpPort} in ${http.domain ?? 'localhost'}`] : []),
    `public ports: ${ports ?? 'any from 1024 up'}`,
    ...(sockets === undefined ? [] : [`unix sockets in ${resolve(sockets)}`]),
    'Ctrl-C closes',
  ]
  say(terms.join('; '))
  await closed
  stopListening()
}

/** As the flags say, else the environment, else the file. */
async function readSettings(options: ServerArguments): Promise<ServerOptions> {
  const { config, secret, secretFile, tlsCert, tlsKey, tls: mayEncrypt, ...others } = options
  const { httpPort, domain, trustProxy, logLevel, logFormat, ...flags } = others
  const loaded = await readConfig(config)
  const file = loaded ? readServer(loaded) : {}
  return {
    port: DEFAULT_PORT,
    ...file,
    ...flags,
    http: readHttp({ httpPort, domain, trustProxy }, file),
    secret: readSecret({ secret, secretFile }) ?? process.env.PIPE_SECRET ?? file.secret,
    tls: readServerTls({ tlsCert, tlsKey, tls: mayEncrypt }) ?? file.tls,
  }
}

/** The flags go before the file, each by itself. */
function readHttp(flags: HttpArguments, file: ServerOptions): HttpOptions | undefined {
  const { httpPort: port = file.http?.port, domain, trustProxy: trustedProxies } = flags
  if (port !== undefined) {
    return { ...file.http, port, ...(domain && { domain }), ...(trustedProxies && { trustedProxies }) }
  }
  const [name] =
    Object.entries({ '--domain': domain, '--trust-proxy': trustedProxies }).find(([, given]) => given) ?? []
  if (name) throw new TunnelError('invalid-option', `${name} must be left out where there is no --http-port`)
  return undefined
}

function encryption({ tls }: Server): string {
  if (tls === false) return 'does not encrypt'
  return tls ? 'encrypts with its certificate' : 'encrypts by the secret'
}
