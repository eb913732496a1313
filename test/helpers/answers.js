// @ts-check
import { once } from 'node:events'
import net from 'node:net'

/**
 * Whether a port takes connections.
 *
 * @param {{ host: string, port: number }} address
 */
export async function answers(address) {
  const socket = net.connect(address)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
