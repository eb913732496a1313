/** What lies between client and server and belongs to somebody else. */
import { once } from 'node:events'
import net from 'node:net'
import type { Duplex } from 'node:stream'

export interface Middle extends AsyncDisposable {
  /** Where clients connect. */
  readonly host: string
  readonly port: number
  /** What each connection brought, in their order. */
  readonly seen: { fromClient: Buffer; fromServer: Buffer }[]
}

/** How the middle treats one connection: gives the two ends of what it passes on, or nothing. */
export type Treat = (
  client: net.Socket,
  toServer: () => net.Socket,
  number: number,
) => Promise<[Duplex, Duplex] | undefined>

const listens: Treat = async (client, toServer) => [client, toServer()]

/** Sits in front of a server, and passes everything on and keeps a copy where it is not told otherwise. */
export async function between(server: { host: string; port: number }, treat = listens): Promise<Middle> {
  const seen: Middle['seen'] = []
  const sockets = new Set<net.Socket>()
  const own = (socket: net.Socket) => {
    sockets.add(socket)
    return socket.on('error', () => {}).once('close', () => sockets.delete(socket))
  }
  const listener = net.createServer({ allowHalfOpen: true }, async (client) => {
    const copy = { fromClient: Buffer.alloc(0), fromServer: Buffer.alloc(0) }
    const number = seen.push(copy) - 1
    const toServer = () => own(net.connect({ ...addressOf(server), allowHalfOpen: true }))
    const pair = await treat(own(client), toServer, number).catch(() => undefined)
    if (!pair) return
    const [left, right] = pair
    for (const one of pair) one.on('error', () => {})
    left.on('data', (chunk) => {
      copy.fromClient = Buffer.concat([copy.fromClient, chunk])
    })
    right.on('data', (chunk) => {
      copy.fromServer = Buffer.concat([copy.fromServer, chunk])
    })
    left.pipe(right).pipe(left)
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  return {
    host: '127.0.0.1',
    port: (listener.address() as net.AddressInfo).port,
    seen,
    async [Symbol.asyncDispose]() {
      const closed = once(listener, 'close')
      listener.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

const addressOf = ({ host, port }: { host: string; port: number }) => ({ host, port })
