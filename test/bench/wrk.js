// @ts-check
/** Requests by wrk, and what it says of them. */
import { OVERTIME, run } from './programs.js'

/** The part of requests that may fail. */
const TOLERANCE = 0.01

/** Milliseconds of the units that it uses. */
const units = { us: 1e-3, ms: 1, s: 1e3, m: 6e4 }

/**
 * @param {{ port: number, path: string, connections: number, seconds: number, close?: boolean }} options Where to ask for
 *   what, and whether on a new connection each time.
 */
export async function wrk({ port, path, connections, seconds, close = false }) {
  const options = ['-t', '1', '-c', `${connections}`, '-d', `${seconds}s`, '--latency']
  const header = close ? ['-H', 'Connection: close'] : []
  const url = `http://127.0.0.1:${port}/${path}`
  return readWrk(await run('wrk', [...options, ...header, url], seconds * 1_000 + OVERTIME))
}

/**
 * Requests, how many per second, and the 99th percentile of their times in milliseconds.
 *
 * @param {string} text What wrk wrote.
 */
export function readWrk(text) {
  const requests = Number(/(\d+) requests in/.exec(text)?.[1])
  const rate = Number(/Requests\/sec: +([\d.]+)/.exec(text)?.[1])
  const [, p99, unit] = /99% +([\d.]+)(us|ms|s|m)\b/.exec(text) ?? []
  const errors = /Socket errors: (.*)/.exec(text)?.[1] ?? ''
  const failed = [...errors.matchAll(/\d+/g), ...text.matchAll(/(?<=responses: )\d+/g)]
  const failures = failed.reduce((sum, [count]) => sum + Number(count), 0)
  if (!(requests > 0)) throw new Error('wrk got no answers')
  if (failures > requests * TOLERANCE)
    throw new Error(`${failures} of ${requests} requests failed: ${errors}`)
  return {
    requests,
    rate,
    p99: Number(p99) * (units[/** @type {keyof typeof units} */ (unit)] ?? Number.NaN),
  }
}
