import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { relay } from '../relay.js'
import { refuse } from './answers.js'
import { type Exchange, fail, hasBody, optionsFor, passBack } from './pass-on.js'

/**
 * Passes on a request for another protocol, such as WebSocket, over a connection of its own. Once the target has agreed, both connections are
 * joined; where it has not, its answer is the last thing that the visitor's connection carries.
 */
export function passUpgrade(exchange: Exchange, socket: Duplex, head: Buffer): void {
  const { request, response } = exchange
  if (hasBody(request)) {
    const sentence = 'A request for another protocol may not have a body.'
    refuse(request, response, { status: 501, sentence, ends: true })
    return
  }
  const way = exchange.way()
  // HTTP/2 has many requests behind the first, of which nobody would know (and RFC 9113 knows no upgrade to it any more).
  const upgrades = !/\bh2c\b/i.test(request.headers.upgrade ?? '')
  const options = optionsFor(exchange, way, upgrades)
  const upstream = way.isFor.http.request({ ...options, createConnection: () => way.connect() as never })
  upstream.on('response', (answer) => passBack(answer, exchange, way))
  upstream.on('error', (error) => fail(exchange, way, error))
  // Only who reads notices a reset.
  socket.read(0)
  const socketOnClose = () => upstream.destroy()
  socket.once('close', socketOnClose)
  upstream.on('upgrade', (answer: IncomingMessage, target: Duplex, first: Buffer) => {
    socket.off('close', socketOnClose)
    response.detachSocket(socket as never)
    socket.write(headOf(answer), 'latin1')
    // What came behind the heads already belongs to the other protocol.
    if (head.length > 0) socket.unshift(head)
    if (first.length > 0) target.unshift(first)
    relay(socket, target)
  })
  upstream.end()
}

/** The head of an answer, as it came. */
function headOf({ statusCode, statusMessage, rawHeaders }: IncomingMessage): string {
  const lines = [`HTTP/1.1 ${statusCode} ${statusMessage}`]
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`)
  return `${lines.join('\r\n')}\r\n\r\n`
}
