import { styleText } from 'node:util'
import { format as formatBytes } from 'bytes'
import { isLoopback } from '../address.js'
import type { Connection, ConnectionEnd, Rejection } from '../connection.js'
import type { Drop } from '../drops.js'
import { printable, TunnelError } from '../errors.js'
import type { RecordedRequest } from '../inspector/record.js'
import { formatVisitor, type Visitor } from '../listener.js'
import { datagrams } from '../log-events.js'
import type { Tunnel } from '../tunnel.js'
import { GRACE, writeLine } from './exit.js'
import { inFlags } from './flags.js'

/** Longest path of a request that is printed. */
const MAX_PATH = 200

/** What `pipe expose` and `pipe forward` tell while they run. */
export interface Report {
  /** The targets are waited for, so many seconds at the most. */
  waiting(seconds: number): void
  /** `inspector` is the URL of its page, where there is one. */
  ready(tunnel: Tunnel, inspector: string | undefined): void
  inspector(url: string): void
  /** All are ready. `listensHere` is whether their public addresses are of this process: of others nobody knows who reaches them. */
  open(tunnels: Tunnel[], listensHere: boolean): void
  request(tunnel: Tunnel, request: RecordedRequest): void
  /** `asked` is whether requests of it were told of. */
  connection(tunnel: Tunnel, connection: Connection, end: ConnectionEnd, asked: boolean): void
  reject(tunnel: Tunnel, rejection: Rejection): void
  drop(tunnel: Tunnel, drop: Drop): void
  disconnect(tunnel: Tunnel, error: TunnelError): void
  reconnect(tunnel: Tunnel, after: number): void
  closing(visitors: number): void
  close(tunnel: Tunnel, error: TunnelError | undefined): void
  error(error: unknown): void
}

/** The tunnels that have names, in a configuration file. */
export type Names = Pick<WeakMap<Tunnel, string>, 'get'>

/** For people: the URL alone on `output`, so that a script can read it too, and all else on stderr. */
export function textReport(
  output: NodeJS.WriteStream,
  { quiet, many, names }: { quiet: boolean; many: boolean; names: Names | undefined },
): Report {
  const say = (text: string) => {
    if (!quiet) writeLine(process.stderr, text)
  }
  const sayOf = (tunnel: Tunnel, visitor: Visitor | undefined, text: string) => {
    const time = dim(new Date().toTimeString().slice(0, 8))
    const who = visitor ? [formatVisitor(visitor)] : []
    const which = names?.get(tunnel) ?? (many ? tunnel.target : [])
    say([time, which, who, text].flat().join('  '))
  }
  return {
    waiting(seconds) {
      say(dim(`waiting for the target, up to ${seconds} s`))
    },
    ready(tunnel) {
      writeLine(output, tunnel.url)
      const name = names ? `${names.get(tunnel)}: ` : ''
      const which = many || names ? `${name}${tunnel.url} ` : ''
      say(dim(`${which}leads to ${tunnel.target}`))
      const { seed } = tunnel.conditions
      if (seed !== undefined) say(dim(`the network is broken on purpose; --seed ${seed} repeats it`))
    },
    inspector(url) {
      say(`requests are shown at ${url}`)
    },
    open(tunnels, listensHere) {
      const isLocal = tunnels.every(
        ({ host, path }) => path !== undefined || isLoopback(host) || host.endsWith('.localhost'),
      )
      const note = listensHere && isLocal ? 'only this machine can visit; ' : ''
      say(dim(`${note}Ctrl-C closes`))
    },
    request(tunnel, request) {
      sayOf(tunnel, undefined, requestLine(request))
    },
    connection(tunnel, { visitor }, { bytesIn, bytesOut, duration, error }, asked) {
      if (asked && !error) return
      const text = `${bytes(bytesIn)} in, ${bytes(bytesOut)} out, ${milliseconds(duration)}`
      sayOf(tunnel, visitor, error ? `${text}, ${red(inFlags(error.message))}` : text)
    },
    reject(tunnel, { visitor, error }) {
      sayOf(tunnel, visitor, red(`turned away: ${inFlags(error.message)}`))
    },
    drop(tunnel, { count, reason }) {
      sayOf(tunnel, undefined, red(`${datagrams(count)} dropped: ${reason}`))
    },
    disconnect(tunnel, error) {
      sayOf(tunnel, undefined, red(`link lost, reconnecting: ${inFlags(error.message)}`))
    },
    reconnect(tunnel, after) {
      sayOf(tunnel, undefined, `link is back after ${milliseconds(after)}`)
    },
    closing(visitors) {
      if (visitors > 0) say(dim(closingLine(visitors)))
    },
    close(tunnel, error) {
      if (error) writeLine(process.stderr, `pipe: ${tunnel.url} is gone: ${inFlags(error.message)}`)
    },
    error() {},
  }
}

/** For programs: one JSON object a line. The fields are described in `docs/cli.md`. */
export function jsonReport(output: NodeJS.WriteStream, names: Names | undefined): Report {
  const write = (event: string, fields: object) => {
    writeLine(output, JSON.stringify({ event, ...fields }))
  }
  const writeOf = (event: string, tunnel: Tunnel, fields: object) => {
    const { target, url } = tunnel
    write(event, { ...(names && { name: names.get(tunnel) }), target, url, ...fields })
  }
  return {
    waiting() {},
    ready(tunnel, inspector) {
      const { host, port, path = null, protocol, conditions } = tunnel
      const seed = conditions.seed ?? null
      writeOf('ready', tunnel, { host, port, path, protocol, seed, inspector: inspector ?? null })
    },
    inspector() {},
    open() {},
    request(tunnel, request) {
      const { url: path, connection: id, visitor, method, body, response, duration, state } = request
      const [status, bytesOut] = [response?.status ?? null, response?.body.size ?? 0]
      const asked = { path, id, visitor, method, status }
      const sizes = { bytesIn: body.size, bytesOut, duration }
      writeOf('request', tunnel, { ...asked, ...sizes, aborted: state === 'aborted' })
    },
    connection(tunnel, { id, visitor }, { bytesIn, bytesOut, duration, error }) {
      writeOf('connection', tunnel, { id, visitor, bytesIn, bytesOut, duration, error: plain(error) })
    },
    reject(tunnel, { id, visitor, error }) {
      const nothing = { bytesIn: 0, bytesOut: 0, duration: 0 }
      writeOf('connection', tunnel, { id, visitor, ...nothing, error: plain(error) })
    },
    drop(tunnel, { count, reason }) {
      writeOf('drop', tunnel, { count, reason })
    },
    disconnect(tunnel, error) {
      writeOf('disconnect', tunnel, { error: plain(error) })
    },
    reconnect(tunnel, after) {
      writeOf('reconnect', tunnel, { after })
    },
    closing() {},
    close(tunnel, error) {
      writeOf('close', tunnel, { error: plain(error) })
    },
    error(error) {
      write(
        'error',
        plain(error instanceof TunnelError ? error : undefined) ?? { code: null, message: String(error) },
      )
    },
  }
}

/** What the first Ctrl-C tells while visitors are inside. */
export function closingLine(visitors: number): string {
  return `closing; waiting up to ${GRACE / 1_000} s for ${visitors} inside, Ctrl-C again cuts them off`
}

/** `GET /path  200  12 ms  1.2 KB`, as dev servers print it. */
function requestLine({ method, url, response, state, duration, body }: RecordedRequest): string {
  const path = printable(url)
  const shown = path.length > MAX_PATH ? `${path.slice(0, MAX_PATH)}…` : path
  const sent = bytes(response?.body.size ?? 0)
  const parts = [`${method} ${shown}`]
  if (response) parts.push(style(colorOf(response.status), String(response.status)))
  if (state === 'aborted') parts.push(red('aborted'))
  parts.push(milliseconds(duration), response?.status === 101 ? `${bytes(body.size)} in, ${sent} out` : sent)
  return parts.join('  ')
}

function colorOf(status: number): Style {
  if (status >= 500) return 'red'
  if (status >= 400) return 'yellow'
  return status >= 300 ? 'cyan' : 'green'
}

function plain(error: TunnelError | undefined) {
  return error ? { code: error.code, message: inFlags(error.message) } : null
}

/** `79 B`, `1.2 MB`. */
export function bytes(count: number): string {
  return formatBytes(count, { unitSeparator: ' ', decimalPlaces: 1 }) ?? ''
}

function milliseconds(duration: number): string {
  return duration < 1_000 ? `${Math.round(duration)} ms` : `${(duration / 1_000).toFixed(1)} s`
}

function dim(text: string): string {
  return style('dim', text)
}

function red(text: string): string {
  return style('red', text)
}

type Style = 'dim' | 'red' | 'yellow' | 'cyan' | 'green'

/** Coloured on a terminal alone; `hasColors` knows NO_COLOR and FORCE_COLOR. */
function style(format: Style, text: string): string {
  return process.stderr.isTTY && process.stderr.hasColors() ? styleText(format, text) : text
}
