/** Certificates that are made for one test run (RFC 5280, in DER by hand), so that none has to be kept anywhere. */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import net from 'node:net'

export interface Certificate {
  /** In PEM, as the option `tls` takes them. */
  readonly cert: string
  readonly key: string
  readonly name: string
  readonly privateKey: KeyObject
}

const DAY = 86_400_000

/** A certificate for these names and addresses, signed by that authority or by itself. */
export function makeCertificate(
  names: readonly string[],
  authority?: Certificate,
  days: { from: number; to: number } = { from: -1, to: 1 },
): Certificate {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const publicKey = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  const name = `pipe-tunnel test ${randomBytes(4).toString('hex')}`
  const ecdsaWithSha256 = sequence(oid('06082a8648ce3d040302'))
  const time = (offset: number) =>
    der(0x18, Buffer.from(new Date(Date.now() + offset * DAY).toISOString().replace(/[-:T]|\.\d+/g, '')))
  const extensions = [
    // Basic constraints: an authority, where it signs itself.
    ...(authority ? [] : [extension('0603551d13', sequence(der(0x01, Buffer.from([0xff]))))]),
    extension('0603551d11', sequence(...names.map(alternativeName))),
  ]
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([0x40, ...randomBytes(15)])),
    ecdsaWithSha256,
    distinguishedName(authority?.name ?? name),
    sequence(time(days.from), time(days.to)),
    distinguishedName(name),
    publicKey,
    der(0xa3, sequence(...extensions)),
  )
  const signature = sign('sha256', body, authority?.privateKey ?? privateKey)
  const cert = sequence(body, ecdsaWithSha256, der(0x03, Buffer.concat([Buffer.from([0]), signature])))
  const lines = cert.toString('base64').replace(/.{64}(?=.)/g, '$&\n')
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    name,
    privateKey,
  }
}

function der(tag: number, ...content: Buffer[]): Buffer {
  const bytes = Buffer.concat(content)
  const { length } = bytes
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...size]), bytes])
}

const sequence = (...content: Buffer[]) => der(0x30, ...content)
const oid = (hex: string) => Buffer.from(hex, 'hex')

/** One common name. */
const distinguishedName = (name: string) =>
  sequence(der(0x31, sequence(oid('0603550403'), der(0x0c, Buffer.from(name)))))

const extension = (id: string, value: Buffer) => sequence(oid(id), der(0x04, value))

/** A DNS name or an IPv4 address. */
const alternativeName = (name: string) =>
  net.isIPv4(name) ? der(0x87, Buffer.from(name.split('.').map(Number))) : der(0x82, Buffer.from(name))
