/** The benchmark measures, tells what it can't measure, and reads what other programs write. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { judge } from './bench/goals.js'
import { growthTables } from './bench/growth/index.js'
import { readVersion } from './bench/machine.js'
import { readSockperf } from './bench/measures/round-trip.js'
import { replaceBlock } from './bench/page.js'
import { barChart, lineChart } from './bench/picture.js'
import { treeOf } from './bench/proc.js'
import { find, packages } from './bench/programs.js'
import type { Results } from './bench/run.js'
import { median, percentile } from './bench/statistics.js'
import { formatNumber, markdownOf, tablesOf, textOf } from './bench/tables.js'
import { readWrk } from './bench/wrk.js'
import { temporaryFolder } from './helpers/command.js'

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url))

test('it measures in one short round, and judges', { timeout: 120_000 }, (context) => {
  if (process.platform !== 'linux') context.skip('it reads /proc, which Linux alone has')
  if (!find('iperf3') || !find('socat')) context.skip('missing: iperf3 or socat')
  const { stdout, stderr, status } = bench('--rounds', '1', '--warm-up', '1', '--measure', 'throughput,ready')

  expect(status, stderr).toBe(0)
  expect(stdout).toMatch(/^Throughput of one stream \(iperf3\)\n +up, Gbit\/s +of direct/)
  for (const way of ['direct', 'two socats', 'plain', 'TLS']) {
    expect(stdout).toMatch(new RegExp(`^ +${way}  +[\\d.]+ +[\\d.]+ +[\\d.]+`, 'm'))
  }
  expect(stdout).toMatch(/^ +throughput up, of two socats +[\d.]+ +at least 0.9 +(met|missed by \d+ %)$/m)
  expect(stdout).toMatch(/^ +openTunnel in process, ms +[\d.]+ +at most 5 +(met|missed by \d+ %)$/m)
  expect(stdout).toMatch(/^ +UDP round trip, of direct +- .* not measured$/m)
})

test('Ctrl-C ends all that it has started, and leaves no files', async (context) => {
  if (process.platform !== 'linux') context.skip('it reads /proc, which Linux alone has')
  if (!find('wrk') || !find('nginx')) context.skip('missing: wrk or nginx')
  await using folder = await temporaryFolder()
  const args = [at('bench/main.js'), '--measure', 'keep-alive', '--only', 'plain', '--seconds', '30']
  const child = spawn(process.execPath, args, {
    env: { ...process.env, TMPDIR: folder.path },
    stdio: 'ignore',
  })
  const started = () => treeOf([Number(child.pid)])
  await expect.poll(() => started().length, { timeout: 20_000 }).toBeGreaterThan(4)
  const pids = started()
  child.kill('SIGINT')
  const [code] = await once(child, 'exit')

  expect(code).toBe(130)
  await expect
    .poll(() => pids.filter((pid) => existsSync(`/proc/${pid}/exe`)), { timeout: 20_000 })
    .toEqual([])
  expect(await readdir(folder.path)).toEqual([])
})

test.each([
  ['--rounds', '0', 'whole number from 1 on'],
  ['--warm-up', 'long', 'whole number from 0 on'],
  ['--only', 'plain,carrier-pigeon', 'not carrier-pigeon'],
  ['--measure', 'luck', 'not luck'],
])('it refuses %s %s', (option, value, reason) => {
  const { status, stderr } = bench(option, value)

  expect([status, stderr]).toEqual([2, expect.stringContaining(reason)])
})

test('the list of Debian packages is that of the programs', async () => {
  const list = await readFile(at('bench/apt-packages.txt'), 'utf8')

  expect(list.trim().split('\n')).toEqual([...new Set(Object.values(packages))].sort())
})

test('the median is the middle, or lies between the two in the middle', () => {
  expect([median([3, 1, 2]), median([4, 1, 2, 3]), median([])]).toEqual([2, 2.5, Number.NaN])
})

test('a percentile is one of the values', () => {
  const values = Array.from({ length: 100 }, (_, i) => 100 - i)

  expect([0.5, 0.99, 1].map((part) => percentile(values, part))).toEqual([50, 99, 100])
})

test('numbers have three digits', () => {
  const shown = [0.123, 1.004, 12.34, 123.4, 12_345.6, Number.NaN].map(formatNumber)

  expect(shown).toEqual(['0.12', '1.00', '12.3', '123', '12,346', '-'])
})

test('a table has the medians, the ratios, and why there is nothing', () => {
  const measures = { speed: { title: 'Speed', metrics: { up: { title: 'up, Gbit/s' } } } }
  const results: Results = {
    speed: {
      direct: { rounds: [{ up: 10 }, { up: 30 }, { up: 20 }] },
      // Of the rounds' ratios 0.5, 0.1 and 0.25 the median counts, not that of the figures.
      plain: { rounds: [{ up: 5 }, { up: 3 }, { up: 5 }] },
      mux: { rounds: [{ up: 1 }], missing: 'no such | way\nat all' },
    },
  }
  const [table] = tablesOf(measures, results)

  expect(table && textOf(table)).toBe(
    [
      'Speed',
      '          up, Gbit/s  of direct',
      '  direct        20.0       1.00',
      '  plain         5.00       0.25',
      '  mux     not available: no such | way',
    ].join('\n'),
  )
  expect(table && markdownOf(table)).toBe(
    [
      '### Speed',
      '',
      '|  | up, Gbit/s | of direct |',
      '| --- | ---: | ---: |',
      '| direct | 20.0 | 1.00 |',
      '| plain | 5.00 | 0.25 |',
      '| mux | not available: no such \\| way |  |',
    ].join('\n'),
  )
})

test('a table of growth has a row for each step, and why a way did not come to the last one', () => {
  const steps = { 1: { time: 2 }, 10: { time: 3 } }
  const tables = growthTables({
    tunnels: { plain: { steps }, TLS: { steps: { 1: { time: 4 } }, missing: 'too many' } },
  })

  expect(tables.map(textOf)[0]).toBe(
    [
      'From 1 to 1,000 tunnels: openTunnel, ms',
      '  tunnels  plain   TLS',
      '  1         2.00  4.00',
      '  10        3.00     -',
      '  TLS      not available: too many',
    ].join('\n'),
  )
})

test('goals are met at their limit, and missed by how much is told', () => {
  const results: Results = { speed: { plain: { rounds: [{ up: 0.9, cost: 1.5 }] } } }
  const goals = [
    { title: 'up', value: of('up'), atLeast: 0.9 },
    { title: 'cost', value: of('cost'), atMost: 1.2 },
    { title: 'other', value: of('other'), atMost: 1.2 },
  ]

  expect(judge(results, goals)).toMatchObject([
    { isMet: true, by: 0 },
    { isMet: false, by: expect.closeTo(0.25) },
    { isMet: false, value: Number.NaN },
  ])

  function of(metric: string) {
    return (median: (measure: string, metric: string, way: string) => number) =>
      median('speed', metric, 'plain')
  }
})

test.each(['us', 'ms', 's'])('what wrk writes is read, where it measures in %s', (unit) => {
  const text = `  Latency Distribution\n     50%  1.00${unit}\n     99%  2.50${unit}\n  4098 requests in 1.01s, 5.00MB read\nRequests/sec:   4057.42\n`
  const milliseconds = { us: 0.0025, ms: 2.5, s: 2_500 }[unit]

  expect(readWrk(text)).toEqual({ requests: 4_098, rate: 4_057.42, p99: milliseconds })
})

test('requests that fail are no figures', () => {
  const text =
    '  100 requests in 1.00s, 1MB read\n  Socket errors: connect 0, read 7, write 0, timeout 1\nRequests/sec: 100.00\n'

  expect(() => readWrk(text)).toThrow('8 of 100 requests failed')
  expect(() => readWrk('')).toThrow('no answers')
})

test('a bar is as long as its value, and tells it', () => {
  const rows = [
    { name: 'direct', values: [10] },
    { name: 'a & b', values: [5] },
  ]
  const picture = barChart({
    title: 'Speed <fast>',
    series: ['speed'],
    rows,
    format: (value) => `${value} m`,
  })
  const widths = [...picture.matchAll(/<rect [^>]*width="([\d.]+)"/g)].map(([, width]) => Number(width))

  expect(widths[0]).toBeGreaterThan(100)
  expect(widths).toEqual([widths[0], Number(widths[0]) / 2])
  expect(picture.match(/(?<=>)[^<\n]+(?=<\/text>)/g)).toEqual([
    'Speed &lt;fast>',
    'direct',
    '10 m',
    'a &amp; b',
    '5 m',
  ])
})

test('lines go over powers of ten, and their names do not lie on each other', () => {
  const points = [1, 10, 100].map((x) => [x, x] as const)
  const lines = ['plain', 'mux'].map((name, color) => ({ name, color, points }))
  const picture = lineChart({ title: 'Growth', lines, format: String })
  const [, ...xy] =
    /d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"/.exec(picture)?.map(Number) ?? []
  const [x1 = 0, y1 = 0, x2 = 0, y2 = 0, x3 = 0, y3 = 0] = xy
  const heights = ['plain', 'mux'].map((name) =>
    Number(new RegExp(`y="([\\d.]+)">${name}<`).exec(picture)?.[1]),
  )

  expect([x2 - x1, y1 - y2]).toEqual([x3 - x2, y2 - y3].map((distance) => expect.closeTo(distance, 0)))
  expect(Math.abs(Number(heights[0]) - Number(heights[1]))).toBeGreaterThan(12)
})

test('what was measured replaces what stood between its markers, and nothing else', () => {
  const text = 'a\n<!-- growth: written by npm run bench -->\nold\n<!-- growth: end -->\nb\n'

  expect(replaceBlock(text, 'growth', 'new')).toBe(text.replace('old', '\nnew\n'))
  expect(() => replaceBlock(text, 'results', 'new')).toThrow('no block «results»')
})

test.each([
  ['socat version 1.7.4.4 on 06 Nov 2022 08:15:51', '1.7.4.4'],
  ['OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19', '9.2p1'],
  ['wrk debian/4.1.0-3+b2 [epoll]', '4.1.0'],
  ['no version at all', 'unknown'],
])('of «%s» the version is %s', (text, version) => {
  expect(readVersion(text)).toBe(version)
})

test('what sockperf writes is read', () => {
  const text = '---> percentile 99.000 =   11.869\n---> percentile 50.000 =    4.462\n'

  expect(readSockperf(text)).toEqual({ median: 4.462, p99: 11.869 })
  expect(() => readSockperf('No messages were received')).toThrow('no answers')
})

function bench(...args: string[]) {
  return spawnSync(process.execPath, [at('bench/main.js'), ...args], { encoding: 'utf8', timeout: 110_000 })
}
