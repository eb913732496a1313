// @ts-check
/** Messages of 64 bytes by sockperf, one after the other on one connection. */
import { OVERTIME, run } from '../programs.js'
import { startSockperf } from '../targets.js'

/** @type {import('./index.js').Measure} */
export const roundTrip = {
  title: 'Round trip of 64 bytes (sockperf)',
  ways: ['direct', 'two socats', 'ssh -R', 'bare relays', 'plain', 'TLS', 'mux', 'mux TLS'],
  programs: ['sockperf'],
  metrics: {
    median: { title: 'median, µs' },
    p99: { title: 'p99, µs' },
  },
  startTarget: startSockperf,
  async run({ port }, seconds) {
    const where = ['--tcp', '-i', '127.0.0.1', '-p', `${port}`]
    const options = ['ping-pong', ...where, '--full-rtt', '-m', '64', '-t', `${seconds}`]
    return readSockperf(await run('sockperf', options, seconds * 1_000 + OVERTIME))
  },
}

/** @param {string} text What sockperf wrote. */
export function readSockperf(text) {
  const [median, p99] = ['50', '99'].map((part) =>
    Number(new RegExp(`percentile ${part}\\.000 = +([\\d.]+)`).exec(text)?.[1]),
  )
  if (!median || !p99) throw new Error('sockperf got no answers')
  return { median, p99 }
}
