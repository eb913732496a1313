/**
 * A process that lies between clients and their server: a relay for each client, which can cut its control
 * connections and stop to carry anything.
 */
import { once } from 'node:events'
import net from 'node:net'
import { answerParent } from './child.js'

const NOTHING = Buffer.alloc(0)

const links = new Map()

answerParent({
  async open({ slot, port }) {
    const link = { pairs: new Set(), blocked: { up: false, down: false } }
    links.set(slot, link)
    const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (client) =>
      join(link, client, port),
    )
    await once(server.listen(0, '127.0.0.1'), 'listening')
    return server.address().port
  },
  /** Resets connections at both ends, those that the server sees at these ports; tells how many there were. */
  cut({ slot, ports }) {
    const control = [...links.get(slot).pairs].filter(({ server }) => ports.includes(server.localPort))
    for (const { client, server } of control) for (const socket of [client, server]) socket.resetAndDestroy()
    return control.length
  },
  /** Carries nothing any more in these directions, not even an end. */
  block({ slot, up, down }) {
    const link = links.get(slot)
    link.blocked = { up, down }
    for (const pair of link.pairs) hold(link, pair)
  },
  heal({ slot }) {
    const link = links.get(slot)
    link.blocked = { up: false, down: false }
    for (const { client, server } of link.pairs) for (const socket of [client, server]) socket.resume()
  },
  pairs: () => [...links.values()].reduce((sum, { pairs }) => sum + pairs.size, 0),
})

function join(link, client, port) {
  const server = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
  const pair = { client, server }
  link.pairs.add(pair)
  carry(link, pair, client, server, 'up')
  carry(link, pair, server, client, 'down')
  hold(link, pair)
}

function hold({ blocked }, { client, server }) {
  if (blocked.up) client.pause()
  if (blocked.down) server.pause()
}

/** One direction. Ends and resets are passed on as what they are. */
function carry(link, pair, from, to, direction) {
  from.on('error', () => {})
  from.on('data', (bytes) => {
    if (!to.write(bytes)) from.pause()
  })
  to.on('drain', () => {
    if (!link.blocked[direction]) from.resume()
  })
  from.on('end', () => {
    // A reset behind unread bytes looks like an end to Node. A write, even of nothing, tells the two apart.
    if (from.writable && from.writableLength === 0) from.write(NOTHING, (error) => !error && to.end())
    else to.end()
  })
  from.on('close', () => {
    link.pairs.delete(pair)
    const isFinished = from.readableEnded && from.writableFinished && !from.errored
    if (!isFinished && !to.destroyed) to.resetAndDestroy()
  })
}
