// @ts-check
/** Writes what was measured into docs/performance.md, between its markers, and the pictures beside it. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { growths } from './growth/index.js'
import { describeMachine } from './machine.js'
import { measures } from './measures/index.js'
import { barChart, lineChart } from './picture.js'
import { medianOf } from './run.js'
import { formatNumber, markdownOf } from './tables.js'

/** @typedef {import('./tables.js').Table} Table */

const docs = path.join(import.meta.dirname, '..', '..', 'docs')
const page = path.join(docs, 'performance.md')

/** The metrics that are drawn, each group in one picture. */
const drawn = /** @type {const} */ ([
  ['throughput', ['up', 'down'], 'Throughput of one stream, Gbit/s', ['up', 'down']],
  ['keep-alive', ['rate'], 'HTTP requests/s, keep-alive'],
  ['new-connections', ['rate'], 'HTTP requests/s, each on a new connection'],
  ['round-trip', ['median'], 'Round trip of 64 bytes, µs'],
  ['memory', ['each'], 'Memory of an idle connection, KiB'],
])

/** Ways whose growth is drawn: each has its color in all pictures. */
const lineColors = ['plain', 'TLS', 'mux', 'mux TLS', 'direct']

/** Ways that are none of ours. */
const others = ['direct', 'two socats', 'ssh -R', 'bare relays']

/**
 * @param {import('./run.js').Results} results
 * @param {readonly Table[]} tables
 */
export function writeResults(results, tables) {
  const pictures = drawn.flatMap(([measure, metrics, title, series = [title]]) => {
    const rows = measures[measure].ways
      .map((name) => ({
        name,
        values: metrics.map((metric) => medianOf(results, measure, name, metric)),
        isPale: others.includes(name),
      }))
      .filter(({ values }) => values.every(Number.isFinite))
    if (rows.length === 0) return []
    return writePicture(measure, title, barChart({ title, series, rows, format: formatNumber }))
  })
  writeBlock('results', [...describeMachine(), ...pictures, ...tables.map(markdownOf)])
}

/**
 * @param {import('./growth/index.js').Grown} grown
 * @param {readonly Table[]} tables
 */
export function writeGrowth(grown, tables) {
  const pictures = Object.entries(grown).flatMap(([name, byWay]) => {
    const growth = growths[/** @type {keyof typeof growths} */ (name)]
    return Object.entries(growth.metrics).flatMap(([metric, { title: unit }]) => {
      const lines = Object.entries(byWay)
        .map(([name, { steps }]) => ({
          name,
          color: lineColors.indexOf(name),
          points: Object.entries(steps).map(
            ([step, values]) => /** @type {const} */ ([Number(step), values[metric] ?? Number.NaN]),
          ),
        }))
        .filter(({ points }) => points.length > 0 && points.every(([, y]) => y > 0))
      if (lines.length === 0) return []
      const title = `${growth.title}: ${unit}`
      return writePicture(`${name}-${metric}`, title, lineChart({ title, lines, format: formatTick }))
    })
  })
  writeBlock('growth', [...describeMachine(), ...pictures, ...tables.map(markdownOf)])
}

/**
 * Replaces what stands between the markers of this name.
 *
 * @param {string} text
 * @param {string} name
 * @param {string} content
 */
export function replaceBlock(text, name, content) {
  const [begin, end] = [`<!-- ${name}: written by npm run bench -->`, `<!-- ${name}: end -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`the page has no block «${name}»: ${begin} … ${end}`)
  return `${text.slice(0, from)}${begin}\n\n${content}\n\n${text.slice(to)}`
}

/**
 * @param {string} name
 * @param {readonly string[]} paragraphs
 */
function writeBlock(name, paragraphs) {
  writeFileSync(page, replaceBlock(readFileSync(page, 'utf8'), name, paragraphs.join('\n\n')))
}

/**
 * Gives back the paragraph that shows it.
 *
 * @param {string} name
 * @param {string} title
 * @param {string} picture
 */
function writePicture(name, title, picture) {
  mkdirSync(path.join(docs, 'performance'), { recursive: true })
  writeFileSync(path.join(docs, 'performance', `${name}.svg`), picture)
  return `![${title}](performance/${name}.svg)`
}

/** @param {number} value */
function formatTick(value) {
  return value.toLocaleString('en')
}
