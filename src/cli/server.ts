import { once } from 'node:events'
import { resolve } from 'node:path'
import { formatAddress } from '../address.js'
import { DEFAULT_PORT } from '../endpoint.js'
import { TunnelError } from '../errors.js'
import type { HttpOptions } from '../http-options.js'
import { formatVisitor } from '../listener.js'
import { createServer } from '../server.js'
import type { Server } from '../server-info.js'
import type { ServerOptions } from '../server-options.js'
import type { TunnelInfo } from '../tunnel-info.js'
import { readConfig, readServer } from './config.js'
import { GRACE, onEndSignals, writeLine } from './exit.js'
import { inFlags } from './flags.js'
import { closingLine, datagrams } from './report.js'
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
  HttpArguments & { config?: string }

/** `pipe server`: runs until it is told to end. */
export async function runServer(options: ServerArguments): Promise<void> {
  const settings = await readSettings(options)
  const server = await createServer(settings)
  const closed = once(server, 'close')
  // Before anything is printed: a script may answer the address with a signal at once.
  const stopListening = onEndSignals((count) => {
    if (count === 1 && server.connections > 0) writeLine(process.stderr, closingLine(server.connections))
    server.close({ grace: count === 1 ? GRACE : 0 })
  })
  report(server)
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
  writeLine(process.stderr, terms.join('; '))
  await closed
  stopListening()
}

/** As the flags say, else the environment, else the file. */
async function readSettings(options: ServerArguments): Promise<ServerOptions> {
  const { config, secret, secretFile, tlsCert, tlsKey, tls: mayEncrypt, ...others } = options
  const { httpPort, domain, trustProxy, ...flags } = others
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

function report(server: Server): void {
  const say = (text: string) => writeLine(process.stderr, `${new Date().toISOString()} ${text}`)
  server.on('tunnel', async (tunnel) => {
    const name = `${addressOf(tunnel)} for ${formatVisitor(tunnel.client)}`
    say(`opened ${name}`)
    const error = await tunnel.closed
    say(`closed ${name}${error ? `: ${inFlags(error.message)}` : ''}`)
  })
  server.on('reject', ({ visitor, error }, tunnel) => {
    say(`turned ${formatVisitor(visitor)} away from ${addressOf(tunnel)}: ${inFlags(error.message)}`)
  })
  server.on('drop', ({ count, reason }, tunnel) => {
    say(`dropped ${datagrams(count)} of ${addressOf(tunnel)}: ${reason}`)
  })
  server.on('refuse', ({ client, error }) => {
    say(`refused ${formatVisitor(client)}: ${inFlags(error.message)}`)
  })
  server.on('disconnect', ({ client, error }) =>
    say(`lost ${formatVisitor(client)}: ${inFlags(error.message)}`),
  )
  server.on('reconnect', (client) => say(`${formatVisitor(client)} is back`))
}

/** `127.0.0.1:41234`, `udp:127.0.0.1:41234` or `unix:/tmp/x.sock`. */
function addressOf({ protocol, host, port, path, url }: TunnelInfo): string {
  if (url !== undefined) return url
  if (path !== undefined) return `unix:${path}`
  return `${protocol === 'udp' ? 'udp:' : ''}${formatAddress({ host, port })}`
}
