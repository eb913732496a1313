/**
 * What lies between client and server: TCP, and TLS over it where there is a secret or a certificate. Who expects TLS never
 * goes on without it.
 */
import net, { type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { type Address, formatAddress } from './address.js'
import { serverChannel } from './channel.js'
import { untilAborted, waitForEvent } from './deadline.js'
import { certificateOf, noteEncryption } from './encryption.js'
import type { Endpoint } from './endpoint.js'
import { isSystemError, reasonOf, TunnelError } from './errors.js'
import { errorFields } from './protocol.js'
import { socketOnError } from './socket.js'
import { reset } from './stream.js'
import { dialTcp } from './tcp.js'
import { type ClientSecurity, clientSecurity, type ServerSecurity } from './tls-options.js'

/** The first byte of a TLS handshake (RFC 8446, 5.1), and that of every message: the highest of its length. */
const HANDSHAKE = 0x16
const MESSAGE = 0x00

/** RFC 9266. */
const BINDING_LABEL = 'EXPORTER-Channel-Binding'
const BINDING_LENGTH = 32

/**
 * A connection that was accepted, as the server speaks on it. Rejects where its peer does not encrypt as it should; the
 * connection is ended then.
 */
export async function secureAccepted(
  socket: Socket,
  security: ServerSecurity | undefined,
  aborted: AbortSignal,
): Promise<Duplex> {
  if (!security) return socket
  try {
    const first = await firstByte(socket, aborted)
    // It has ended, and its owner finds no message on it.
    if (first === undefined) return socket
    if (first === HANDSHAKE) return await acceptTls(socket, security, aborted)
    throw withoutTls(first, security)
  } catch (error) {
    if (error instanceof WithoutTls) refusePlainly(socket, error)
    else reset(socket)
    throw aborted.aborted ? aborted.reason : error
  }
}

/** What is wrong with a peer that does not begin with TLS, and may be told so without it. */
class WithoutTls extends TunnelError {}

function withoutTls(first: number, { keys }: ServerSecurity): WithoutTls {
  if (first !== MESSAGE) {
    return new WithoutTls('protocol-violation', 'the peer began neither with TLS nor with a message')
  }
  return keys
    ? new WithoutTls(
        'secret-required',
        'the server asks for a secret, and encrypts by it: give it as the option secret, as PIPE_SECRET, or with --secret-file, and leave tls on',
      )
    : new WithoutTls(
        'tls-required',
        'the server speaks TLS and shows a certificate: connect with the option tls, or --tls',
      )
}

function refusePlainly(socket: Socket, error: TunnelError): void {
  const channel = serverChannel(socket)
  channel.send({ type: 'refuse', ...errorFields(error) })
  channel.finish()
}

/** The first byte that a peer sends, which stays in the stream; undefined where it ends before. */
async function firstByte(socket: Socket, aborted: AbortSignal): Promise<number | undefined> {
  for (;;) {
    aborted.throwIfAborted()
    const byte: Buffer | null = socket.read(1)
    if (byte) {
      socket.unshift(byte)
      return byte[0]
    }
    if (socket.readableEnded) return undefined
    if (socket.destroyed) throw socket.errored ?? broken()
    await waitForEvent(socket, ['readable', 'end', 'close'], aborted, [])
  }
}

async function acceptTls(
  socket: Socket,
  { tls, context, keys }: ServerSecurity,
  aborted: AbortSignal,
): Promise<Duplex> {
  let isStranger = false
  const stream = new tls.TLSSocket(socket, {
    isServer: true,
    secureContext: context,
    ...(keys && {
      pskCallback(_socket: TLSSocket, identity: string) {
        const key = keys.get(identity)
        isStranger = !key
        return key ?? null
      },
    }),
  })
  try {
    await handshake(stream, socket, 'secure', aborted)
  } catch (error) {
    if (!isTlsError(error)) throw error
    if (isStranger) {
      throw new TunnelError('secret-wrong', 'the secret is not the one that the server holds', {
        cause: error,
      })
    }
    const wanted = keys ? ': the server expects TLS 1.3 with the key of its secret' : ''
    throw new TunnelError('protocol-violation', `the TLS handshake failed (${reasonIn(error)})${wanted}`, {
      cause: error,
    })
  }
  return stream
}

/** Makes the connections to one server, each as secure as the caller wants them. */
export class Dialler {
  readonly #server: Endpoint
  readonly #unref: boolean
  readonly #security: Promise<ClientSecurity | undefined>
  /** What it showed at the last login. */
  #certificate: Buffer | undefined

  constructor(server: Endpoint, unref: boolean) {
    this.#server = server
    this.#unref = unref
    // It takes its time, while the first connection is being made.
    this.#security = clientSecurity(server.tls, server.secret)
    this.#security.catch(() => {})
  }

  /** A connection on which to log in. Rejects with the system's error, a {@link TunnelError}, or the signal's reason. */
  async dial({ host, port }: Address, aborted: AbortSignal): Promise<Socket> {
    const socket = await dialTcp({ host, port }, { unref: this.#unref, aborted })
    try {
      const security = await untilAborted(this.#security, aborted)
      return await secureDialled(socket, security, this.#server, aborted)
    } catch (error) {
      reset(socket)
      throw error
    }
  }

  /** The login on this connection has shown that the server is the caller's. */
  trust(socket: Socket): void {
    this.#certificate = certificateOf(socket)
  }

  /**
   * One on which nobody logs in: what the last login has proved has to hold for it too, so that it must be to a server
   * with the same certificate.
   */
  async dialSame(address: Address, aborted: AbortSignal): Promise<Socket> {
    const socket = await this.dial(address, aborted)
    if (!this.#certificate || certificateOf(socket)?.equals(this.#certificate)) return socket
    reset(socket)
    throw new TunnelError(
      'server-unproven',
      'the server shows another certificate than on the control connection: open the tunnel again if it was renewed',
    )
  }
}

/** A connection that was dialled, as the client speaks on it. A certificate must be for the server's host. */
export async function secureDialled(
  socket: Socket,
  security: ClientSecurity | undefined,
  server: Address,
  aborted: AbortSignal,
): Promise<Socket> {
  if (!security) return socket
  const { tls, context, key, servername = server.host } = security
  const stream = tls.connect({
    socket,
    secureContext: context,
    // Whatever NODE_TLS_REJECT_UNAUTHORIZED says.
    rejectUnauthorized: true,
    host: servername,
    servername: net.isIP(servername) ? undefined : servername,
    // Any certificate, trusted or not, is one too many where the server is to hold a key.
    checkServerIdentity: key ? () => new Error('it shows a certificate') : tls.checkServerIdentity,
    ...(key && { pskCallback: () => ({ psk: key.key, identity: key.identity }) }),
  })
  try {
    await handshake(stream, socket, 'secureConnect', aborted)
    if (key && !stream.isSessionReused()) throw new Error('it did without the key')
  } catch (error) {
    reset(stream)
    if (aborted.aborted) throw aborted.reason
    throw dialError(error, stream, server, key !== undefined)
  }
  return stream
}

/** Why a client takes the server for somebody else's, or can't talk to it. */
function dialError(
  error: unknown,
  { authorizationError }: TLSSocket,
  server: Address,
  bySecret: boolean,
): Error {
  const fail = (failure: string, next: string) =>
    new TunnelError('server-unproven', `${failure}: ${next}`, { cause: error })
  if (isSystemError(error, 'ERR_SSL_WRONG_VERSION_NUMBER')) {
    return bySecret
      ? fail(
          'the server does not speak TLS, so nothing shows that it is yours',
          'start it with the secret, or connect without one; where it was started with tls: false, connect so too',
        )
      : fail(
          'the server does not speak TLS',
          'start it with a certificate, or connect without the option tls',
        )
  }
  if (bySecret) {
    if (isTlsError(error)) {
      return new TunnelError('secret-wrong', 'the secret is not the one that the server holds', {
        cause: error,
      })
    }
    if (authorizationError || !(error instanceof Error) || !('code' in error)) {
      const next = 'connect with the option tls, or --tls, if it is yours'
      return fail('the server shows a certificate, and does not prove that it holds the secret', next)
    }
  } else if (isSystemError(error, 'ERR_TLS_CERT_ALTNAME_INVALID')) {
    const next = 'connect to that name, or give it as servername'
    return fail(`the server's certificate is for another name (${reasonIn(error)})`, next)
  } else if (authorizationError) {
    const next = 'give what it is signed by as the option tls: { ca }, or with --ca'
    return fail(`the server's certificate is not trusted (${reasonIn(error)})`, next)
  } else if (isTlsError(error)) {
    const next = 'start it with a certificate, or leave the option tls out if both hold a secret'
    return fail(`the server takes no TLS 1.3 with a certificate (${reasonIn(error)})`, next)
  }
  const failure = `${formatAddress(server)} ended the connection during the TLS handshake (${reasonIn(error)})`
  const next = `is it a pipe-tunnel server that ${bySecret ? 'holds the secret' : 'has a certificate'}?`
  return new TunnelError('connection-lost', `${failure}: ${next}`, { cause: error })
}

/**
 * Resolves with the event of a finished handshake. Rejects with what went wrong or the signal's reason, and the
 * connection is cut then.
 */
async function handshake(
  stream: TLSSocket,
  socket: Socket,
  event: 'secure' | 'secureConnect',
  aborted: AbortSignal,
): Promise<void> {
  stream.on('error', socketOnError)
  noteEncryption(stream, { socket })
  try {
    await waitForEvent(stream, event, aborted, ['error', 'end', 'close'])
    const binding = stream
      .exportKeyingMaterial(BINDING_LENGTH, BINDING_LABEL, Buffer.alloc(0))
      .toString('hex')
    noteEncryption(stream, { socket, binding, certificate: stream.getPeerCertificate().raw })
    // What somebody has tampered with. Node tells a client and leaves the socket open, and tells a server that is not its
    // own nothing at all but this.
    stream.on('_tlsError', (error: Error) => stream.destroy(error))
  } catch (error) {
    reset(stream)
    throw error instanceof Error ? error : broken()
  }
}

/** Whether TLS itself failed, and not the connection under it. The codes differ between versions of Node. */
function isTlsError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_SSL_')
}

/** OpenSSL's or Node's own words, without its place in a file and without advice that is not for us. */
function reasonIn(error: unknown): string {
  const words = error instanceof Error && 'reason' in error ? String(error.reason) : reasonOf(error)
  return words.split(/[;\n]/)[0] ?? words
}

function broken(): TunnelError {
  return new TunnelError('connection-lost', 'the connection ended during the TLS handshake')
}
