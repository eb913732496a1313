/** What TCP and unix sockets have in common. */
import net from 'node:net'
import type { Duplex } from 'node:stream'
import { type Aborted, waitForEvent } from './deadline.js'
import { isError, TunnelError } from './errors.js'
import type { SocketAddress } from './listener.js'

/** Connections that may wait in the kernel to be accepted; it takes less where its own limit is lower. */
export const BACKLOG = 4_096

export const socketOptions = {
  // A FIN ends one direction only: whoever answers after it must be heard.
  allowHalfOpen: true,
  noDelay: true,
}

/** Silence after which the system asks whether the peer is still there, in milliseconds. */
const KEEP_ALIVE = 60_000

/** From now on a peer that vanishes without a FIN is noticed even where nobody sends anything. Again, it costs nothing. */
export function watchOver(stream: Duplex): void {
  if (stream instanceof net.Socket) stream.setKeepAlive(true, KEEP_ALIVE)
}

/** A server that does not listen yet. It hands over sockets that are not read from until their owner does. */
export function createListener(unref: boolean, onSocket: (socket: net.Socket) => void): net.Server {
  const server = net.createServer({ ...socketOptions, pauseOnConnect: true }, (socket) => {
    socket.on('error', socketOnError)
    if (unref) socket.unref()
    onSocket(socket)
  })
  return unref ? server.unref() : server
}

/** Stops listening at once, and resolves when all that it accepted is closed. */
export function closeServer(server: net.Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()))
}

/** What every dialler is given. */
export interface DialOptions {
  /** Lets the process end while the stream is open. */
  unref: boolean
  /** Gives up. It has no effect once the stream is there. */
  aborted: Aborted
}

/** Resolves when the socket is connected; destroys it and rejects with why it is not. */
export async function connected(socket: net.Socket, { unref, aborted }: DialOptions): Promise<net.Socket> {
  socket.on('error', socketOnError)
  // Again when it is connected: each address that Node tries is a new handle.
  if (unref) socket.unref().once('connect', () => socket.unref())
  try {
    await waitForEvent(socket, ['connect'], aborted, ['error', 'close'])
    return socket
  } catch (error) {
    socket.destroy()
    if (aborted.aborted) throw aborted.reason
    throw isError(error) ? error : new TunnelError('closed', 'given up before it was connected')
  }
}

/**
 * Without a listener an `error` would be thrown out of the socket. Its owner learns of it by `close`, which
 * always follows, and finds it in `errored`.
 */
export function socketOnError() {}

/** An address as events show it: IPv4 in its own form also where it came over IPv6. */
export function socketAddress(address: string | undefined, port: number | undefined): SocketAddress {
  // A dual-stack listener shows IPv4 peers as ::ffff:192.0.2.1 (RFC 4291, 2.5.5.2).
  // One that is gone already has none at all.
  return { address: (address ?? 'unknown').replace(/^::ffff:(?=\d+\.)/, ''), port: port ?? 0 }
}
