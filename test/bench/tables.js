// @ts-check
/** Results as tables: a row for each way, with its ratios to those that all are compared with. */
import { medianOf, ratioOf } from './run.js'

/** @typedef {import('./run.js').Results} Results */
/** @typedef {Pick<import('./measures/index.js').Measure, 'title' | 'metrics'>} Measure */
/** @typedef {{ title: string, head: string[], rows: string[][] }} Table */

/** What others are compared with, where it was measured. */
const references = ['direct', 'two socats']

/**
 * @param {Record<string, Measure>} measures
 * @param {Results} results
 * @returns {Table[]}
 */
export function tablesOf(measures, results) {
  return Object.entries(results).map(([name, outcomes]) => {
    const { title, metrics } = measures[name] ?? { title: name, metrics: {} }
    const columns = Object.entries(metrics).flatMap(([metric, { title }]) => [
      { title, show: (/** @type {string} */ way) => formatNumber(medianOf(results, name, way, metric)) },
      ...references
        .filter((reference) => medianOf(results, name, reference, metric) > 0)
        .map((reference) => ({
          title: `of ${reference}`,
          show: (/** @type {string} */ way) => formatNumber(ratioOf(results, name, way, metric, reference)),
        })),
    ])
    const rows = Object.entries(outcomes).map(([way, { missing }]) =>
      missing ? notAvailable(way, missing) : [way, ...columns.map(({ show }) => show(way))],
    )
    return { title, head: ['', ...columns.map((column) => column.title)], rows }
  })
}

/**
 * A row with a reason in place of figures.
 *
 * @param {string} way
 * @param {string} reason
 */
export function notAvailable(way, reason) {
  return [way, `not available: ${reason.split('\n')[0]}`]
}

/**
 * Three digits, or all in front of the point.
 *
 * @param {number} value
 */
export function formatNumber(value) {
  if (!Number.isFinite(value)) return '-'
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}

/**
 * Lines in which the columns stand below each other.
 *
 * @param {Table} table
 */
export function textOf({ title, head, rows }) {
  const aligned = [head, ...rows.filter((row) => row.length === head.length)]
  const widths = head.map((_, i) => Math.max(...aligned.map((row) => row[i]?.length ?? 0)))
  const first = Math.max(...[head, ...rows].map(([name = '']) => name.length))
  const lines = [head, ...rows].map((row) =>
    // A reason needs no others to stand below it.
    row.map((cell, i) =>
      i === 0 ? cell.padEnd(first) : row.length < head.length ? cell : cell.padStart(widths[i] ?? 0),
    ),
  )
  return [title, ...lines.map((cells) => `  ${cells.join('  ').trimEnd()}`)].join('\n')
}

/**
 * The same in Markdown.
 *
 * @param {Table} table
 */
export function markdownOf({ title, head, rows }) {
  const lines = [head, head.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((row) => {
    const cells = head.map((_, i) => (row[i] ?? '').replaceAll('|', '\\|'))
    return `| ${cells.join(' | ')} |`
  })
  return [`### ${title}`, '', ...lines].join('\n')
}
