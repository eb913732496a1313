import net from 'node:net'
import { type Address, formatAddress } from './address.js'
import { waitForEvent } from './deadline.js'
import { TunnelError } from './errors.js'
import { type Listener, type ListenOptions, listening, type OnVisitor, visitorAt } from './listener.js'
import { lookupForConnect } from './lookup.js'

/**
 * How long one of several addresses of a name is tried before the next, in milliseconds. Node's own 250 are
 * too few for a server on another continent.
 */
const ATTEMPT_TIMEOUT = 3_000

/** Connections that may wait in the kernel to be accepted; it takes less where its own limit is lower. */
export const BACKLOG = 4_096

export const socketOptions = {
  // A FIN ends one direction only: whoever answers after it must be heard.
  allowHalfOpen: true,
  noDelay: true,
  // A peer that vanishes without a FIN is noticed even where nobody sends anything.
  keepAlive: true,
  keepAliveInitialDelay: 60_000,
}

/** Listens, and resolves when it does. Rejects with `port-taken`, `address-unavailable`, or the signal's reason. */
export async function listenTcp(
  { host, port, unref, aborted }: Address & ListenOptions,
  onVisitor: OnVisitor<net.Socket>,
): Promise<Listener> {
  const server = net.createServer({ ...socketOptions, pauseOnConnect: true }, (socket) => {
    socket.on('error', socketOnError)
    if (unref) socket.unref()
    const { remoteAddress, remotePort, localAddress, localPort } = socket
    onVisitor(socket, visitorAt(remoteAddress, remotePort), visitorAt(localAddress, localPort))
  })
  server.listen({ host, port, backlog: BACKLOG })
  if (unref) server.unref()
  await listening(server, formatAddress({ host, port }), aborted)
  return {
    host,
    port: (server.address() as net.AddressInfo).port,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  }
}

/** What every dialler is given. */
export interface DialOptions {
  /** Lets the process end while the stream is open. */
  unref: boolean
  /** Gives up. It has no effect once the stream is there. */
  aborted: AbortSignal
}

/** A connection to the address. Rejects with the system's error, or the signal's reason. */
export function dialTcp({ host, port }: Address, options: DialOptions): Promise<net.Socket> {
  const socket = net.connect({
    ...socketOptions,
    host,
    port,
    lookup: lookupForConnect,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: ATTEMPT_TIMEOUT,
  })
  return connected(socket, options)
}

/** Resolves when the socket is connected; destroys it and rejects with why it is not. */
export async function connected(socket: net.Socket, { unref, aborted }: DialOptions): Promise<net.Socket> {
  socket.on('error', socketOnError)
  // Again when it is connected: each address that Node tries is a new handle.
  if (unref) socket.unref().once('connect', () => socket.unref())
  try {
    await waitForEvent(socket, 'connect', aborted, ['error', 'close'])
    return socket
  } catch (error) {
    socket.destroy()
    if (aborted.aborted) throw aborted.reason
    throw error instanceof Error ? error : new TunnelError('closed', 'given up before it was connected')
  }
}

/**
 * Without a listener an `error` would be thrown out of the socket. Its owner learns of it by `close`, which
 * always follows, and finds it in `errored`.
 */
export function socketOnError() {}
