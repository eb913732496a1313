/** What visitors of a public address do. */
import { once } from 'node:events'
import net from 'node:net'
import { expect, vi } from 'vitest'
import { carrierOf } from '../../src/encryption.js'
import { readAll } from './targets.js'

/** Where visitors connect: a tunnel, a target, or another address. */
export interface Place {
  host?: string
  port?: number
  path?: string | undefined
}

/** A connected visitor. It is half-open on purpose: it hears the reply after its own FIN. */
export async function visit({ host = '127.0.0.1', port = 0, path }: Place): Promise<net.Socket> {
  const allowHalfOpen = true
  const socket = net.connect(path === undefined ? { host, port, allowHalfOpen } : { path, allowHalfOpen })
  await once(socket, 'connect')
  return socket.on('error', () => {})
}

/** Sends a request and a FIN, and gives back the whole reply. */
export async function ask(place: Place, request: Buffer | string): Promise<Buffer> {
  const socket = await visit(place)
  socket.end(request)
  return readAll(socket)
}

/** How the peer ended the connection: `'end'` by FIN, `'reset'` by RST. */
export async function ending(socket: net.Socket): Promise<'end' | 'reset'> {
  socket.resume()
  const [how] = await Promise.race([
    once(socket, 'end').then(() => endOrReset(socket)),
    new Promise<['reset']>((resolve) => socket.once('error', () => resolve(['reset']))),
    new Promise<['reset']>((resolve) => socket.once('close', (hadError) => hadError && resolve(['reset']))),
  ])
  return how
}

/** A reset behind bytes that are still unread looks like an end to Node. A write, even of nothing, tells the two apart. */
async function endOrReset(socket: net.Socket): Promise<['end' | 'reset']> {
  // A unix socket has no reset, and a write to one whose peer is gone fails in any case.
  if (!socket.writable || socket.localAddress === undefined) return ['end']
  const error = await new Promise((resolve) => carrierOf(socket).write(Buffer.alloc(0), resolve))
  return [error ? 'reset' : 'end']
}

/** The value of `read` once it has stayed the same for a while. */
export async function settled(read: () => number): Promise<number> {
  let last = -1
  await vi.waitFor(
    () => {
      const now = read()
      const before = last
      last = now
      expect(now).toBe(before)
    },
    { timeout: 30_000, interval: 300 },
  )
  return last
}
