// @ts-check
/** Requests by wrk for a file of 1 KiB of nginx: on connections that stay, or on a new one each time. */
import { cpuSeconds } from '../proc.js'
import { startNginx } from '../targets.js'
import { wrk } from '../wrk.js'

const CONNECTIONS = 50

export const keepAlive = requests(`HTTP keep-alive, ${CONNECTIONS} connections (wrk, nginx)`, false)
export const newConnections = requests(`HTTP on new connections, ${CONNECTIONS} at once (wrk, nginx)`, true)

/**
 * @param {string} title
 * @param {boolean} close
 * @returns {import('./index.js').Measure}
 */
function requests(title, close) {
  return {
    title,
    ways: ['direct', 'two socats', 'ssh -R', 'bare relays', 'plain', 'TLS', 'mux', 'mux TLS'],
    programs: ['wrk', 'nginx'],
    metrics: { rate: { title: 'requests/s' }, cpu: { title: 'CPU, µs each' } },
    startTarget: startNginx,
    async run({ port, pids }, seconds) {
      const before = cpuSeconds(pids)
      const { requests, rate } = await wrk({ port, path: 'small', connections: CONNECTIONS, seconds, close })
      return { rate, cpu: ((cpuSeconds(pids) - before) / requests) * 1e6 }
    },
  }
}
