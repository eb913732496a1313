import dgram from 'node:dgram'
import { lookup } from 'node:dns'
import { isIP } from 'node:net'
import { isSystemError } from './errors.js'

/**
 * Bytes that the kernel is asked to hold for a socket while this process does something else: some 60 of the
 * largest datagrams.
 */
const BUFFER_SIZE = 4_194_304

/** A socket that is neither bound nor connected yet. */
export function openSocket(type: dgram.SocketType, unref: boolean): dgram.Socket {
  const family = type === 'udp6' ? 6 : 4
  const socket = dgram.createSocket({
    type,
    // An address that a datagram came from needs no looking up.
    lookup: (host, _options, callback) =>
      isIP(host) ? callback(null, host, family) : lookup(host, { family }, callback),
  })
  // Later errors concern one datagram.
  socket.on('error', () => {})
  return unref ? socket.unref() : socket
}

/** Takes what the kernel grants: some cut the size down by themselves, others refuse it. */
export function growBuffers(socket: dgram.Socket): void {
  for (const grow of ['setRecvBufferSize', 'setSendBufferSize'] as const) {
    for (let size = BUFFER_SIZE; size > 65_536; size /= 2) {
      try {
        socket[grow](size)
        break
      } catch {
        // A smaller one then.
      }
    }
  }
}

/** Sends on a socket that may have been closed with its tunnel: then nobody waits for the datagram any more. */
export function attempt(done: (error: Error | null) => void, send: () => void): void {
  try {
    send()
  } catch (error) {
    done(isSystemError(error, 'ERR_SOCKET_DGRAM_NOT_RUNNING') ? null : (error as Error))
  }
}
