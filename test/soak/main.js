/**
 * A tunnel server and clients in processes of their own, under a mixed load of which every byte is checked, while faults are
 * injected. Ends with a table and with 1 where anything went wrong. Needs dist/.
 *
 *     npm run soak -- --minutes 1 --seed 7
 *
 * A seed repeats the choices of a run, not its timing.
 */
import { randomInt } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { drain } from './drain.js'
import { injectFaults, kindsOfFault, noticeStalls } from './faults.js'
import { Ledger } from './ledger.js'
import { load } from './loads.js'
import { percentile, table } from './table.js'
import { World } from './world.js'

/** Most that a run may take beyond its minutes, in milliseconds. */
const OVERTIME = 60_000
/** No fault begins so shortly before the end, in milliseconds: it would only lengthen the run. */
const LAST_FAULT = 5_000
const REPORT_INTERVAL = 10_000
/**
 * Longest that half of the recoveries from a kind of fault may take, in milliseconds. Clients that lost their server at one moment
 * come back at nearly one moment, so what fewer faults than these tell is chance, and only twice as long is none.
 */
const MEDIAN_RECOVERY = 1_000
const FEW = 5
/** What timers can wait. */
const MAX_MINUTES = 30_000
/** How shells name an end by Ctrl-C. */
const INTERRUPTED = 130

const { minutes, seed } = readArguments()
const start = performance.now()
const end = start + minutes * 60_000
const ledger = new Ledger()
const world = new World(seed, ledger)
let processes = []

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(INTERRUPTED))
process.on('uncaughtException', (error) => {
  ledger.fail('the run broke', error.stack)
  finish()
})
setTimeout(
  () => {
    ledger.fail(`the run did not end within ${OVERTIME / 1_000} s after its time`)
    finish()
  },
  minutes * 60_000 + OVERTIME - 2_000,
)

say(`soak of ${minutes} min, seed ${seed}`)
await world.start()
const reports = setInterval(report, REPORT_INTERVAL)
noticeStalls(world)
const loaded = load(world)
await injectFaults(world, end - LAST_FAULT, (what) => say(`${elapsed()}  ${what}`))
await wait(Math.max(0, end - performance.now()))
world.isStopping = true
await loaded
clearInterval(reports)
processes = await drain(world)
finish()

function finish() {
  for (const kind of kindsOfFault)
    judge(kind, ledger.recoveries.get(kind) ?? [], ledger.counted(`fault ${kind}`))
  judge('all faults', [...ledger.recoveries.values()].flat(), FEW)
  const seconds = (performance.now() - start) / 1_000
  for (const line of table({ ledger, seed, seconds, processes })) say(line)
  say('')
  for (const line of ledger.tellFailures(start)) say(`failed: ${line}`)
  if (ledger.failures === 0) say('soak passed')
  process.exit(ledger.failures === 0 ? 0 : 1)
}

function judge(kind, times, faults) {
  const limit = faults < FEW ? 2 * MEDIAN_RECOVERY : MEDIAN_RECOVERY
  const median = percentile(times, 0.5)
  if (median >= limit)
    ledger.fail(`half of the recoveries after ${kind} took ${limit} ms or more`, `${median.toFixed(0)} ms`)
}

function report() {
  const counts = ['requests', 'connections', 'datagrams echoed'].map(
    (name) => `${ledger.counted(name)} ${name}`,
  )
  const megabytes = `${(ledger.counted('bytes') / 1e6).toFixed(0)} MB`
  const faults = `${ledger.countsBelow('fault ').reduce((sum, [, count]) => sum + count, 0)} faults`
  say(`${elapsed()}  ${[megabytes, ...counts, faults, `${ledger.failures} failures`].join(', ')}`)
}

function elapsed() {
  return `${((performance.now() - start) / 1_000).toFixed(1)} s`.padStart(8)
}

function readArguments() {
  const { values } = parseArgs({ options: { minutes: { type: 'string' }, seed: { type: 'string' } } })
  const minutes = Number(values.minutes ?? 1)
  const seed = Number(values.seed ?? randomInt(2 ** 31))
  if (!(minutes > 0 && minutes <= MAX_MINUTES) || !Number.isInteger(seed)) {
    say(`--minutes takes a number above 0, up to ${MAX_MINUTES}, and --seed a whole number`)
    process.exit(2)
  }
  return { minutes, seed }
}

function say(line) {
  process.stdout.write(`${line}\n`)
}
