// @ts-check
/** Programs that nobody here wrote: finds and installs them, runs them with a deadline. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants, readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import getPort from 'get-port'
import { answers } from '../helpers/answers.js'
import { end, hasEnded, own } from './processes.js'

/** The programs, and the Debian package of each; `apt-packages.txt` lists the packages. */
export const packages = {
  iperf3: 'iperf3',
  nginx: 'nginx',
  sockperf: 'sockperf',
  socat: 'socat',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  sshd: 'openssh-server',
  wrk: 'wrk',
}

/** @typedef {keyof typeof packages} Program */

/** How long a program may run beyond what it was told, in milliseconds. */
export const OVERTIME = 20_000
/** How long a program may take to listen, in milliseconds. */
const START_TIMEOUT = 10_000
/** Times that another port is tried, where somebody took the one that was free a moment ago. */
const ATTEMPTS = 3

/** Servers are in folders that only root has in PATH. */
const folders = [...(process.env.PATH ?? '').split(path.delimiter).filter(Boolean), '/usr/sbin']

/**
 * Where a program is, if it is installed.
 *
 * @param {Program} program
 */
export function find(program) {
  return folders.map((folder) => path.join(folder, program)).find(isExecutable)
}

/**
 * Why something that needs these programs can't be done, if it can't.
 *
 * @param {readonly Program[]} programs
 */
export function whyMissing(programs) {
  const missing = programs.filter((program) => !find(program))
  if (missing.length === 0) return undefined
  return `missing: ${missing.map((program) => `${program} (Debian package ${packages[program]})`).join(', ')}`
}

/**
 * Installs what is missing, where this is Debian and we may, and says so.
 *
 * @param {(line: string) => void} tell
 */
export function install(tell) {
  const missing = /** @type {Program[]} */ (Object.keys(packages)).filter((program) => !find(program))
  if (missing.length === 0) return
  if (process.getuid?.() !== 0 || spawnSync('apt-get', ['--version']).error) {
    tell(`${whyMissing(missing)}: what needs them is left out`)
    return
  }
  const names = readFileSync(path.join(import.meta.dirname, 'apt-packages.txt'), 'utf8')
    .trim()
    .split('\n')
  tell(`${whyMissing(missing)}: apt-get install ${names.join(' ')}`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  spawnSync('apt-get', ['update', '--quiet', '--quiet'], { env })
  const options = ['--yes', '--quiet', '--quiet', '--no-install-recommends']
  const { status } = spawnSync('apt-get', ['install', ...options, ...names], { env })
  if (status !== 0) tell('That failed. What needs these programs is left out.')
}

/**
 * Starts a program; the caller ends it.
 *
 * @param {Program} program
 * @param {readonly string[]} args
 */
export function start(program, args) {
  const file = find(program)
  if (!file) throw new Error(whyMissing([program]))
  const child = own(spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] }))
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (chunk) => {
    output.stdout += chunk
  })
  child.stderr.on('data', (chunk) => {
    output.stderr = (output.stderr + chunk).slice(-4_000)
  })
  return { child, output, pid: /** @type {number} */ (child.pid), stop: () => end(child) }
}

/**
 * Runs a program to its end; gives back what it wrote.
 *
 * @param {Program} program
 * @param {readonly string[]} args
 * @param {number} timeout
 */
export async function run(program, args, timeout) {
  const { child, output } = start(program, args)
  const timer = setTimeout(() => child.kill('SIGKILL'), timeout)
  const [code, signal] = await once(child, 'close')
  clearTimeout(timer)
  if (code === 0) return output.stdout
  const how = signal ? `took longer than ${timeout} ms` : `ended with ${code}`
  // iperf3 tells its errors in JSON as well.
  throw new Error(`${program} ${how}: ${(output.stderr || output.stdout).trim().slice(-300)}`)
}

/**
 * Starts a server program on a free port of 127.0.0.1; resolves when it listens.
 *
 * @param {Program} program
 * @param {(port: number) => readonly string[]} argumentsFor
 * @param {{ isUdp?: boolean }} [options]
 */
export async function startServer(program, argumentsFor, { isUdp = false } = {}) {
  for (let attempt = 1; ; attempt++) {
    const port = await getPort({ host: '127.0.0.1' })
    const server = start(program, argumentsFor(port))
    const until = performance.now() + START_TIMEOUT
    while (!hasEnded(server.child) && performance.now() < until) {
      await wait(20)
      if (isUdp || (await answers({ host: '127.0.0.1', port }))) return { ...server, port }
    }
    await server.stop()
    if (attempt === ATTEMPTS) throw new Error(`${program} does not listen: ${server.output.stderr.trim()}`)
  }
}

/** @param {string} file */
function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
