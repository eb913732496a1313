// @ts-check
/** What a link of 50 ms between client and server does to a new visitor, and to one stream. */
import { once } from 'node:events'
import net from 'node:net'
import { iperf } from '../iperf.js'
import { median } from '../statistics.js'
import { startEcho, startIperf } from '../targets.js'
import { askEcho } from '../visitors.js'

/** Seconds in which windows grow, and connections of TCP would. */
const START_UP = 1
/** Visitors of a round, one after the other. */
const VISITORS = 8

/** @type {import('./index.js').Measure} */
export const firstByte = {
  title: 'A new visitor over a link of 50 ms',
  ways: ['plain', 'TLS', 'mux', 'mux TLS'],
  programs: [],
  metrics: { time: { title: 'until the first byte, ms' } },
  isDelayed: true,
  startTarget: startEcho,
  async run({ port }) {
    const times = []
    for (let i = 0; i < VISITORS; i++) times.push(await visit(port))
    return { time: median(times) }
  },
}

/** @type {import('./index.js').Measure} */
export const delayedThroughput = {
  title: 'Throughput of one stream over a link of 50 ms (iperf3)',
  ways: ['plain', 'TLS', 'mux', 'mux TLS'],
  programs: ['iperf3'],
  metrics: { up: { title: 'up, Gbit/s' }, down: { title: 'down, Gbit/s' } },
  isDelayed: true,
  startTarget: startIperf,
  async run({ port }, seconds) {
    const up = await iperf({ port, seconds, startUp: START_UP })
    const down = await iperf({ port, seconds, startUp: START_UP, isDown: true })
    return { up: up.rate, down: down.rate }
  },
}

/**
 * Milliseconds from connecting to the first byte that comes back.
 *
 * @param {number} port
 */
async function visit(port) {
  const start = performance.now()
  const socket = net.connect({ host: '127.0.0.1', port, noDelay: true })
  socket.on('error', () => {})
  try {
    await once(socket, 'connect')
    await askEcho(socket, 1)
    return performance.now() - start
  } finally {
    socket.destroy()
  }
}
