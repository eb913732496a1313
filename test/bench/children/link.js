// @ts-check
/** A process that lies between clients and their server like a link that takes its time, and carries any number of bytes. */
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { answerParent } from './answer.js'

/** Milliseconds each way. */
const DELAY = 25
/** Bytes that are under way in one direction of one connection: enough for 20 Gbit/s. */
const MOST = 67_108_864

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
  let held = 0
  /** @type {NodeJS.Timeout | undefined} */
  let timer

  /** @param {Buffer} [bytes] Nothing is the end. */
  const send = (bytes) => {
    underWay.push({ at: performance.now() + DELAY, bytes })
    held += bytes?.length ?? 0
    if (held >= MOST) from.pause()
    timer ??= setTimeout(deliver, DELAY)
  }
  const deliver = () => {
    const now = performance.now()
    timer = undefined
    to.cork()
    while (underWay[0] && underWay[0].at <= now && !to.writableNeedDrain) {
      const { bytes } = /** @type {{ bytes: Buffer | undefined }} */ (underWay.shift())
      held -= bytes?.length ?? 0
      if (bytes) to.write(bytes)
      else to.end()
    }
    to.uncork()
    if (held < MOST) from.resume()
    // Where the receiver is slow, `drain` goes on.
    if (underWay[0] && !to.writableNeedDrain) timer = setTimeout(deliver, underWay[0].at - now)
  }
  to.on('drain', () => {
    if (timer === undefined) deliver()
  })
  from.on('data', send)
  from.on('end', () => send())
  from.on('close', () => {
    // What ended in order has its end under way.
    if (!from.readableEnded || from.errored) to.destroy()
  })
}
