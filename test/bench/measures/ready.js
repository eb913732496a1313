// @ts-check
/** How long `openTunnel` takes: the first one of a process, and those after it. */
import { median } from '../statistics.js'
import { startEcho } from '../targets.js'

const TUNNELS = 20

/** @type {import('./index.js').Measure} */
export const ready = {
  title: 'Time until openTunnel is ready',
  ways: ['embedded', 'plain', 'TLS', 'mux', 'mux TLS'],
  programs: [],
  metrics: { first: { title: 'first of a process, ms' }, later: { title: 'later ones, ms' } },
  isFresh: true,
  startTarget: startEcho,
  async run({ readyAfter = Number.NaN, openTunnels }) {
    return { first: readyAfter, later: median((await openTunnels?.(TUNNELS, false)) ?? []) }
  },
}
