// @ts-check
/** How cost grows with the number of connections and of tunnels: each way once, step by step. */
import { inTime, reasonOf } from '../run.js'
import { formatNumber, notAvailable } from '../tables.js'
import { ways as allWays } from '../ways/index.js'
import { connections } from './connections.js'
import { allowDescriptors } from './descriptors.js'
import { tunnels } from './tunnels.js'

/** How long a step may take, in milliseconds. */
const STEP_TIMEOUT = 180_000

/** @typedef {import('../ways/index.js').WayName} WayName */
/** @typedef {import('../ways/index.js').Running} Running */

/**
 * @typedef {object} Growth
 * @property {string} title
 * @property {readonly WayName[]} ways
 * @property {readonly number[]} steps
 * @property {number} descriptors Of one process, for each of them.
 * @property {Record<string, { title: string }>} metrics
 * @property {() => Promise<import('../targets.js').Target>} startTarget
 * @property {(way: Running) => Promise<Climb>} start
 */

/**
 * Takes a way from one step to the next; gives each metric.
 *
 * @typedef {{ to(step: number): Promise<Record<string, number>>, stop(): void }} Climb
 */

/** @typedef {Record<string, Record<string, { steps: Record<number, Record<string, number>>, missing?: string }>>} Grown */

/** @satisfies {Record<string, Growth>} */
export const growths = { connections, tunnels }

/**
 * @param {{ ways: readonly WayName[], tell: (line: string) => void }} settings
 * @returns {Promise<Grown>}
 */
export async function grow({ ways, tell }) {
  /** @type {Grown} */
  const grown = {}
  for (const [name, growth] of Object.entries(growths)) {
    const steps = stepsFor(growth)
    if (steps.at(-1) !== growth.steps.at(-1))
      tell(`too few descriptors for more than ${steps.at(-1)} ${name}`)
    const target = await growth.startTarget()
    grown[name] = {}
    try {
      for (const way of growth.ways.filter((one) => ways.includes(one))) {
        tell(`${growth.title}: ${way}`)
        const climbed = await climb(growth, steps, allWays[way], target.port)
        if (climbed.missing) tell(`not available: ${climbed.missing}`)
        grown[name][way] = climbed
      }
    } finally {
      await target.stop()
    }
  }
  return grown
}

/**
 * The steps, the last of which may be lower where a process may not have so many descriptors.
 *
 * @param {Growth} growth
 */
function stepsFor({ steps, descriptors }) {
  const most = allowDescriptors(descriptors * Math.max(...steps)) / descriptors
  const round = Math.floor(most / 1_000) * 1_000
  return [...new Set(steps.map((step) => (step <= most ? step : round)))]
}

/**
 * @param {Growth} growth
 * @param {readonly number[]} steps
 * @param {import('../ways/index.js').Way} way
 * @param {number} target
 */
async function climb(growth, steps, way, target) {
  /** @type {Record<number, Record<string, number>>} */
  const measured = {}
  let running
  let climbing
  try {
    running = await way.start({ target })
    climbing = await growth.start(running)
    for (const step of steps) measured[step] = await inTime(climbing.to(step), STEP_TIMEOUT)
    return { steps: measured }
  } catch (error) {
    return { steps: measured, missing: reasonOf(error) }
  } finally {
    climbing?.stop()
    await running?.stop()
  }
}

/**
 * A table for each metric: a row for each step, a column for each way, and why a way did not come to the last step.
 *
 * @param {Grown} grown
 * @returns {import('../tables.js').Table[]}
 */
export function growthTables(grown) {
  return Object.entries(grown).flatMap(([name, byWay]) => {
    const { title, metrics } = growths[/** @type {keyof typeof growths} */ (name)]
    const ways = Object.entries(byWay).filter(([, { steps }]) => Object.keys(steps).length > 0)
    // Keys that are numbers are in order.
    const steps = Object.keys(Object.assign({}, ...ways.map(([, { steps }]) => steps))).map(Number)
    return Object.entries(metrics).map(([metric, { title: unit }]) => ({
      title: `${title}: ${unit}`,
      head: [name, ...ways.map(([way]) => way)],
      rows: [
        ...steps.map((step) => [
          step.toLocaleString('en'),
          ...ways.map(([, { steps }]) => formatNumber(steps[step]?.[metric] ?? Number.NaN)),
        ]),
        ...Object.entries(byWay).flatMap(([way, { missing }]) =>
          missing ? [notAvailable(way, missing)] : [],
        ),
      ],
    }))
  })
}
