/** The configuration file as its authors see it: the entry `pipe-tunnel/config`, which loads nothing else. */
import type { WantedTunnel } from '../open-tunnel.js'
import type { NamedSecret } from '../secrets.js'
import type { ServerOptions } from '../server-options.js'

/** A secret, or the file whose first line is one. */
export interface SecretConfig {
  /** The secret itself. Prefer `secretFile`, or the variable `PIPE_SECRET`. */
  secret?: string
  /** File whose first line is the secret. */
  secretFile?: string
}

/** What all tunnels share: the control connection. */
export interface LinkConfig extends SecretConfig {
  /** The server to go through, such as `'tunnel.example.com:8910'`. Default: one in this process. */
  to?: string
  /** `true` or `{ caFile, servername }`: encrypts, with a server that shows a certificate. `false`: does not encrypt. */
  tls?: boolean | { caFile: string; servername?: string }
  /** One connection to the server carries all visitors. Default false. */
  mux?: boolean
  /** Tries again while the server can't be reached, until `timeout`. Default false. */
  retry?: boolean
  /** Connects again when the link to the server was lost. Default true. */
  reconnect?: boolean
  /** Attempts in a row to reconnect, before the tunnels are given up. Default: any number. */
  maxReconnects?: number
  /** Milliseconds until the tunnels are open. Default 10,000; with `retry` 60,000. */
  timeout?: number
}

/** A tunnel, with the options of `openTunnel`. */
export interface TunnelConfig extends Omit<WantedTunnel, 'target' | 'logger'> {
  /** What to expose, as in `pipe expose`: `3000`, `'8080:localhost:3000'`, `'udp://localhost:53'`, `'unix:app.sock'`. */
  target: number | string
}

/** A server, with the options of `createServer`. */
export interface ServerConfig
  extends SecretConfig,
    Omit<ServerOptions, 'secret' | 'secrets' | 'tls' | 'logger' | 'unref' | 'timeout' | 'signal'> {
  /** More secrets, by their names. */
  secrets?: Readonly<Record<string, SecretConfig & Omit<NamedSecret, 'secret'>>>
  /** Encrypts with this certificate, in PEM. `false`: does not encrypt. Default: encrypts by the secret, if any. */
  tls?: false | { certFile: string; keyFile: string }
}

/** What stands in `pipe.config.ts`, or in one of its other forms. */
export interface Config extends LinkConfig {
  /** Tunnels by their names, which `pipe up` opens: each a target, or an object with one and options. */
  tunnels?: Readonly<Record<string, number | string | TunnelConfig>>
  /** What `pipe server` runs with. */
  server?: ServerConfig
  /** The JSON Schema of this file, for editors. */
  $schema?: string
}

/** Gives the configuration back as it is: for its types. */
export function defineConfig(config: Config): Config {
  return config
}
