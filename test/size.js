/**
 * How light the package is, as its users get it: packed, and installed into an empty folder. Prints a table,
 * and ends with 1 where a limit is passed. Needs dist/.
 *
 * Times are of fresh processes. Somebody else's work on the machine can only make them longer, so of each round
 * the lower quartile counts, and a round that is over the limit is measured again, a few times. They are given for the machine where the
 * limits were set, by how long this one takes in the same round for what tells its speed: to start Node, or to import a plain module.
 */
import { spawnSync } from 'node:child_process'
import { lstatSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const ROUNDS = 4
const PROCESSES = 12
/** What Node itself takes to start, where the limits were set, in milliseconds. */
const BARE = 45
/** What the plain module takes there. */
const PLAIN = 15

const repository = path.join(import.meta.dirname, '..')
const folder = mkdtempSync(path.join(tmpdir(), 'pipe-tunnel-size-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))

install()
writePlainModule()
print([
  { what: 'installed, with dependencies', unit: 'MB', limit: 3, measure: installed },
  {
    what: "import('pipe-tunnel')",
    unit: 'ms',
    limit: 30,
    measure: best(timeOfImport, timeOfPlainModule, PLAIN),
  },
  { what: 'pipe --version', unit: 'ms', limit: 120, measure: best(timeOfVersion, timeOfNode, BARE) },
])

function print(rows) {
  const width = Math.max(...rows.map(({ what }) => what.length))
  for (const { what, unit, limit, measure } of rows) {
    const is = measure(limit)
    const over = is > limit
    if (over) process.exitCode = 1
    const measured = `${is.toFixed(unit === 'MB' ? 2 : 0)} ${unit}`.padStart(8)
    say(`${what.padEnd(width)}  ${measured}  of ${`${limit} ${unit}`.padStart(6)}${over ? '  over' : ''}`)
  }
  say(
    `(times: lower quartile of ${PROCESSES} processes, the best of up to ${ROUNDS} rounds where over the limit)`,
  )
}

function install() {
  npm(repository, 'pack', '--ignore-scripts', '--pack-destination', folder)
  writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n')
  const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz'))
  npm(folder, 'install', '--prefer-offline', '--no-audit', '--no-fund', path.join(folder, tarball))
}

/** Megabytes of the package and all that it needs. */
function installed() {
  return sizeOf(path.join(folder, 'node_modules')) / 1e6
}

/** Bytes of all files below a folder. */
function sizeOf(file) {
  const stat = lstatSync(file)
  if (!stat.isDirectory()) return stat.size
  return readdirSync(file).reduce((sum, name) => sum + sizeOf(path.join(file, name)), 0)
}

/** The time of a process that does nothing. */
function timeOfNode() {
  const start = performance.now()
  run(folder, process.execPath, '--eval', '0')
  return performance.now() - start
}

/** The time of an import inside a process that has started already. */
function timeOfImport() {
  return timeToImport('pipe-tunnel')
}

/** The same of the plain module. */
function timeOfPlainModule() {
  return timeToImport('./plain.mjs')
}

function timeToImport(name) {
  const code = `const start = performance.now(); await import('${name}'); process.stdout.write(String(performance.now() - start))`
  return Number(run(folder, process.execPath, '--input-type=module', '--eval', code))
}

/** About as much source as the package has, of which hardly anything runs. */
function writePlainModule() {
  const functions = Array.from({ length: 4_000 }, (_, i) => {
    return `export function f${i}(a, b) {\n  if (a > ${i}) return { a, b: [b, a + ${i}] }\n  return f${i}(b, a)\n}\n`
  })
  writeFileSync(path.join(folder, 'plain.mjs'), functions.join(''))
}

/** The time of a whole process, from outside. */
function timeOfVersion() {
  const start = performance.now()
  run(
    folder,
    process.execPath,
    path.join(folder, 'node_modules', 'pipe-tunnel', 'dist', 'cli.js'),
    '--version',
  )
  return performance.now() - start
}

/** The best of several rounds, or the first that is within the limit. */
function best(measure, measureSpeed, usual) {
  return (limit) => {
    measure()
    let least = Number.POSITIVE_INFINITY
    for (let round = 0; round < ROUNDS && least > limit; round++) {
      // In turn, so that both meet the same machine.
      const pairs = Array.from({ length: PROCESSES }, () => ({ speed: measureSpeed(), time: measure() }))
      const [speed, time] = ['speed', 'time'].map((name) => quartile(pairs.map((pair) => pair[name])))
      least = Math.min(least, (time * usual) / Math.max(usual, speed))
    }
    return least
  }
}

function quartile(times) {
  return times.sort((a, b) => a - b)[times.length / 4 - 1]
}

function say(line) {
  process.stdout.write(`${line}\n`)
}

function npm(cwd, ...args) {
  const script = process.env.npm_execpath
  return script?.endsWith('npm-cli.js')
    ? run(cwd, process.execPath, script, ...args)
    : run(cwd, 'npm', ...args)
}

function run(cwd, file, ...args) {
  const { status, error, stdout, stderr } = spawnSync(file, args, { cwd, encoding: 'utf8' })
  if (status === 0) return stdout
  throw error ?? new Error(`${file} ${args.join(' ')} ended with ${status}:\n${stdout}${stderr}`)
}
