import type { ClientRequest, IncomingMessage } from 'node:http'

/** Resolves with the answer to a request, once its head is there. Rejects where none comes, or the request is given up. */
export function responseTo(sent: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    sent.on('response', resolve).on('error', reject)
    // Nobody has asked for another protocol. Without a listener, Node would cut the connection and not say so.
    sent.on('upgrade', (_answer, socket) => {
      socket.destroy()
      reject(new Error('an upgrade that nobody has asked for'))
    })
  })
}
