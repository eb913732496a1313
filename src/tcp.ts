import net from 'node:net'
import { type Address, formatAddress } from './address.js'
import { type Listener, type ListenOptions, listening, type OnVisitor } from './listener.js'
import { lookupForConnect } from './lookup.js'
import {
  BACKLOG,
  closeServer,
  connected,
  createListener,
  type DialOptions,
  socketAddress,
  socketOptions,
} from './socket.js'

/**
 * How long one of several addresses of a name is tried before the next, in milliseconds. Node's own 250 are
 * too few for a server on another continent; a SYN that was lost is sent again after a second.
 */
const ATTEMPT_TIMEOUT = 1_500

/** Listens, and resolves when it does. Rejects with `port-taken`, `address-unavailable`, or the signal's reason. */
export async function listenTcp(
  { host, port, unref, aborted }: Address & ListenOptions,
  onVisitor: OnVisitor<net.Socket>,
): Promise<Listener> {
  const server = createListener(unref, (socket) => {
    const { remoteAddress, remotePort, localAddress, localPort } = socket
    onVisitor(socket, socketAddress(remoteAddress, remotePort), socketAddress(localAddress, localPort))
  })
  server.listen({ host, port, backlog: BACKLOG })
  await listening(server, formatAddress({ host, port }), aborted)
  return {
    host,
    port: (server.address() as net.AddressInfo).port,
    close: () => closeServer(server),
  }
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
