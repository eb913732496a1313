// @ts-check
/** Room for many sockets, here and in the processes that are started from now on. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** What a process needs beside its connections. */
const RESERVE = 500

/**
 * Raises the limit of open files where it is lower than this and we may; gives back how many there are.
 *
 * @param {number} wanted
 */
export function allowDescriptors(wanted) {
  const limit = wanted + RESERVE
  if (softLimit() < limit) spawnSync('prlimit', ['--pid', `${process.pid}`, `--nofile=${limit}:${limit}`])
  return softLimit() - RESERVE
}

function softLimit() {
  const [, limit] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? []
  return Number(limit ?? Number.POSITIVE_INFINITY)
}
