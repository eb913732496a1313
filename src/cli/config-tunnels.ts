/** What `pipe up` and `pipe expose` take from a configuration file, behind their flags and the environment. */
import { closestMatch } from 'leven'
import type { TunnelConfig } from '../config/define.js'
import type { LoadedConfig } from '../config/load.js'
import { TunnelError } from '../errors.js'
import { type LinkOptions, readWanted, type WantedTunnel } from '../open-tunnel.js'
import { invalidOption, SECRET_VARIABLE } from '../options.js'
import { beside, checked, secretOf } from './config.js'
import { readSecret, type SecretOptions, secretOfEnvironment } from './secret.js'
import { type ClientTlsArguments, readClientTls, readPem } from './tls.js'

/** Flags of the control connection, which `pipe expose` and `pipe up` share. */
export interface LinkArguments extends SecretOptions, ClientTlsArguments {
  config?: string
  to?: string
  mux?: boolean
  retry?: boolean
  /** False with `--no-reconnect`. */
  reconnect?: boolean
}

/** How long `--retry` tries, in milliseconds. */
const PATIENCE = 60_000

/** How to reach the server: as the flags say, else the environment, else the file. */
export function readLink(flags: LinkArguments, loaded?: LoadedConfig): LinkOptions {
  const file = loaded?.config ?? {}
  const given = flags.to ?? (process.env.PIPE_SERVER || undefined)
  const retry = flags.retry ?? file.retry
  return {
    server: given ?? file.to,
    secret: readSecret(flags) ?? secretBelow(given, loaded),
    tls: readClientTls(flags) ?? (loaded && tlsOf(loaded)),
    mux: flags.mux ?? file.mux,
    retry,
    reconnect: flags.reconnect === false ? false : file.reconnect,
    maxReconnects: file.maxReconnects,
    timeout: file.timeout ?? (retry ? PATIENCE : undefined),
  }
}

/** The secret of environment or file. What stands in an address goes before those of its own layer and below. */
function secretBelow(given: string | undefined, loaded: LoadedConfig | undefined): string | undefined {
  // Where the address is of a layer above the file, that is seen to by whoever reads the address.
  if (process.env[SECRET_VARIABLE] !== undefined)
    return given === undefined && loaded?.config.to ? secretOfEnvironment() : undefined
  return loaded && !given?.includes('@') ? secretOf(loaded, '', loaded.config) : undefined
}

function tlsOf(loaded: LoadedConfig): LinkOptions['tls'] {
  const { tls } = loaded.config
  if (typeof tls !== 'object') return tls
  const { caFile, ...rest } = tls
  return { ...rest, ca: readPem(`${loaded.name}: tls.caFile`, beside(loaded, caFile)) }
}

/** The tunnels of the file, those of these names or all. */
export function readTunnels(loaded: LoadedConfig, names: string[]): Map<string, WantedTunnel> {
  const { name: file, config } = loaded
  const tunnels = config.tunnels ?? {}
  const known = Object.keys(tunnels)
  if (known.length === 0) {
    throw new TunnelError('invalid-option', `${file} has no tunnels: add some, such as { "web": 3000 }`)
  }
  const wanted = new Map<string, WantedTunnel>()
  for (const name of names.length > 0 ? names : known) {
    const tunnel = Object.hasOwn(tunnels, name) ? tunnels[name] : undefined
    if (tunnel === undefined) {
      const nearest = closestMatch(name, known, { maxDistance: 3 })
      const next = nearest ? `did you mean ${nearest}?` : `it has ${known.join(', ')}`
      throw new TunnelError('invalid-option', `${file} has no tunnel ${name}: ${next}`)
    }
    const read = () => readTunnel(loaded, typeof tunnel === 'object' ? tunnel : { target: tunnel })
    wanted.set(name, checked(`${file}: tunnels.${name}`, read))
  }
  checkHostnames(file, wanted)
  return wanted
}

/** Each may have a name once. */
function checkHostnames(file: string, wanted: Map<string, WantedTunnel>): void {
  const owners = new Map<string, string>()
  for (const [name, { hostname }] of wanted) {
    if (typeof hostname !== 'string') continue
    const owner = owners.get(hostname.toLowerCase())
    if (owner !== undefined) {
      const both = `tunnels.${owner} and tunnels.${name}`
      throw new TunnelError('invalid-option', `${file}: ${both} have the same hostname ${hostname}`)
    }
    owners.set(hostname.toLowerCase(), name)
  }
}

function readTunnel(loaded: LoadedConfig, { target, ...options }: TunnelConfig): WantedTunnel {
  const { port = options.port, ...named } = parseWanted(String(target))
  if (port !== options.port && options.port !== undefined) {
    throw invalidOption('port', 'left out where the target names a public port', options.port)
  }
  const [, path] = /^unix:(.+)$/.exec(String(named.target)) ?? []
  const wanted = {
    ...options,
    ...(port !== undefined && { port }),
    target: path ? `unix:${beside(loaded, path)}` : named.target,
  }
  readWanted(wanted, false, false)
  return wanted
}

/** A target of the command line, with the public port in front where one is asked for: `8080:host:3000`. */
export function parseWanted(text: string): WantedTunnel {
  const [, port, target] = /^(\d+):(.+)$/.exec(text) ?? []
  return target ? { target, port: Number(port) } : { target: text }
}
