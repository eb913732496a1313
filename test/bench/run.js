// @ts-check
/** Measures every way in turn, round by round, so that all meet the same machine. */
import { setTimeout as wait } from 'node:timers/promises'
import { startChild } from './processes.js'
import { whyMissing } from './programs.js'
import { median } from './statistics.js'
import { ways as allWays } from './ways/index.js'

/** How long one run may take beyond its seconds, in milliseconds. */
const RUN_TIMEOUT = 90_000

/** @typedef {import('./ways/index.js').WayName} WayName */
/** @typedef {import('./ways/index.js').Running} Running */
/** @typedef {import('./measures/index.js').Measure} Measure */

/**
 * What became of a way: the metrics of each round, or why there are none.
 *
 * @typedef {{ rounds: Record<string, number>[], missing?: string }} Outcome
 */

/** @typedef {Record<string, Record<string, Outcome>>} Results By measure and way. */

/**
 * @typedef {object} Settings
 * @property {number} rounds
 * @property {number} seconds Of each run under load.
 * @property {number} warmUp Seconds of load before the first round, which do not count: Node compiles what it has seen often.
 * @property {readonly WayName[]} ways
 * @property {(line: string) => void} tell
 */

/**
 * @param {Record<string, Measure>} measures
 * @param {Settings} settings
 * @returns {Promise<Results>}
 */
export async function runAll(measures, settings) {
  /** @type {Results} */
  const results = {}
  for (const [name, measure] of Object.entries(measures)) results[name] = await runMeasure(measure, settings)
  return results
}

/**
 * The median over the rounds; NaN where there is none.
 *
 * @param {Results} results
 * @param {string} measure
 * @param {string} way
 * @param {string} metric
 */
export function medianOf(results, measure, way, metric) {
  const outcome = results[measure]?.[way]
  if (!outcome || outcome.missing) return Number.NaN
  return median(outcome.rounds.map((round) => round[metric] ?? Number.NaN))
}

/**
 * The median of the ratios of each round to the reference's: what is near in time met the same machine.
 *
 * @param {Results} results
 * @param {string} measure
 * @param {string} way
 * @param {string} metric
 * @param {string} reference
 */
export function ratioOf(results, measure, way, metric, reference) {
  const [outcome, other] = [way, reference].map((name) => results[measure]?.[name])
  if (!outcome || !other || outcome.missing || other.missing) return Number.NaN
  return median(
    outcome.rounds.map(
      (round, i) => (round[metric] ?? Number.NaN) / (other.rounds[i]?.[metric] ?? Number.NaN),
    ),
  )
}

/**
 * @param {Measure} measure
 * @param {Settings} settings
 */
async function runMeasure(measure, settings) {
  const names = measure.ways.filter((name) => settings.ways.includes(name))
  /** @type {Record<string, Outcome>} */
  const outcomes = Object.fromEntries(names.map((name) => [name, { rounds: [] }]))
  try {
    const missing = whyMissing(measure.programs)
    if (missing) throw new Error(missing)
    if (names.length > 0) await runWays(measure, outcomes, settings)
  } catch (error) {
    for (const outcome of Object.values(outcomes)) outcome.missing ??= reasonOf(error)
  }
  return outcomes
}

/**
 * @param {Measure} measure
 * @param {Record<string, Outcome>} outcomes
 * @param {Settings} settings
 */
async function runWays(measure, outcomes, { rounds, seconds, warmUp, tell }) {
  const target = await measure.startTarget()
  const link = measure.isDelayed ? await startChild('link.js') : undefined
  /** @type {Map<string, Running>} */
  const running = new Map()
  const options = {
    target: target.port,
    protocol: measure.protocol,
    ...(link && { link: async (/** @type {number} */ port) => (await link.ask({ port })).port }),
  }
  try {
    // Round 0 is the warm-up.
    for (let round = warmUp > 0 && !measure.isFresh ? 0 : 1; round <= rounds; round++) {
      for (const [name, outcome] of Object.entries(outcomes)) {
        if (outcome.missing) continue
        tell(`${round > 0 ? `round ${round} of ${rounds}` : 'warm-up'}: ${measure.title}: ${name}`)
        try {
          const way = running.get(name) ?? (await allWays[/** @type {WayName} */ (name)].start(options))
          running.set(name, way)
          const length = round > 0 ? seconds : warmUp
          const metrics = await inTime(measure.run(way, length), length * 2_000 + RUN_TIMEOUT)
          if (round > 0) outcome.rounds.push(metrics)
        } catch (error) {
          outcome.missing = reasonOf(error)
          tell(`not available: ${outcome.missing}`)
        }
        if (outcome.missing || measure.isFresh) {
          await running.get(name)?.stop()
          running.delete(name)
        }
      }
    }
  } finally {
    for (const way of running.values()) await way.stop()
    await link?.stop()
    await target.stop()
  }
}

/**
 * Rejects where it takes too long.
 *
 * @template T
 * @param {Promise<T>} promise
 * @param {number} timeout
 */
export async function inTime(promise, timeout) {
  const settled = new AbortController()
  const late = wait(timeout, undefined, { signal: settled.signal }).then(() => {
    throw new Error(`took longer than ${timeout} ms`)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    settled.abort()
  }
}

/** @param {unknown} error */
export function reasonOf(error) {
  return error instanceof Error ? error.message : String(error)
}
