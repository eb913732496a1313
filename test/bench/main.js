// @ts-check
/**
 * The ways from a visitor to a target, measured side by side. Needs dist/, and Linux.
 *
 *     npm run bench -- --rounds 3 --seconds 1 --only plain,direct --measure throughput,keep-alive
 */
import { parseArgs } from 'node:util'
import { goalsTable } from './goals.js'
import { grow, growthTables } from './growth/index.js'
import { measures } from './measures/index.js'
import { writeGrowth, writeResults } from './page.js'
import { install } from './programs.js'
import { runAll } from './run.js'
import { tablesOf, textOf } from './tables.js'
import { ways } from './ways/index.js'

/** How shells name an end by Ctrl-C. */
const INTERRUPTED = 130

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => process.exit(INTERRUPTED))

const settings = readArguments()
if (process.platform !== 'linux')
  fail('the benchmark reads CPU times and memory from /proc, which Linux alone has')
const start = performance.now()
install(tell)
for (const table of settings.growth ? await measureGrowth() : await measureAll()) say(`${textOf(table)}\n`)

async function measureAll() {
  const results = await runAll(settings.measures, { ...settings, tell })
  const tables = [...tablesOf(settings.measures, results), goalsTable(results)]
  if (settings.write) writeResults(results, tables)
  return tables
}

async function measureGrowth() {
  const grown = await grow({ ...settings, tell })
  const tables = growthTables(grown)
  if (settings.write) writeGrowth(grown, tables)
  return tables
}

function readArguments() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '1' },
      'warm-up': { type: 'string', default: '3' },
      only: { type: 'string' },
      measure: { type: 'string' },
      growth: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
    },
  })
  if (values.write && (values.only || values.measure))
    fail('--write takes all that is measured: leave --only and --measure out')
  return {
    write: values.write,
    rounds: readNumber('rounds', values.rounds),
    growth: values.growth,
    seconds: readNumber('seconds', values.seconds),
    warmUp: readNumber('warm-up', values['warm-up'], 0),
    ways: readNames('only', values.only, ways),
    measures: Object.fromEntries(
      readNames('measure', values.measure, measures).map((name) => [name, measures[name]]),
    ),
  }
}

/**
 * @param {string} option
 * @param {string} value
 * @param {number} least
 */
function readNumber(option, value, least = 1) {
  const number = Number(value)
  if (!Number.isInteger(number) || number < least)
    fail(`--${option} takes a whole number from ${least} on, not ${value}`)
  return number
}

/**
 * @template {object} T
 * @param {string} option
 * @param {string | undefined} value
 * @param {T} all
 */
function readNames(option, value, all) {
  const names = value?.split(',') ?? Object.keys(all)
  const unknown = names.find((name) => !Object.hasOwn(all, name))
  if (unknown !== undefined)
    fail(`--${option} takes names from ${Object.keys(all).join(', ')}; not ${unknown}`)
  return /** @type {(keyof T)[]} */ (names)
}

/**
 * @param {string} message
 * @returns {never}
 */
function fail(message) {
  process.stderr.write(`bench: ${message}\n`)
  process.exit(2)
}

/** @param {string} line */
function tell(line) {
  const seconds = ((performance.now() - start) / 1_000).toFixed(0)
  process.stderr.write(`${seconds.padStart(4)} s  ${line}\n`)
}

/** @param {string} text */
function say(text) {
  process.stdout.write(`${text}\n`)
}
