// @ts-check
/** What is aimed at, as ratios wherever that can be: they differ little from machine to machine. */
import { medianOf, ratioOf } from './run.js'
import { formatNumber } from './tables.js'

/** @typedef {import('./run.js').Results} Results */
/**
 * A figure, or its ratio to another way's.
 *
 * @typedef {(measure: string, metric: string, way: string, reference?: string) => number} Read
 */

/**
 * @typedef {object} Goal
 * @property {string} title
 * @property {(read: Read) => number} value
 * @property {number} [atLeast]
 * @property {number} [atMost]
 */

/** Round trip of the link that takes its time, in milliseconds. */
const LINK = 50
/**
 * What two socats carry is to be compared with frp's: with its multiplexer that carries a quarter of it, as far as is known.
 */
const FRP = 0.25

/** @type {readonly Goal[]} */
const goals = [
  atLeast(0.9, 'throughput up, of two socats', 'throughput', 'up', 'plain', 'two socats'),
  atLeast(0.9, 'throughput down, of two socats', 'throughput', 'down', 'plain', 'two socats'),
  atMost(1.2, 'CPU, s per GiB', 'throughput', 'cpu', 'plain'),
  atLeast(0.33, 'keep-alive requests, of direct', 'keep-alive', 'rate', 'plain', 'direct'),
  atLeast(0.33, 'requests on new connections, of direct', 'new-connections', 'rate', 'plain', 'direct'),
  atMost(1, 'round trip of 64 bytes, of two socats', 'round-trip', 'median', 'plain', 'two socats'),
  atMost(40, 'memory of an idle connection, KiB', 'memory', 'each', 'plain'),
  atMost(5, 'openTunnel in process, ms', 'ready', 'later', 'embedded'),
  atLeast(0.33, 'UDP datagrams echoed, of direct', 'udp', 'rate', 'plain', 'direct'),
  atMost(1.8, 'UDP round trip, of direct', 'udp', 'roundTrip', 'plain', 'direct'),
  atLeast(0.5, 'mux: throughput up, of plain', 'throughput', 'up', 'mux', 'plain'),
  atLeast(0.5, 'mux: throughput down, of plain', 'throughput', 'down', 'mux', 'plain'),
  atLeast(1.5 * FRP, 'mux: throughput up, of two socats', 'throughput', 'up', 'mux', 'two socats'),
  atLeast(1.5 * FRP, 'mux: throughput down, of two socats', 'throughput', 'down', 'mux', 'two socats'),
  atLeast(0.8, 'mux: keep-alive requests, of plain', 'keep-alive', 'rate', 'mux', 'plain'),
  atLeast(1, 'mux: requests on new connections, of plain', 'new-connections', 'rate', 'mux', 'plain'),
  {
    title: 'mux over 50 ms: round trips that a new visitor saves',
    value: (read) => (read('first-byte', 'time', 'plain') - read('first-byte', 'time', 'mux')) / LINK,
    // Timers of the link are a millisecond late here and there.
    atLeast: 0.9,
  },
  atLeast(1, 'mux over 50 ms: throughput up, of plain', 'delayed-throughput', 'up', 'mux', 'plain'),
  atLeast(1, 'mux over 50 ms: throughput down, of plain', 'delayed-throughput', 'down', 'mux', 'plain'),
  atMost(10, 'p99 beside a large answer, of alone', 'fairness', 'factor', 'plain'),
  atMost(10, 'mux: p99 beside a large answer, of alone', 'fairness', 'factor', 'mux'),
]

/**
 * @param {Results} results
 * @param {readonly Goal[]} [list]
 */
export function judge(results, list = goals) {
  return list.map(({ title, value: evaluate, atLeast, atMost }) => {
    const value = evaluate((measure, metric, way, reference) =>
      reference === undefined
        ? medianOf(results, measure, way, metric)
        : ratioOf(results, measure, way, metric, reference),
    )
    const limit = /** @type {number} */ (atLeast ?? atMost)
    const isMet = atLeast === undefined ? value <= limit : value >= limit
    return { title, value, limit, isAtLeast: atLeast !== undefined, isMet, by: Math.abs(value / limit - 1) }
  })
}

/**
 * @param {Results} results
 * @returns {import('./tables.js').Table}
 */
export function goalsTable(results) {
  const rows = judge(results).map(({ title, value, limit, isAtLeast, isMet, by }) => [
    title,
    formatNumber(value),
    `${isAtLeast ? 'at least' : 'at most'} ${limit}`,
    Number.isNaN(value) ? 'not measured' : isMet ? 'met' : `missed by ${(by * 100).toFixed(0)} %`,
  ])
  return { title: 'Goals', head: ['', 'is', 'should be', ''], rows }
}

/**
 * @param {number} limit
 * @param {string} title
 * @param {string} measure
 * @param {string} metric
 * @param {string} way
 * @param {string} [reference] The way whose figure it is divided by.
 * @returns {Goal}
 */
function atLeast(limit, title, measure, metric, way, reference) {
  return { title, value: (read) => read(measure, metric, way, reference), atLeast: limit }
}

/**
 * @param {number} limit
 * @param {string} title
 * @param {string} measure
 * @param {string} metric
 * @param {string} way
 * @param {string} [reference]
 * @returns {Goal}
 */
function atMost(limit, title, measure, metric, way, reference) {
  return { title, value: (read) => read(measure, metric, way, reference), atMost: limit }
}
