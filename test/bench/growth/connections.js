// @ts-check
/** From one visitor to 10,000 that stay: memory, and how long one of them waits for an answer. */
import { setTimeout as wait } from 'node:timers/promises'
import { memory } from '../proc.js'
import { median } from '../statistics.js'
import { startEcho } from '../targets.js'
import { Visitors } from '../visitors.js'

/** Round trips of a step. */
const ROUND_TRIPS = 400
const SIZE = 64
/** Until the processes have come to rest, in milliseconds. */
const REST = 500

/** @type {import('./index.js').Growth} */
export const connections = {
  title: 'From 1 to 10,000 connections',
  ways: ['direct', 'plain', 'TLS', 'mux', 'mux TLS'],
  steps: [1, 10, 100, 1_000, 4_000, 10_000],
  // Two at server and client, and in this process, which has both ends.
  descriptors: 2,
  metrics: { memory: { title: 'memory, MiB' }, time: { title: 'round trip of 64 bytes, µs' } },
  startTarget: startEcho,
  async start({ port, pids }) {
    const visitors = new Visitors(port)
    return {
      async to(step) {
        await visitors.add(step - visitors.count)
        await wait(REST)
        const bytes = memory(pids)
        const times = await visitors.ask(ROUND_TRIPS, SIZE)
        return { memory: bytes / 1_048_576, time: median(times) * 1_000 }
      },
      stop: () => visitors.leave(),
    }
  },
}
