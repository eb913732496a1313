/** The client's side of what lies between it and its server: TLS over TCP where it has a secret or wants a certificate. */
import net, { type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { type Address, formatAddress } from './address.js'
import { secretWrong } from './auth.js'
import { type Aborted, untilAborted } from './deadline.js'
import { certificateOf } from './encryption.js'
import type { Endpoint } from './endpoint.js'
import { isError, isSystemError, TunnelError } from './errors.js'
import { reset } from './stream.js'
import { dialTcp } from './tcp.js'
import { handshake, isTlsError, reasonIn } from './tls-handshake.js'
import { type ClientSecurity, clientSecurity } from './tls-options.js'

/** Makes the connections to one server, each as secure as the caller wants them. */
export class Dialler {
  readonly #server: Endpoint
  readonly #unref: boolean
  #security: Promise<ClientSecurity | undefined> | undefined
  /** What it showed at the last login. */
  #certificate: Buffer | undefined

  constructor(server: Endpoint, unref: boolean) {
    this.#server = server
    this.#unref = unref
    // It takes its time, while the first connection is being made.
    this.#secure()
  }

  /** A connection on which to log in. Rejects with the system's error, a {@link TunnelError}, or the signal's reason. */
  async dial({ host, port }: Address, aborted: Aborted): Promise<Socket> {
    const socket = await dialTcp({ host, port }, { unref: this.#unref, aborted })
    try {
      const security = await untilAborted(this.#secure(), aborted)
      return security ? await dialTls(socket, security, this.#server, aborted) : socket
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
  async dialSame(address: Address, aborted: Aborted): Promise<Socket> {
    const socket = await this.dial(address, aborted)
    if (!this.#certificate || certificateOf(socket)?.equals(this.#certificate)) return socket
    reset(socket)
    throw new TunnelError(
      'server-unproven',
      'the server shows another certificate than on the control connection: open the tunnel again if it was renewed',
    )
  }

  /** What the connections are encrypted with. What failed, as for want of memory, is tried again. */
  #secure(): Promise<ClientSecurity | undefined> {
    this.#security ??= clientSecurity(this.#server.tls, this.#server.secret)
    this.#security.catch(() => {
      this.#security = undefined
    })
    return this.#security
  }
}

/** Encrypts a connection that was dialled. A certificate must be for the server's host. The connection is cut where it fails. */
export async function dialTls(
  socket: Socket,
  security: ClientSecurity,
  server: Address,
  aborted: Aborted,
): Promise<Socket> {
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
    throw key
      ? (secretError(error, stream) ?? brokenOff(error, server, 'holds the secret'))
      : (certificateError(error, stream) ?? brokenOff(error, server, 'has a certificate'))
  }
  return stream
}

/** Why a client that holds a secret takes the server for somebody else's, or can't talk to it. */
function secretError(error: unknown, { authorizationError }: TLSSocket): TunnelError | undefined {
  if (isSystemError(error, 'ERR_SSL_WRONG_VERSION_NUMBER')) {
    return unproven(
      error,
      'the server does not speak TLS, so nothing shows that it is yours',
      'is this the port of a pipe-tunnel server? Start it with the secret, or connect without one; where it was started with tls: false, connect so too',
    )
  }
  if (isTlsError(error)) return secretWrong(error)
  if (authorizationError || !isError(error) || !('code' in error)) {
    return unproven(
      error,
      'the server shows a certificate, and does not prove that it holds the secret',
      'is this its port? Connect with the option tls if it is yours',
    )
  }
  return undefined
}

/** The same of one that wants a certificate. */
function certificateError(error: unknown, { authorizationError }: TLSSocket): TunnelError | undefined {
  if (isSystemError(error, 'ERR_SSL_WRONG_VERSION_NUMBER')) {
    return unproven(
      error,
      'the server does not speak TLS',
      'is this the port of a pipe-tunnel server? Start it with a certificate, or connect without the option tls',
    )
  }
  if (isSystemError(error, 'ERR_TLS_CERT_ALTNAME_INVALID')) {
    return unproven(
      error,
      `the server's certificate is for another name (${reasonIn(error)})`,
      'connect to that name, or give it as servername',
    )
  }
  if (authorizationError) {
    return unproven(
      error,
      `the server's certificate is not trusted (${reasonIn(error)})`,
      'give what it is signed by as the option tls.ca',
    )
  }
  if (isTlsError(error)) {
    return unproven(
      error,
      `the server takes no TLS 1.3 with a certificate (${reasonIn(error)})`,
      'start it with a certificate, or leave the option tls out if both hold a secret',
    )
  }
  return undefined
}

function unproven(cause: unknown, failure: string, next: string): TunnelError {
  return new TunnelError('server-unproven', `${failure}: ${next}`, { cause })
}

/** The connection broke before the handshake was done. */
function brokenOff(error: unknown, server: Address, holds: string): TunnelError {
  const failure = `${formatAddress(server)} ended the connection during the TLS handshake (${reasonIn(error)})`
  return new TunnelError('connection-lost', `${failure}: is it a pipe-tunnel server that ${holds}?`, {
    cause: error,
  })
}
