// @ts-check
/** Datagrams to an echo and back: one by one, and as many as go. Both ends are of Node, as in tests. */
import dgram from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import { median } from '../statistics.js'
import { startUdpEcho } from '../targets.js'

const SMALL = 64
const LARGE = 1_200
/** Datagrams that are under way at once: they fit into the buffers of every socket. */
const WINDOW = 64
/** Silence after which all that are under way count as lost, in milliseconds. */
const LOST = 100

/** @type {import('./index.js').Measure} */
export const udp = {
  title: `UDP: round trip of ${SMALL} bytes, and echoed datagrams of ${LARGE.toLocaleString('en')} bytes`,
  ways: ['direct', 'bare relays', 'plain', 'TLS', 'mux', 'mux TLS'],
  programs: [],
  metrics: { roundTrip: { title: 'round trip, µs' }, rate: { title: 'echoed, datagrams/s' } },
  protocol: 'udp',
  startTarget: startUdpEcho,
  async run({ port }, seconds) {
    const socket = dgram.createSocket('udp4')
    socket.connect(port, '127.0.0.1')
    await once(socket, 'connect')
    socket.on('error', () => {})
    try {
      const { times } = await exchange(socket, { size: SMALL, window: 1, seconds })
      const { echoed } = await exchange(socket, { size: LARGE, window: WINDOW, seconds })
      return { roundTrip: median(times) * 1_000, rate: echoed / seconds }
    } finally {
      socket.close()
    }
  },
}

/**
 * Keeps so many datagrams under way; gives back how many came back, and the milliseconds between two of them.
 *
 * @param {dgram.Socket} socket
 * @param {{ size: number, window: number, seconds: number }} options
 */
async function exchange(socket, { size, window, seconds }) {
  const bytes = Buffer.alloc(size)
  /** @type {number[]} */
  const times = []
  let echoed = 0
  let last = performance.now()
  const socketOnMessage = () => {
    const now = performance.now()
    times.push(now - last)
    last = now
    echoed++
    socket.send(bytes)
  }
  const fill = () => {
    last = performance.now()
    for (let i = 0; i < window; i++) socket.send(bytes)
  }
  const watch = setInterval(() => {
    if (performance.now() - last > LOST) fill()
  }, LOST)
  socket.on('message', socketOnMessage)
  fill()
  await wait(seconds * 1_000)
  clearInterval(watch)
  socket.off('message', socketOnMessage)
  // Those that are still under way are not of the next exchange.
  await wait(LOST)
  if (echoed === 0) throw new Error('no datagram came back')
  return { times, echoed }
}
