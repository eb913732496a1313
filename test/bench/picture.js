// @ts-check
/** Small charts as SVG, which can be read on a light page and on a dark one. */

/** @typedef {{ name: string, values: readonly number[], isPale?: boolean }} Row */
/** @typedef {{ name: string, color: number, points: readonly (readonly [x: number, y: number])[] }} Line */

const WIDTH = 640
const FONT = 13
/** From the middle of a letter to the line it stands on. */
const MIDDLE = 4.5
const BAR = 14
/** Between two groups of bars. */
const GAP = 8
/** Where bars begin: names are left of it. */
const LEFT = 96
/** Room for the figures behind bars, and for the names behind lines. */
const RIGHT = 84
const TOP = 40
const PLOT_HEIGHT = 240

const style = `<style>
  text { font: ${FONT}px system-ui, sans-serif; fill: #59636e }
  .title { font-weight: 600 }
  .grid { stroke: #8c959f; stroke-opacity: 0.3 }
${['#2f81f7', '#e0823d', '#2da44e', '#a371f7', '#8c959f']
  .map(
    (color, i) => `  .c${i} { fill: ${color} } path.c${i} { fill: none; stroke: ${color}; stroke-width: 2 }`,
  )
  .join('\n')}
  @media (prefers-color-scheme: dark) { text { fill: #b1bac4 } }
</style>`

/**
 * A group of bars for each row, one for each series.
 *
 * @param {{ title: string, series: readonly string[], rows: readonly Row[], format: (value: number) => string }} chart
 */
export function barChart({ title, series, rows, format }) {
  const most = Math.max(...rows.flatMap(({ values }) => values))
  const group = series.length * (BAR + 1) + GAP
  const bars = rows.flatMap(({ name, values, isPale }, i) => {
    const top = TOP + i * group
    return [
      text(LEFT - 8, top + group / 2 + MIDDLE, name, 'text-anchor="end"'),
      ...values.flatMap((value, j) => {
        const y = top + (group - series.length * (BAR + 1)) / 2 + j * (BAR + 1)
        const width = Math.max(1, (value / most) * (WIDTH - LEFT - RIGHT))
        return [
          `<rect class="c${j}" x="${LEFT}" y="${one(y)}" width="${one(width)}" height="${BAR}" rx="2"${isPale ? ' opacity="0.45"' : ''}/>`,
          text(LEFT + width + 6, y + BAR / 2 + MIDDLE, format(value)),
        ]
      }),
    ]
  })
  const legend =
    series.length > 1
      ? series.flatMap((name, j) => [
          `<rect class="c${j}" x="${WIDTH - 90 * (series.length - j)}" y="12" width="10" height="10" rx="2"/>`,
          text(WIDTH - 90 * (series.length - j) + 15, 22, name),
        ])
      : []
  return svg(title, TOP + rows.length * group + 8, [...legend, ...bars])
}

/**
 * Lines over two logarithmic axes.
 *
 * @param {{ title: string, lines: readonly Line[], format: (value: number) => string }} chart
 */
export function lineChart({ title, lines, format }) {
  const points = lines.flatMap((line) => line.points)
  const x = axis(
    points.map(([x]) => x),
    LEFT,
    WIDTH - RIGHT,
  )
  const y = axis(
    points.map(([, y]) => y),
    TOP + PLOT_HEIGHT,
    TOP,
  )
  const grid = [
    ...x.ticks.map((tick) =>
      text(x.at(tick), TOP + PLOT_HEIGHT + 20, tick.toLocaleString('en'), 'text-anchor="middle"'),
    ),
    ...y.ticks.flatMap((tick) => [
      `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${one(y.at(tick))}" y2="${one(y.at(tick))}"/>`,
      text(LEFT - 8, y.at(tick) + MIDDLE, format(tick), 'text-anchor="end"'),
    ]),
  ]
  const ends = apart(lines.map((line) => y.at(line.points.at(-1)?.[1] ?? 1)))
  const drawn = lines.flatMap(({ name, color, points }, i) => [
    `<path class="c${color}" d="M${points.map((point) => `${one(x.at(point[0]))} ${one(y.at(point[1]))}`).join('L')}"/>`,
    ...points.map(
      (point) => `<circle class="c${color}" cx="${one(x.at(point[0]))}" cy="${one(y.at(point[1]))}" r="3"/>`,
    ),
    text(x.at(points.at(-1)?.[0] ?? 1) + 8, (ends[i] ?? 0) + MIDDLE, name),
  ])
  return svg(title, TOP + PLOT_HEIGHT + 32, [...grid, ...drawn])
}

/**
 * A logarithmic axis from one power of ten to another.
 *
 * @param {readonly number[]} values
 * @param {number} from
 * @param {number} to
 */
function axis(values, from, to) {
  const low = Math.floor(Math.log10(Math.min(...values)))
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))))
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i))
  return {
    ticks,
    /** @param {number} value */
    at: (value) => from + ((Math.log10(value) - low) / (high - low)) * (to - from),
  }
}

/**
 * The same heights, moved so that no two names lie on each other.
 *
 * @param {readonly number[]} heights
 */
function apart(heights) {
  const moved = [...heights]
  const order = heights.map((_, i) => i).sort((a, b) => (heights[a] ?? 0) - (heights[b] ?? 0))
  order.forEach((index, i) => {
    const above = i === 0 ? Number.NEGATIVE_INFINITY : (moved[order[i - 1] ?? 0] ?? 0)
    moved[index] = Math.max(heights[index] ?? 0, above + FONT + 2)
  })
  return moved
}

/**
 * @param {string} title
 * @param {number} height
 * @param {readonly string[]} content
 */
function svg(title, height, content) {
  const open = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`
  const heading = [`<title>${escapeText(title)}</title>`, style, text(8, 22, title, 'class="title"')]
  return `${[open, ...heading, ...content, '</svg>'].join('\n')}\n`
}

/**
 * @param {number} x
 * @param {number} y
 * @param {string} content
 * @param {string} [attributes]
 */
function text(x, y, content, attributes = '') {
  return `<text x="${one(x)}" y="${one(y)}"${attributes && ` ${attributes}`}>${escapeText(content)}</text>`
}

/** @param {string} content */
function escapeText(content) {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}

/**
 * With one decimal.
 *
 * @param {number} value
 */
function one(value) {
  return String(Math.round(value * 10) / 10)
}
