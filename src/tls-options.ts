import { constants } from 'node:crypto'
import type { SecureContext } from 'node:tls'
import { invalidOption } from './options.js'
import { type PresharedKey, presharedKey } from './preshared-key.js'

/** How a server encrypts: not at all, or with a certificate, in PEM. */
export type ServerTls = false | { key: string | Buffer; cert: string | Buffer }

/**
 * How a client encrypts: not at all, or with a server that shows a certificate. `ca` is what it trusts instead of Node's own
 * authorities, in PEM, and `servername` the name that the certificate must be for, instead of the server's host.
 */
export type ClientTls = boolean | { ca: string | Buffer; servername?: string }

/** `node:tls`, which is loaded by who encrypts. */
type Tls = typeof import('node:tls')

/** What a server accepts connections with. Without keys, it has a certificate. */
export interface ServerSecurity {
  tls: Tls
  context: SecureContext
  /** By identity. */
  keys: Map<string, Buffer> | undefined
}

/** What a client dials with. Without a key, it verifies a certificate. */
export interface ClientSecurity {
  tls: Tls
  context: SecureContext
  key: PresharedKey | undefined
  servername: string | undefined
}

const VERSION = { minVersion: 'TLSv1.3' } as const
/** The suites of TLS 1.3 whose hash is that of the key, SHA-256 (RFC 8446, 4.2.11). */
const PSK_CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256'

export function checkServerTls(value: unknown): void {
  if (value === undefined || value === false) return
  const { key, cert } = (value ?? {}) as { key?: unknown; cert?: unknown }
  if (!isPem(key) || !isPem(cert)) throw invalidOption('tls', 'false, or { key, cert } in PEM', value)
}

export function checkClientTls(value: unknown): void {
  if (value === undefined || typeof value === 'boolean') return
  const { ca, servername } = (value ?? {}) as { ca?: unknown; servername?: unknown }
  const isName = servername === undefined || (typeof servername === 'string' && servername !== '')
  if (!isPem(ca) || !isName)
    throw invalidOption('tls', 'true, false, or { ca, servername } with ca in PEM', value)
}

const isPem = (value: unknown) => typeof value === 'string' || Buffer.isBuffer(value)

/**
 * How a server with these options encrypts; undefined where it does not. Rejects with `invalid-option` where the
 * certificate is of no use.
 */
export async function serverSecurity(
  option: ServerTls | undefined,
  secrets: readonly { secret: string }[],
): Promise<ServerSecurity | undefined> {
  if (option === false || (option === undefined && secrets.length === 0)) return undefined
  const tls = await import('node:tls')
  // A ticket would let a client come back without the key.
  const secureOptions = constants.SSL_OP_NO_TICKET
  if (option !== undefined) {
    const { key, cert } = option
    try {
      return {
        tls,
        context: tls.createSecureContext({ ...VERSION, secureOptions, key, cert }),
        keys: undefined,
      }
    } catch (error) {
      throw invalidOption('tls', 'a private key and its certificate, in PEM', (error as Error).message)
    }
  }
  const context = tls.createSecureContext({ ...VERSION, secureOptions, ciphers: PSK_CIPHERS })
  // At most four at a time, in Node's thread pool.
  const derived = await Promise.all(secrets.map(({ secret }) => presharedKey(secret)))
  const keys = new Map(derived.map(({ identity, key }) => [identity, key]))
  return { tls, context, keys }
}

/** How a client with these options encrypts; undefined where it does not. Rejects with `invalid-option`. */
export async function clientSecurity(
  option: ClientTls | undefined,
  secret: string | undefined,
): Promise<ClientSecurity | undefined> {
  if (option === false || (option === undefined && secret === undefined)) return undefined
  const tls = await import('node:tls')
  if (option === undefined) {
    const context = tls.createSecureContext({ ...VERSION, ciphers: PSK_CIPHERS })
    return { tls, context, key: await presharedKey(secret as string), servername: undefined }
  }
  const { ca, servername } = option === true ? {} : option
  try {
    return { tls, context: tls.createSecureContext({ ...VERSION, ca }), key: undefined, servername }
  } catch (error) {
    throw invalidOption('tls.ca', 'a certificate in PEM', (error as Error).message)
  }
}
