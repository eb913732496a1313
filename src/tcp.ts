import net from 'node:net'
import { pEvent } from 'p-event'
import { type Address, formatAddress } from './address.js'
import { TunnelError } from './errors.js'

/**
 * How long one of several addresses of a name is tried before the next, in milliseconds. Node's own 250 are
 * too few for a server on another continent.
 */
const ATTEMPT_TIMEOUT = 3_000

/** Connections that may wait in the kernel to be accepted; it takes less where its own limit is lower. */
const BACKLOG = 4_096

/** Whether a socket lets the process end while it is open. */
export interface SocketOptions {
  unref: boolean
}

const socketOptions = {
  // A FIN ends one direction only: whoever answers after it must be heard.
  allowHalfOpen: true,
  noDelay: true,
}

/**
 * Listens, and resolves when it does. An accepted socket is not read from until its owner does.
 * Rejects with `port-taken` or `address-unavailable`.
 */
export async function listen(
  { host, port }: Address,
  { unref }: SocketOptions,
  onConnection: (socket: net.Socket) => void,
): Promise<net.Server> {
  const listener = net.createServer({ ...socketOptions, pauseOnConnect: true }, (socket) => {
    socket.on('error', socketOnError)
    if (unref) socket.unref()
    onConnection(socket)
  })
  listener.listen({ host, port, backlog: BACKLOG })
  try {
    await pEvent(listener, 'listening')
  } catch (error) {
    throw listenError(error, { host, port })
  }
  // Later errors concern one connection that could not be accepted; the others go on.
  listener.on('error', () => {})
  if (unref) listener.unref()
  return listener
}

/** A socket that connects; {@link connected} tells when. `localhost` tries both loopback families. */
export function dial({ host, port }: Address, { unref }: SocketOptions): net.Socket {
  const socket = net.connect({
    ...socketOptions,
    host,
    port,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: ATTEMPT_TIMEOUT,
  })
  if (unref) socket.unref()
  return socket.on('error', socketOnError)
}

/**
 * Resolves when the socket is connected; rejects with why it is not, after `timeout` milliseconds where that is
 * given. Its owner gives up earlier by destroying it.
 */
export async function connected(socket: net.Socket, timeout?: number): Promise<void> {
  try {
    await pEvent(socket, 'connect', { timeout, rejectionEvents: ['error', 'close'] })
  } catch (error) {
    socket.destroy()
    throw error instanceof Error ? error : new TunnelError('closed', 'closed before it was connected')
  }
}

/** Stops listening at once and resolves when the last accepted socket is closed. */
export async function closeListener(listener: net.Server): Promise<void> {
  await new Promise((resolve) => listener.close(resolve))
}

/** The port that a listener has. */
export function portOf(listener: net.Server): number {
  return (listener.address() as net.AddressInfo).port
}

/** Where a connection comes from, as it stays after the socket is closed. */
export function peerOf(socket: net.Socket): { address: string; port: number } {
  // A dual-stack listener shows IPv4 peers as ::ffff:192.0.2.1 (RFC 4291, 2.5.5.2).
  const address = (socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '')
  return { address, port: socket.remotePort ?? 0 }
}

/**
 * Without a listener an `error` would be thrown out of the socket. Its owner learns of it by `close`, which
 * always follows, and finds it in `errored`.
 */
function socketOnError() {}

function listenError(error: unknown, address: Address): TunnelError {
  const code = (error as NodeJS.ErrnoException).code
  const where = formatAddress(address)
  if (code === 'EADDRINUSE') {
    return new TunnelError(
      'port-taken',
      `${where} is taken by another program or tunnel: choose another port, or 0 for any`,
      {
        cause: error,
      },
    )
  }
  const why =
    code === 'EACCES'
      ? 'the system reserves this port: choose one above 1023'
      : code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND'
        ? 'this machine has no such address: choose one that it has'
        : (error as Error).message
  return new TunnelError('address-unavailable', `can't listen on ${where}: ${why}`, { cause: error })
}
