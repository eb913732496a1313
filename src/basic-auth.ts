/** Names and passwords that a tunnel asks its visitors for (RFC 7617). The server is told a hash of them. */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { TunnelError } from './errors.js'

/** Bytes of what makes the same password another hash each time. */
const SALT = 16

/** Understands the option; gives what the server is to be told. Complaints do not quote it. */
export function readBasicAuth(value: unknown): string | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && /^[^:\p{Cc}]+:[^\p{Cc}]+$/u.test(value)) return digestOf(value)
  throw new TunnelError('invalid-option', "basicAuth must be a name and a password, such as 'user:pass'")
}

/** What the server is told of `name:password`: a salt, and the hash that it makes. */
function digestOf(credentials: string): string {
  const salt = randomBytes(SALT)
  return Buffer.concat([salt, hash(salt, Buffer.from(credentials))]).toString('hex')
}

/** Whether a request's header Authorization shows what the digest was made of. */
export function isAuthorized(digest: string, header: string | undefined): boolean {
  const bytes = Buffer.from(digest, 'hex')
  const [, given = ''] = /^basic +([\w+/=-]+)$/i.exec(header ?? '') ?? []
  return timingSafeEqual(hash(bytes.subarray(0, SALT), Buffer.from(given, 'base64')), bytes.subarray(SALT))
}

function hash(salt: Buffer, credentials: Buffer): Buffer {
  return createHmac('sha256', salt).update(credentials).digest()
}
