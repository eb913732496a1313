import type { LookupAddress } from 'node:dns'
import { lookup } from 'node:dns/promises'
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

const socketOptions = {
  // A FIN ends one direction only: whoever answers after it must be heard.
  allowHalfOpen: true,
  noDelay: true,
  // A peer that vanishes without a FIN is noticed even where nobody sends anything.
  keepAlive: true,
  keepAliveInitialDelay: 60_000,
}

export interface ListenOptions extends Address {
  /** Lets the process end while the listener or a socket of it is open. */
  unref: boolean
  /** Gives up. */
  aborted?: AbortSignal
}

/**
 * Listens, and resolves when it does. An accepted socket is not read from until its owner does.
 * Rejects with `port-taken`, `address-unavailable`, or the signal's reason.
 */
export async function listen(
  options: ListenOptions,
  onConnection: (socket: net.Socket) => void,
): Promise<net.Server> {
  const { host, port, unref, aborted } = options
  const listener = net.createServer({ ...socketOptions, pauseOnConnect: true }, (socket) => {
    socket.on('error', socketOnError)
    if (unref) socket.unref()
    onConnection(socket)
  })
  listener.listen({ host, port, backlog: BACKLOG })
  if (unref) listener.unref()
  try {
    await pEvent(listener, 'listening', { signal: aborted })
  } catch (error) {
    // It may still be looking a name up, and would listen once that is done.
    listener.on('listening', () => listener.close()).on('error', () => {})
    throw aborted?.aborted ? aborted.reason : listenError(error, options)
  }
  // Later errors concern one connection that could not be accepted; the others go on.
  listener.on('error', () => {})
  return listener
}

/** A socket that connects; {@link connected} tells when. */
export function dial({ host, port }: Address, unref: boolean): net.Socket {
  const socket = net.connect({
    ...socketOptions,
    host,
    port,
    lookup: lookupShared,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: ATTEMPT_TIMEOUT,
  })
  // Again when it is connected: each address that Node tries is a new handle.
  if (unref) socket.unref().once('connect', () => socket.unref())
  return socket.on('error', socketOnError)
}

/** Look-ups that are under way, by host. */
const lookups = new Map<string, Promise<LookupAddress[]>>()

/**
 * Looks a host up at each connection, but never the same one twice at a time: Node has four threads for it and can't
 * cancel one, so a name server that is silent would hold up every other name.
 *
 * `localhost` is both loopback addresses, whatever the machine's own tables say (RFC 6761, 6.3): servers listen on
 * either, and there is nothing to ask.
 */
const lookupShared: net.LookupFunction = (host, _options, callback) => {
  if (host === 'localhost') return callback(null, LOOPBACK)
  const pending = lookups.get(host) ?? lookup(host, { all: true }).finally(() => lookups.delete(host))
  lookups.set(host, pending)
  pending
    .then(
      (addresses) => callback(null, addresses),
      (error) => callback(error, []),
    )
    .catch(() => {})
}

const LOOPBACK: LookupAddress[] = [
  { address: '127.0.0.1', family: 4 },
  { address: '::1', family: 6 },
]

/**
 * Resolves when the socket is connected; rejects with why it is not. Its owner gives up by destroying it, with the
 * reason.
 */
export async function connected(socket: net.Socket): Promise<void> {
  try {
    await pEvent(socket, 'connect', { rejectionEvents: ['error', 'close'] })
  } catch (error) {
    socket.destroy()
    throw error instanceof Error ? error : new TunnelError('closed', 'given up before it was connected')
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
  // One that is gone already has none at all.
  const address = (socket.remoteAddress ?? 'unknown').replace(/^::ffff:(?=\d+\.)/, '')
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
