// @ts-check
/** What it was measured on, and with. */
import { spawnSync } from 'node:child_process'
import os from 'node:os'
import { find } from './programs.js'

/** How to ask each program for its version. */
const questions = /** @type {const} */ ([
  ['socat', '-V'],
  ['ssh', '-V'],
  ['iperf3', '--version'],
  ['wrk', '-v'],
  ['nginx', '-v'],
  ['sockperf', '--version'],
])

/** A line for the machine, and one for the versions. */
export function describeMachine() {
  const cpus = os.cpus()
  const memory = `${Math.round(os.totalmem() / 1_073_741_824)} GiB of memory`
  const machine = [`${cpus.length} cores of ${cpus[0]?.model.trim() ?? 'an unknown processor'}`, memory]
  const versions = questions.map(([program, option]) => `${program} ${versionOf(program, option)}`)
  const today = new Date().toISOString().slice(0, 10)
  return [
    `Measured on ${today}, on ${machine.join(', ')}, with Linux ${os.release()}.`,
    `Versions: Node ${process.versions.node}, ${versions.join(', ')}.`,
  ]
}

/**
 * @param {import('./programs.js').Program} program
 * @param {string} option
 */
function versionOf(program, option) {
  const file = find(program)
  if (!file) return 'is missing'
  const { stdout, stderr } = spawnSync(file, [option], { encoding: 'utf8' })
  return readVersion(`${stdout}${stderr}`)
}

/**
 * The first number with a point in it, and what belongs to it.
 *
 * @param {string} text
 */
export function readVersion(text) {
  return /\d+\.\d[\w.]*/.exec(text)?.[0] ?? 'unknown'
}
