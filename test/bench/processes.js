// @ts-check
/** What the benchmark starts and makes, it ends and removes: at its end, at Ctrl-C, and where it breaks. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { treeOf } from './proc.js'

/** How long a process may take to end before it is killed, in milliseconds. */
const END_TIMEOUT = 3_000
/** How long a process of ours may take to answer. */
const ANSWER_TIMEOUT = 60_000

/** @type {Set<import('node:child_process').ChildProcess>} */
const running = new Set()
/** @type {Set<string>} */
const folders = new Set()

process.on('exit', () => {
  signal(
    [...running].flatMap(({ pid }) => pid ?? []),
    'SIGKILL',
  )
  for (const folder of folders) removeFolder(folder)
})

/**
 * Takes a process that was just started: it ends with this one.
 *
 * @template {import('node:child_process').ChildProcess} T
 * @param {T} child
 */
export function own(child) {
  running.add(child)
  child.on('error', () => {})
  child.once('exit', () => running.delete(child))
  return child
}

/**
 * Ends a process and its forks.
 *
 * @param {import('node:child_process').ChildProcess} child
 */
export async function end(child) {
  if (child.pid === undefined || hasEnded(child)) return
  const { pid } = child
  const exited = once(child, 'exit')
  signal([pid], 'SIGTERM')
  const timer = setTimeout(() => signal([pid], 'SIGKILL'), END_TIMEOUT)
  await exited
  clearTimeout(timer)
}

/** @param {import('node:child_process').ChildProcess} child */
export function hasEnded({ exitCode, signalCode }) {
  return exitCode !== null || signalCode !== null
}

/** A folder that is gone at the end of the run, or before that by {@link removeFolder}. */
export function makeFolder() {
  const folder = mkdtempSync(path.join(tmpdir(), 'pipe-tunnel-bench-'))
  folders.add(folder)
  return folder
}

/** @param {string} folder */
export function removeFolder(folder) {
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  folders.delete(folder)
}

/**
 * A process of ours, which answers one question after the other.
 *
 * @typedef {object} Child
 * @property {number} pid
 * @property {(question: object) => Promise<any>} ask
 * @property {() => Promise<void>} stop
 */

/**
 * Starts one of the programs in children/.
 *
 * @param {string} file
 * @returns {Promise<Child>}
 */
export async function startChild(file) {
  // What these name is meant for others.
  const { PIPE_SERVER, PIPE_SECRET, ...env } = process.env
  const stdio = /** @type {const} */ (['ignore', 'ignore', 'pipe', 'ipc'])
  const child = own(fork(path.join(import.meta.dirname, 'children', file), { stdio: [...stdio], env }))
  let stderr = ''
  child.stderr?.on('data', (chunk) => {
    stderr = (stderr + chunk).slice(-2_000)
  })
  const ended = once(child, 'exit').then(() => {
    throw new Error(`${file} ended: ${stderr.trim()}`)
  })
  ended.catch(() => {})
  /** @param {object} question */
  const ask = async (question) => {
    child.send(question, () => {})
    const [answer] = await Promise.race([
      once(child, 'message', { signal: AbortSignal.timeout(ANSWER_TIMEOUT) }),
      ended,
    ])
    if (answer.error) throw new Error(answer.error)
    return answer
  }
  await Promise.race([once(child, 'message'), ended])
  return { pid: /** @type {number} */ (child.pid), ask, stop: () => end(child) }
}

/**
 * @param {number[]} pids
 * @param {NodeJS.Signals} name
 */
function signal(pids, name) {
  for (const pid of treeOf(pids)) {
    try {
      process.kill(pid, name)
    } catch {
      // It has ended meanwhile.
    }
  }
}
