// @ts-check
/** What Linux tells of processes: their children, CPU time and memory. */
import { readdirSync, readFileSync } from 'node:fs'

/** The unit of times in /proc, per second: the same on every Linux. */
const TICKS = 100

/**
 * The processes and all that they have forked, and that lives.
 *
 * @param {readonly number[]} pids
 */
export function treeOf(pids) {
  /** @type {Map<number, number[]>} */
  const childrenOf = new Map()
  for (const entry of readdirSync('/proc')) {
    const stat = /^\d+$/.test(entry) ? readStat(Number(entry)) : undefined
    if (stat) childrenOf.set(stat.parent, [...(childrenOf.get(stat.parent) ?? []), Number(entry)])
  }
  const tree = [...pids]
  // It grows while we walk along it.
  for (const pid of tree) tree.push(...(childrenOf.get(pid) ?? []))
  return tree
}

/**
 * CPU seconds that the processes and all their forks have used so far, in the kernel as well; NaN where there are none.
 *
 * @param {readonly number[]} pids
 */
export function cpuSeconds(pids) {
  if (pids.length === 0) return Number.NaN
  // Of forks that have ended, their parents have the times.
  return treeOf(pids).reduce((sum, pid) => sum + (readStat(pid)?.ticks ?? 0), 0) / TICKS
}

/**
 * Bytes of memory that the processes and all their forks hold themselves: what is resident, without files. Pages that
 * forks share count once. NaN where there are no processes.
 *
 * @param {readonly number[]} pids
 */
export function memory(pids) {
  if (pids.length === 0) return Number.NaN
  return treeOf(pids).reduce((sum, pid) => {
    const kilobytes = /^Pss_Anon: +(\d+) kB$/m.exec(read(`/proc/${pid}/smaps_rollup`))
    return sum + Number(kilobytes?.[1] ?? 0) * 1_024
  }, 0)
}

/** @param {number} pid */
function readStat(pid) {
  const text = read(`/proc/${pid}/stat`)
  if (!text) return undefined
  // The name, in parentheses, may hold anything.
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number)
  const times = fields.slice(11, 15)
  return { parent: fields[1] ?? 0, ticks: times.reduce((sum, time) => sum + time, 0) }
}

/**
 * The file, or nothing where its process has ended.
 *
 * @param {string} path
 */
function read(path) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
