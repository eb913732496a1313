// @ts-check
/** One stream by iperf3. */
import { setTimeout as wait } from 'node:timers/promises'
import { OVERTIME, run } from './programs.js'

/** Its server serves one client at a time, and may still be busy with the last one. It says so, and resets the connection. */
const busy = /busy|closed unexpectedly/
const ATTEMPTS = 5
const PAUSE = 300

/**
 * Bytes that arrived, and how many Gbit/s that is.
 *
 * @param {{ port: number, seconds: number, isDown?: boolean, startUp?: number }} options `startUp` is seconds before it counts.
 */
export async function iperf({ port, seconds, isDown = false, startUp = 0 }) {
  const options = ['-J', '-c', '127.0.0.1', '-p', `${port}`, '-t', `${seconds}`, '-O', `${startUp}`]
  if (isDown) options.push('-R')
  for (let attempt = 1; ; attempt++) {
    try {
      const { end, error } = JSON.parse(await run('iperf3', options, (startUp + seconds) * 1_000 + OVERTIME))
      if (!end.sum_received) throw new Error(`iperf3 measured nothing: ${error}`)
      return { bytes: end.sum_received.bytes, rate: end.sum_received.bits_per_second / 1e9 }
    } catch (error) {
      if (attempt === ATTEMPTS || !busy.test(String(error))) throw error
      await wait(PAUSE)
    }
  }
}
