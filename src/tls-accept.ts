/** The server's side of what lies between it and its clients: TLS over TCP where it has a secret or a certificate. */
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { secretWrong } from './auth.js'
import { type Aborted, waitForEvent } from './deadline.js'
import { TunnelError } from './errors.js'
import { broken, handshake, isTlsError, reasonIn } from './tls-handshake.js'
import type { ServerSecurity } from './tls-options.js'

/** The first byte of a TLS handshake (RFC 8446, 5.1). */
export const HANDSHAKE = 0x16
/** That of every message: the highest of its length. */
const MESSAGE = 0x00

/** The first byte that a peer sends, which stays in the stream; undefined where it ends before. */
export async function firstByte(socket: Socket, aborted: Aborted): Promise<number | undefined> {
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

/** What is wrong with a peer that does not begin with TLS. It may be told so without. */
export function withoutTls(first: number, { keys }: ServerSecurity): TunnelError {
  if (first !== MESSAGE) {
    return new TunnelError('protocol-violation', 'the peer began neither with TLS nor with a message')
  }
  return keys
    ? new TunnelError(
        'secret-required',
        'the server asks for a secret, and encrypts by it: give it as the option secret, as PIPE_SECRET, or with --secret-file, and leave tls on',
      )
    : new TunnelError(
        'tls-required',
        'the server speaks TLS and shows a certificate: connect with the option tls',
      )
}

/**
 * Encrypts a connection that begins with TLS. Rejects with why it can't, or the signal's reason, and both sockets are cut then.
 */
export async function acceptTls(
  socket: Socket,
  { tls, context, keys }: ServerSecurity,
  aborted: Aborted,
): Promise<TLSSocket> {
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
    if (isStranger) throw secretWrong(error)
    const wanted = keys ? ': the server expects TLS 1.3 with the key of its secret' : ''
    throw new TunnelError('protocol-violation', `the TLS handshake failed (${reasonIn(error)})${wanted}`, {
      cause: error,
    })
  }
  return stream
}
