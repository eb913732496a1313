/** What a run tells at its end. */
import { kindsOfFault } from './faults.js'

const MB = 1e6

/** The lines of the table. */
export function* table({ ledger, seed, seconds, processes }) {
  const all = (name) => ledger.counted(name)
  const latency = [0.5, 0.99, 1].map((part) => ms(ledger.latencies, part))
  const dropped = all('datagrams sent') - all('datagrams echoed')
  const kills = ledger.countsBelow('end at kill ').map(([what, count]) => `${count} at ${what}`)
  yield* section(`${seconds.toFixed(0)} s, seed ${seed}`, [
    ['bytes checked', `${(all('bytes') / MB).toFixed(1)} MB`],
    [
      'connections',
      `${all('connections')}: ${all('ended visitor')} ended, ${all('cut visitor')} cut; ${all('refused')} refused`,
    ],
    ['requests', `${all('requests')}; ${all('requests cut')} cut`],
    ['requests without a fault', `p50 ${latency[0]}, p99 ${latency[1]}, max ${latency[2]}`],
    [
      'datagrams',
      `${all('datagrams sent')}: ${all('datagrams echoed')} echoed, ${dropped} dropped; ${all('flows')} flows`,
    ],
    ['tunnels that come and go', all('tunnels')],
    ['control connections', `${all('tunnel disconnect')} lost, ${all('tunnel reconnect')} back`],
    ['stalls of this machine', all('stalls')],
    ['ended by the system at a kill', kills.join(', ') || 'none'],
    ['ends that may be resets', all('unclear')],
  ])
  yield* section('fault, and until a new visitor is served again', [
    ['', 'count', 'tunnels', 'p50', 'p99', 'max'],
    ...kindsOfFault.map((kind) => {
      const times = ledger.recoveries.get(kind) ?? []
      return [
        kind,
        ledger.counted(`fault ${kind}`),
        times.length,
        ...[0.5, 0.99, 1].map((part) => ms(times, part)),
      ]
    }),
  ])
  yield* section('held by each process', [
    ['', '', 'start', 'peak', 'drained'],
    ...processes.flatMap(({ name, start, drained }) =>
      Object.entries(measures).map(([measure, show], i) => [
        i === 0 ? name : '',
        measure,
        ...[start, drained.peak, drained].map((at) => show(at)),
      ]),
    ),
  ])
}

const measures = {
  'memory in use, MB': ({ heap }) => mb(heap),
  'memory resident, MB': ({ rss }) => mb(rss),
  'open files': ({ files }) => files ?? 'unknown',
  'active handles': ({ handles }) => handles,
}

/** The value below which this part of the times lies; nothing where there are none. */
export function percentile(times, part) {
  if (times.length === 0) return undefined
  const sorted = [...times].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)]
}

function ms(times, part) {
  const time = percentile(times, part)
  return time === undefined ? '-' : `${time.toFixed(0)} ms`
}

function mb(bytes) {
  return (bytes / MB).toFixed(1)
}

/** A title, and rows of which the columns stand below each other. */
function* section(title, rows) {
  const widths = []
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, String(cell).length)
  }
  yield `\n${title}`
  for (const row of rows) {
    // A sentence in the second column needs no others to stand below it.
    const cells = row.map((cell, i) =>
      String(cell)[i === 0 || row.length === 2 ? 'padEnd' : 'padStart'](widths[i]),
    )
    yield `  ${cells.join('  ').trimEnd()}`
  }
}
