// @ts-check
/** What connections cost that say nothing: memory of all processes of a way, with them and without. */
import { setTimeout as wait } from 'node:timers/promises'
import * as proc from '../proc.js'
import { startEcho } from '../targets.js'
import { Visitors } from '../visitors.js'

const CONNECTIONS = 1_000
/** Until the processes have come to rest, in milliseconds. */
const REST = 500

/** @type {import('./index.js').Measure} */
export const memory = {
  title: `Memory of ${CONNECTIONS.toLocaleString('en')} idle connections`,
  ways: ['two socats', 'ssh -R', 'bare relays', 'plain', 'TLS', 'mux', 'mux TLS'],
  programs: [],
  metrics: { each: { title: 'each, KiB' } },
  isFresh: true,
  startTarget: startEcho,
  async run({ port, pids }) {
    const visitors = new Visitors(port)
    try {
      // The first one has code loaded that all need.
      await visitors.add(1)
      await wait(REST)
      const before = proc.memory(pids)
      await visitors.add(CONNECTIONS)
      await wait(REST)
      return { each: (proc.memory(pids) - before) / CONNECTIONS / 1_024 }
    } finally {
      visitors.leave()
    }
  },
}
