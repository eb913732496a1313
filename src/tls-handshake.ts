/** What both sides of a TLS handshake have in common. */
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { type Aborted, waitForEvent } from './deadline.js'
import { noteEncryption } from './encryption.js'
import { isError, reasonOf, TunnelError } from './errors.js'
import { socketOnError } from './socket.js'
import { reset } from './stream.js'

/** RFC 9266. */
const BINDING_LABEL = 'EXPORTER-Channel-Binding'
const BINDING_LENGTH = 32

/**
 * Resolves with the event of a finished handshake. Rejects with what went wrong or the signal's reason, and the
 * connection is cut then.
 */
export async function handshake(
  stream: TLSSocket,
  socket: Socket,
  event: 'secure' | 'secureConnect',
  aborted: Aborted,
): Promise<void> {
  stream.on('error', socketOnError)
  noteEncryption(stream, { socket })
  try {
    // An end that came before TLS took over is one that TLS is never told of.
    if (socket.readableEnded || socket.destroyed) throw broken()
    await waitForEvent(stream, [event], aborted, ['error', 'end', 'close'])
    const binding = stream
      .exportKeyingMaterial(BINDING_LENGTH, BINDING_LABEL, Buffer.alloc(0))
      .toString('hex')
    noteEncryption(stream, { socket, binding, certificate: stream.getPeerCertificate().raw })
    // What somebody has tampered with. Node tells a client and leaves the socket open, and tells a server that is not its
    // own nothing at all but this.
    stream.on('_tlsError', (error: Error) => stream.destroy(error))
  } catch (error) {
    reset(stream)
    throw isError(error) ? error : broken()
  }
}

/** Whether TLS itself failed, and not the connection under it. The codes differ between versions of Node. */
export function isTlsError(error: unknown): error is NodeJS.ErrnoException {
  return isError(error) && 'code' in error && String(error.code).startsWith('ERR_SSL_')
}

/** OpenSSL's or Node's own words, without its place in a file and without advice that is not for us. */
export function reasonIn(error: unknown): string {
  const words = isError(error) && 'reason' in error ? String(error.reason) : reasonOf(error)
  return words.split(/[;\n]/)[0] ?? words
}

export function broken(): TunnelError {
  return new TunnelError('connection-lost', 'the connection ended during the TLS handshake')
}
