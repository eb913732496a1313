// @ts-check
/** A process that lies between clients and their server like a long link. */
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { answerParent } from './answer.js'

/** Milliseconds each way. */
const DELAY = 25
/** Bytes of one direction of a connection that were not acknowledged yet: what Linux lets a sender have, by its default of tcp_wmem. */
const MOST = 4_194_304

answerParent(async ({ port }) => {
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    join(client, port)
  })
  await once(server.listen({ port: 0, host: '127.0.0.1', backlog: 1_024 }), 'listening')
  return { port: /** @type {net.AddressInfo} */ (server.address()).port }
})

/**
 * @param {net.Socket} client
 * @param {number} port
 */
async function join(client, port) {
  client.on('error', () => {})
  // The system has opened its connection already. On a link it is open, and carries bytes, a round trip later.
  await wait(2 * DELAY)
  const server = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
  server.on('error', () => {})
  carry(client, server)
  carry(server, client)
}

/**
 * One direction.
 *
 * @param {net.Socket} from
 * @param {net.Socket} to
 */
function carry(from, to) {
  /** @type {{ at: number, bytes: Buffer | undefined }[]} */
  const underWay = []
  /** Bytes that came, and whose acknowledgement has not. */
  let held = 0
  /** @type {NodeJS.Timeout | undefined} */
  let timer

  /** @param {Buffer} [bytes] Nothing is the end. */
  const send = (bytes) => {
    underWay.push({ at: performance.now() + DELAY, bytes })
    held += bytes?.length ?? 0
    if (held >= MOST) from.pause()
    if (timer === undefined) timer = setTimeout(deliver, DELAY)
  }
  /** All that is due. A receiver that is slow holds up the sender, not what is under way. */
  const deliver = () => {
    const now = performance.now()
    timer = undefined
    to.cork()
    while (underWay[0] && underWay[0].at <= now) {
      const { bytes } = /** @type {{ bytes: Buffer | undefined }} */ (underWay.shift())
      if (bytes) to.write(bytes, () => setTimeout(acknowledge, DELAY, bytes.length))
      else to.end()
    }
    to.uncork()
    if (underWay[0]) timer = setTimeout(deliver, underWay[0].at - now)
  }
  /** @param {number} count */
  const acknowledge = (count) => {
    held -= count
    if (held < MOST) from.resume()
  }
  from.on('data', send)
  from.on('end', () => send())
  from.on('close', () => {
    // What ended in order has its end under way.
    if (!from.readableEnded || from.errored) to.destroy()
  })
}
