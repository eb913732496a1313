/**
 * The wire on one page; `docs/protocol.md` is its description. A message is four bytes of length
 * (big endian), then that many bytes of JSON. Every connection to a server begins with one: `hello`
 * makes it a control connection, `exchange` a data stream that is raw bytes from then on, and from `joined` on
 * in the other direction.
 */
import { printable, TunnelError } from './errors.js'
import { isLabel } from './hostname.js'
import { isRange, MAX_ENTRIES } from './visitor-filter.js'

export const PROTOCOL_VERSION = 1
/** Longest JSON of a message, in bytes: a `closed` with its sentence needs 1 KiB, the rest is room for versions to come. */
export const MAX_MESSAGE = 65_536
/** Bytes of a message's length. */
export const HEADER = 4
/** Longest sentence of an error, in UTF-16 units. */
const MAX_SENTENCE = 1_000

/** Path of a public URL at which the server answers by itself, for a client that looks whether the URL leads to its tunnel. */
export const PROBE_PATH = '/.well-known/pipe-tunnel/probe'

/** What visitors speak. */
export type Protocol = 'tcp' | 'udp' | 'unix' | 'http'

/** What a client sends. A field that is not listed is ignored, one that is must pass its check. */
export const fromClient = {
  /** First on a control connection. Keeps this shape in every version, so that any two can tell each other so. */
  hello: { version: integer(1, 65_535), nonce: hex(32) },
  /**
   * Answers `challenge`; null where the server asks for no secret. A client that was lost takes its session over with the
   * key of its last `welcome`.
   */
  login: { proof: nullable(hex(32)), resume: optional(hex(32)) },
  /**
   * Asks for a tunnel, under a number that this client chose; port 0 lets the server choose. The path is that of a unix
   * socket. How long flows may be silent, and how many there may be, are the server's own where they are left out. Visitors
   * that come while the client is lost wait, unless it says otherwise. After a resumed login, it names the tunnels
   * that the client still wants. The lists are of visitors' addresses. An HTTP tunnel has no port of its own but a hostname,
   * which the server chooses where it is left out; who visits it must show what hashes to `basicAuth`.
   */
  forward: {
    tunnel: integer(1, 2 ** 31),
    protocol: oneOf('tcp', 'udp', 'unix', 'http'),
    port: integer(0, 65_535),
    path: optional(path),
    hostname: optional(isLabel),
    basicAuth: optional(hex(48)),
    flowTimeout: optional(integer(1, 2 ** 31 - 1)),
    maxFlows: optional(integer(1, 1_000_000)),
    whileLost: optional(oneOf('wait', 'refuse')),
    allow: optional(ranges),
    deny: optional(ranges),
  },
  /** Gives a tunnel back. The server answers with `closed`. */
  close: { tunnel: integer(1, 2 ** 31) },
  /** Turns a visitor away: its target can't be reached. */
  reject: { tunnel: integer(1, 2 ** 31), id: uuid, code: name, message: text(MAX_SENTENCE) },
  /** Answers the server's heartbeat, or what comes in its place. */
  heartbeat: {},
  /** First on a data stream: the visitor it is for. */
  exchange: { id: uuid },
}

/** What a server sends: on the control connection, but for `joined` and `refuse`, which may come first on a data stream. */
export const fromServer = {
  /** Answers `hello`; `secret` tells whether a proof is asked for. */
  challenge: { nonce: hex(32), secret: boolean },
  /**
   * Ends the login. The proof is null where no secret was asked for; times are in milliseconds. With the key the client
   * takes its session over after a loss, up to `resumeTimeout` later; a server that keeps nothing leaves both out.
   */
  welcome: {
    proof: nullable(hex(32)),
    heartbeatTimeout: integer(1, 2 ** 31 - 1),
    exchangeTimeout: integer(1, 2 ** 31 - 1),
    resumeTimeout: optional(integer(1, 2 ** 31 - 1)),
    resume: optional(hex(32)),
  },
  /** Last before the server ends a connection of either kind. Keeps this shape in every version. */
  refuse: { code: name, message: text(MAX_SENTENCE) },
  /**
   * Answers `forward`: the public address is open. Host is null where it is the host that the client dialled. Of a unix
   * socket there is the path alone, and the port is 0. Of an HTTP tunnel, host, port and scheme make its URL; at the path
   * `/.well-known/pipe-tunnel/probe` the server answers with `probe`, so that the client can see whether the URL leads there.
   */
  forwarded: {
    tunnel: integer(1, 2 ** 31),
    host: nullable(host),
    port: integer(0, 65_535),
    path: optional(path),
    hostname: optional(isLabel),
    scheme: optional(oneOf('http', 'https')),
    probe: optional(hex(16)),
  },
  /** The tunnel is gone, or never came to be: answers `close` and `forward`, or comes unasked. */
  closed: { tunnel: integer(1, 2 ** 31), code: name, message: text(MAX_SENTENCE) },
  /** A visitor waits at this tunnel: open a data stream for it, or `reject` it. It came from the first address to the second. */
  exchange: {
    tunnel: integer(1, 2 ** 31),
    id: uuid,
    address: host,
    port: integer(0, 65_535),
    localAddress: host,
    localPort: integer(0, 65_535),
  },
  /** The server has dropped so many datagrams of this tunnel since it last said so. */
  dropped: {
    tunnel: integer(1, 2 ** 31),
    count: integer(1, Number.MAX_SAFE_INTEGER),
    reason: text(MAX_SENTENCE),
  },
  /** First on a data stream: raw bytes of the visitor follow. */
  joined: {},
  /** Sent at an interval. */
  heartbeat: {},
}

export type FromClient = MessageOf<typeof fromClient>
export type FromServer = MessageOf<typeof fromServer>

/** One message of a direction, by its type: `Message<typeof fromClient, 'hello'>`. */
export type Message<S extends Shapes, T extends keyof S> = Extract<MessageOf<S>, { type: T }>

/** A message's bytes. */
export function encode(message: FromClient | FromServer): Buffer {
  const json = JSON.stringify(message)
  const length = Buffer.byteLength(json)
  const bytes = Buffer.allocUnsafe(HEADER + length)
  bytes.writeUInt32BE(length)
  bytes.write(json, HEADER)
  return bytes
}

/** The length in a message's header, or a `protocol-violation` before anything of that length is allocated. */
export function decodeLength(header: Buffer): number {
  const length = header.readUInt32BE()
  if (length >= 2 && length <= MAX_MESSAGE) return length
  // What OpenSSL begins with (RFC 8446, 5.1).
  if (header[0] === 0x16) throw violation('began with TLS, where messages were due that are not encrypted')
  throw violation(`announced a message of ${length} bytes, where 2 to ${MAX_MESSAGE} are allowed`)
}

/**
 * The message in these bytes, with the fields of its shape alone, or a `protocol-violation`.
 * Fields are copied one by one under names that we chose, so that no name the peer chose is ever set.
 */
export function decode<S extends Shapes>(json: Buffer, shapes: S): MessageOf<S> {
  const value = parse(json)
  const type = value.type
  if (typeof type !== 'string' || !Object.hasOwn(shapes, type)) {
    throw violation(`sent a message of unknown type ${quote(type)}`)
  }
  const message: Record<string, unknown> = { type }
  const shape = shapes[type] as Shape
  for (const field in shape) {
    if (!shape[field]?.(value[field])) throw violation(`sent ${type} with ${field} ${quote(value[field])}`)
    if (value[field] !== undefined) message[field] = value[field]
  }
  return message as MessageOf<S>
}

/** An error's fields in a message. */
export function errorFields(error: TunnelError): { code: string; message: string } {
  const { code, message } = error
  return { code, message: message.length > MAX_SENTENCE ? `${message.slice(0, MAX_SENTENCE - 1)}…` : message }
}

/** What a peer may never do; the connection ends with this. */
export function violation(deed: string): TunnelError {
  return new TunnelError('protocol-violation', `the peer ${deed}`)
}

function parse(json: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(json.toString())
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch {
    // Told below, without quoting what may be anything.
  }
  throw violation('sent a message that is not a JSON object')
}

/** What the peer sent, short enough for a sentence. */
function quote(value: unknown): string {
  if (value === undefined) return 'missing'
  // Not what is inside: it may be nested deeper than JSON.stringify can follow.
  return typeof value === 'object' && value !== null
    ? 'a structure'
    : printable(JSON.stringify(value)).slice(0, 80)
}

type Check<T> = (value: unknown) => value is T
type Shape = Record<string, Check<unknown>>
type Shapes = Record<string, Shape>
type Value<C> = C extends Check<infer T> ? T : never
type Optional<S> = { [F in keyof S]: undefined extends Value<S[F]> ? F : never }[keyof S]
type Fields<S> = { [F in Exclude<keyof S, Optional<S>>]: Value<S[F]> } & { [F in Optional<S>]?: Value<S[F]> }
type MessageOf<S extends Shapes> = { [T in keyof S]: { type: T } & Fields<S[T]> }[keyof S]

function integer(min: number, max: number): Check<number> {
  return (value): value is number => Number.isInteger(value) && Number(value) >= min && Number(value) <= max
}

function text(max: number): Check<string> {
  return (value): value is string => typeof value === 'string' && value.length <= max
}

/** A code: `port-taken`. */
function name(value: unknown): value is string {
  return typeof value === 'string' && /^[a-z-]{1,64}$/.test(value)
}

/** A host name or an IP address, which becomes part of URLs and of lines on a terminal. */
function host(value: unknown): value is string {
  return typeof value === 'string' && /^[\w.:%-]{1,255}$/.test(value)
}

/** Of a unix socket: as long as the longest `sun_path` of any system. */
function path(value: unknown): value is string {
  return typeof value === 'string' && /^.{1,108}$/su.test(value) && printable(value) === value
}

/** Addresses and ranges of visitors. */
function ranges(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.length <= MAX_ENTRIES && value.every(isRange)
}

function hex(bytes: number): Check<string> {
  const pattern = new RegExp(`^[0-9a-f]{${bytes * 2}}$`)
  return (value): value is string => typeof value === 'string' && pattern.test(value)
}

function oneOf<const T extends string>(...values: T[]): Check<T> {
  return (value): value is T => values.includes(value as T)
}

function nullable<T>(check: Check<T>): Check<T | null> {
  return (value): value is T | null => value === null || check(value)
}

/** A field that may be missing. */
function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value): value is T | undefined => value === undefined || check(value)
}

function boolean(value: unknown): value is boolean {
  return typeof value === 'boolean'
}

/** As `crypto.randomUUID` makes them (RFC 9562, version 4): 122 random bits. */
function uuid(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(value)
  )
}
