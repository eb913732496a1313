// @ts-check
/** One stream by iperf3, to the target and back. */
import { iperf } from '../iperf.js'
import { cpuSeconds } from '../proc.js'
import { startIperf } from '../targets.js'

const GIB = 1_073_741_824

/** @type {import('./index.js').Measure} */
export const throughput = {
  title: 'Throughput of one stream (iperf3)',
  ways: ['direct', 'two socats', 'ssh -R', 'bare relays', 'plain', 'TLS', 'mux', 'mux TLS'],
  programs: ['iperf3'],
  metrics: {
    up: { title: 'up, Gbit/s' },
    down: { title: 'down, Gbit/s' },
    cpu: { title: 'CPU, s per GiB' },
  },
  startTarget: startIperf,
  async run({ port, pids }, seconds) {
    const before = cpuSeconds(pids)
    const up = await iperf({ port, seconds })
    const down = await iperf({ port, seconds, isDown: true })
    const cpu = (cpuSeconds(pids) - before) / ((up.bytes + down.bytes) / GIB)
    return { up: up.rate, down: down.rate, cpu }
  },
}
