// @ts-check
/** What short requests wait for, on one connection, while another one loads a large file through the same tunnel. */
import { startNginx } from '../targets.js'
import { wrk } from '../wrk.js'

/** @type {import('./index.js').Measure} */
export const fairness = {
  title: 'p99 of short requests, alone and beside a large answer (wrk, nginx)',
  ways: ['direct', 'two socats', 'plain', 'TLS', 'mux', 'mux TLS'],
  programs: ['wrk', 'nginx'],
  metrics: {
    alone: { title: 'alone, ms' },
    beside: { title: 'beside, ms' },
    factor: { title: 'factor' },
  },
  startTarget: startNginx,
  async run({ port }, seconds) {
    const options = { port, connections: 1, seconds }
    const { p99: alone } = await wrk({ ...options, path: 'small' })
    const [{ p99: beside }] = await Promise.all([
      wrk({ ...options, path: 'small' }),
      wrk({ ...options, path: 'large', seconds: seconds + 1 }),
    ])
    return { alone, beside, factor: beside / alone }
  },
}
