import { printable } from '../errors.js'
import { formatVisitor } from '../listener.js'
import { DEFAULT_NAME } from '../secrets.js'
import { type AdminArguments, askAdmin, type ShownTunnel } from './administration.js'
import { writeLine } from './exit.js'
import { bytes } from './report.js'

const HEADINGS = ['ID', 'ADDRESS', 'CLIENT', 'OPEN FOR', 'VISITORS', 'IN', 'OUT']

/** `pipe status`: the tunnels of a server. */
export async function status(options: AdminArguments): Promise<void> {
  const answer = await askAdmin<{ tunnels: ShownTunnel[] }>(options, 'GET', '/api/tunnels')
  if (options.json) return
  if (answer.tunnels.length === 0) return writeLine(process.stderr, 'no tunnels are open')
  for (const line of table([HEADINGS, ...answer.tunnels.map(rowOf)])) writeLine(process.stdout, line)
}

function rowOf({ id, address, client, secretName, openedAt, connections, stats }: ShownTunnel): string[] {
  const age = Date.now() - Date.parse(openedAt)
  const name = secretName === null || secretName === DEFAULT_NAME ? '' : `${secretName} `
  const row = [id, address, `${name}${formatVisitor(client)}`, duration(age), String(connections)]
  return [...row, bytes(stats.bytesIn), bytes(stats.bytesOut)].map(printable)
}

/** Each column as wide as its widest word. */
function table(rows: string[][]): string[] {
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows.map((row) =>
    row
      .map((word, column) => word.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}

/** In the largest unit that fits: `42 s`, `5 min`, `3 h`, `2 d`. */
function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1_000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h`
  return `${Math.floor(seconds / 86_400)} d`
}
