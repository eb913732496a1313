import { once } from 'node:events'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import { TunnelError } from './errors.js'
import { listening } from './listener.js'
import { type DialOptions, socketOnError } from './socket.js'
import { dialTcp } from './tcp.js'
import { dialUnix } from './unix.js'

/** Servers that have been closed since they were first a target. */
const closed = new WeakSet<net.Server>()
const watched = new WeakSet<net.Server>()

/** Remembers that the server is closed, once it is: a server that does not listen yet looks the same. */
export function watch(server: net.Server): void {
  if (watched.has(server)) return
  watched.add(server)
  server.on('close', () => closed.add(server)).on('listening', () => closed.delete(server))
}

/** Where a server that listens on all addresses of a family is dialled. */
const loopbacks = new Map([
  ['0.0.0.0', '127.0.0.1'],
  ['::', '::1'],
])

/** A connection to a server of this process, whether it listens or not. Rejects as every dialler does. */
export async function dialServer(server: net.Server, options: DialOptions): Promise<Duplex> {
  const address = server.address()
  if (typeof address === 'string') return dialUnix(address, options)
  if (address) {
    const { port } = address
    return dialTcp({ host: loopbacks.get(address.address) ?? address.address, port }, options)
  }
  if (closed.has(server)) throw new Error('it was closed')
  return handOver(server, options)
}

/**
 * Gives the server one end of a connection as if it had accepted it. The connection is a real one, over a port that is
 * open for this moment and for this connection alone, so that the server finds all that it is used to.
 */
async function handOver(server: net.Server, options: DialOptions): Promise<Duplex> {
  const { allowHalfOpen, pauseOnConnect } = server as net.Server & net.ServerOpts
  const listener = net.createServer({ allowHalfOpen, pauseOnConnect, noDelay: true })
  listener.maxConnections = 1
  const accepted = new Promise<net.Socket>((resolve) => {
    listener.once('connection', (peer) => resolve(peer.on('error', socketOnError)))
  })
  const ready = listening(listener, 'a port of 127.0.0.1', options.aborted)
  listener.listen(0, '127.0.0.1')
  try {
    await ready
    const { port } = listener.address() as net.AddressInfo
    const socket = await dialTcp({ host: '127.0.0.1', port }, options)
    const peer = await Promise.race([accepted, closing(socket)])
    if (peer?.remotePort !== socket.localPort || peer?.remoteAddress !== socket.localAddress) {
      socket.destroy()
      throw new Error('another program of this machine connected in its place')
    }
    // Not in the middle of our own work: what its listeners throw is theirs.
    process.nextTick(() => server.emit('connection', peer?.off('error', socketOnError)))
    return socket
  } catch (error) {
    accepted.then((peer) => peer.destroy())
    // The system's own, where there is one: that the port was ours is nobody's business.
    throw error instanceof TunnelError ? (error.cause ?? error) : error
  } finally {
    listener.close()
  }
}

/** Resolves when the socket is closed: whoever accepted it did not want it. */
async function closing(socket: net.Socket): Promise<undefined> {
  await once(socket, 'close').catch(() => {})
}
