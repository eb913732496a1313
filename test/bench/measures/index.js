// @ts-check
/** What is measured, in the order of the tables. */
import { delayedThroughput, firstByte } from './delayed.js'
import { fairness } from './fairness.js'
import { keepAlive, newConnections } from './http.js'
import { memory } from './memory.js'
import { ready } from './ready.js'
import { roundTrip } from './round-trip.js'
import { throughput } from './throughput.js'
import { udp } from './udp.js'

/** @typedef {import('../ways/index.js').Running} Running */
/** @typedef {import('../ways/index.js').WayName} WayName */

/**
 * @typedef {object} Metric
 * @property {string} title With its unit.
 */

/**
 * @typedef {object} Measure
 * @property {string} title
 * @property {readonly WayName[]} ways
 * @property {readonly import('../programs.js').Program[]} programs What it needs, beside what the ways need.
 * @property {Record<string, Metric>} metrics
 * @property {() => Promise<import('../targets.js').Target>} startTarget
 * @property {(way: Running, seconds: number) => Promise<Record<string, number>>} run Gives each metric.
 * @property {'udp'} [protocol]
 * @property {boolean} [isFresh] Whether it needs ways that nobody has used.
 * @property {boolean} [isDelayed] Whether it is made over a link that takes 25 ms each way.
 */

/** @satisfies {Record<string, Measure>} */
export const measures = {
  throughput,
  'keep-alive': keepAlive,
  'new-connections': newConnections,
  'round-trip': roundTrip,
  memory,
  ready,
  udp,
  'first-byte': firstByte,
  'delayed-throughput': delayedThroughput,
  fairness,
}

/** @typedef {keyof typeof measures} MeasureName */
