import { readFileSync } from 'node:fs'
import { TunnelError } from '../errors.js'
import type { ClientTls, ServerTls } from '../tls-options.js'

/** Those of `pipe server`. */
export interface ServerTlsArguments {
  tlsCert?: string
  tlsKey?: string
  /** False with `--no-tls`. */
  tls: boolean
}

/** Those of `pipe expose`. */
export interface ClientTlsArguments {
  ca?: string
  /** True with `--tls`, false with `--no-tls`. */
  tls?: boolean
}

export function readServerTls({ tlsCert, tlsKey, tls }: ServerTlsArguments): ServerTls | undefined {
  if (tlsCert === undefined && tlsKey === undefined) return tls ? undefined : false
  if (tlsCert === undefined || tlsKey === undefined) {
    throw new TunnelError('invalid-option', '--tls-cert and --tls-key must be given together')
  }
  if (!tls) throw new TunnelError('invalid-option', '--no-tls must be left out where a certificate is given')
  return { cert: readPem('--tls-cert', tlsCert), key: readPem('--tls-key', tlsKey) }
}

export function readClientTls({ ca, tls }: ClientTlsArguments): ClientTls | undefined {
  if (ca === undefined) return tls
  if (tls === false) throw new TunnelError('invalid-option', '--no-tls must be left out where --ca is given')
  return { ca: readPem('--ca', ca) }
}

/** The bytes of a file in PEM. */
export function readPem(name: string, path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    const failure = `can't read ${name} from ${path} (${(error as Error).message})`
    throw new TunnelError('invalid-option', `${failure}: give a file in PEM`, { cause: error })
  }
}
