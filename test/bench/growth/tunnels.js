// @ts-check
/** From one tunnel to 1,000 between one server and one client process: how long one takes to open, and memory. */
import { setTimeout as wait } from 'node:timers/promises'
import { memory } from '../proc.js'
import { median } from '../statistics.js'
import { startEcho } from '../targets.js'

/** Until the processes have come to rest, in milliseconds. */
const REST = 500

/** @type {import('./index.js').Growth} */
export const tunnels = {
  title: 'From 1 to 1,000 tunnels',
  ways: ['plain', 'TLS', 'mux', 'mux TLS'],
  steps: [1, 10, 100, 1_000],
  // A public port, and a control connection.
  descriptors: 2,
  metrics: { time: { title: 'openTunnel, ms' }, memory: { title: 'memory, MiB' } },
  startTarget: startEcho,
  async start({ pids, readyAfter = Number.NaN, openTunnels }) {
    // One came with the way.
    let count = 1
    return {
      async to(step) {
        const times = (await openTunnels?.(step - count, true)) ?? []
        count = step
        await wait(REST)
        return { time: median(times.length > 0 ? times : [readyAfter]), memory: memory(pids) / 1_048_576 }
      },
      stop() {},
    }
  },
}
