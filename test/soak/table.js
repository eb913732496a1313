/** What a run tells at its end. */
import { kindsOfFault } from './faults.js'

const MB = 1e6

/** The lines of the table. */
export function* table({ ledger, seed, seconds, processes }) {
  yield* section(`${seconds.toFixed(0)} s, seed ${seed}`, [
    ['bytes checked', `${(ledger.counted('bytes') / MB).toFixed(1)} MB`],
    [
      'connections',
      ledger.counted('connections'),
      'ended',
      ledger.counted('ended visitor'),
      'cut',
      ledger.counted('cut visitor'),
      'refused',
      ledger.counted('refused'),
    ],
    ['requests', ledger.counted('requests'), 'cut', ledger.counted('requests cut')],
    ['requests without a fault', 'p50', ...ms(ledger.latencies, 0.5), 'p99', ...ms(ledger.latencies, 0.99)],
    [
      'datagrams',
      ledger.counted('datagrams sent'),
      'echoed',
      ledger.counted('datagrams echoed'),
      'dropped',
      ledger.counted('datagrams sent') - ledger.counted('datagrams echoed'),
      'flows',
      ledger.counted('flows'),
    ],
    [
      'tunnels opened and closed',
      ledger.counted('tunnels'),
      'lost',
      ledger.counted('tunnel disconnect'),
      'back',
      ledger.counted('tunnel reconnect'),
    ],
    ['ends at a kill', ...ledger.countsBelow('end at kill ').flat(), 'unclear', ledger.counted('unclear')],
  ])
  yield* section('fault, and until a new visitor is served again', [
    ['', 'count', 'tunnels', 'p50', 'p99', 'max'],
    ...kindsOfFault.map((kind) => {
      const times = ledger.recoveries.get(kind) ?? []
      return [
        kind,
        ledger.counted(`fault ${kind}`),
        times.length,
        ...[0.5, 0.99, 1].flatMap((part) => ms(times, part)),
      ]
    }),
  ])
  yield* section('memory in MB (resident), and open files', [
    ['', 'start', 'peak', 'drained'],
    ...processes.map(({ name, start, drained }) => [
      name,
      ...[start, drained.peak, drained].map(
        ({ heap, rss, fds }) => `${mb(heap)} (${mb(rss)}), ${fds ?? 'unknown'}`,
      ),
    ]),
  ])
}

/** The value below which this part of the times lies; nothing where there are none. */
export function percentile(times, part) {
  if (times.length === 0) return undefined
  const sorted = [...times].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)]
}

function ms(times, part) {
  const time = percentile(times, part)
  return [time === undefined ? '-' : `${time.toFixed(0)} ms`]
}

function mb(bytes) {
  return (bytes / MB).toFixed(0)
}

/** A title, and rows of which the columns stand below each other. */
function* section(title, rows) {
  const widths = []
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, String(cell).length)
  }
  yield `\n${title}`
  for (const row of rows) {
    const cells = row.map((cell, i) => String(cell)[i === 0 ? 'padEnd' : 'padStart'](widths[i]))
    yield `  ${cells.join('  ').trimEnd()}`
  }
}
