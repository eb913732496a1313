import { setImmediate } from 'node:timers/promises'
import { reasonOf, TunnelError } from '../errors.js'
import type { LocalOptions } from '../local-options.js'
import { invalidOption } from '../options.js'
import type { Tunnel } from '../tunnel.js'
import { runChild } from './child.js'
import { type ConditionArguments, readConditionArguments } from './conditions.js'
import { codeOf, exit, fail, GRACE, onEndSignals } from './exit.js'
import { type Inspector, serveInspector } from './inspector.js'
import { jsonReport, type Names, type Report, textReport } from './report.js'

/** Seconds that `--wait` waits where it says no number. */
const WAIT = 60

/** Requests are told of, and nothing of them is kept. */
const TOLD = { maxBodySize: 0, maxRequests: 0 }

/** Options that `pipe expose` and `pipe forward` share. */
export interface LocalArguments extends ConditionArguments {
  allow?: string[]
  deny?: string[]
  limit?: string
  proxyProtocol?: number
  hostHeader?: string
  inspect?: boolean
  wait?: true | string
  flowTimeout?: string
  maxFlows?: number
  json?: boolean
  quiet?: boolean
}

export function readLocalArguments(given: LocalArguments): LocalOptions {
  const { allow, deny, limit, proxyProtocol, hostHeader, wait, flowTimeout, maxFlows, quiet, inspect } = given
  const conditions = readConditionArguments(given)
  return {
    ...(!quiet && { inspect: inspect ?? TOLD }),
    ...(allow !== undefined && { allow }),
    ...(deny !== undefined && { deny }),
    ...(flowTimeout !== undefined && { flowTimeout: readSeconds('--flow-timeout', flowTimeout) }),
    ...(maxFlows !== undefined && { maxFlows }),
    ...(limit !== undefined && { limit }),
    ...(conditions && { conditions }),
    ...(proxyProtocol !== undefined && { proxyProtocol: proxyProtocol as 1 | 2 }),
    ...(hostHeader !== undefined && { hostHeader }),
    ...(wait !== undefined && { waitForTarget: readWait(wait) }),
  }
}

function readWait(wait: true | string): number {
  return readSeconds('--wait', wait === true ? WAIT : wait)
}

/** Seconds of the command line in milliseconds. */
function readSeconds(name: string, value: number | string): number {
  const seconds = Number(value)
  if (!(seconds > 0 && seconds <= 86_400)) throw invalidOption(name, 'seconds, up to 86400', value)
  return Math.ceil(seconds * 1_000)
}

/** What runs. */
export interface Run {
  /** Opens the first tunnels. */
  open(signal: AbortSignal): Promise<Tunnel[]>
  /** Whether the public addresses are of this process, once they are open. */
  listensHere(): boolean
  /** Whether there are several. */
  many?: boolean
  /** Those of a configuration file. */
  names?: Names
  /** What runs behind `--`. */
  command?: string[] | undefined
  /**
   * Reads the configuration file again, at SIGHUP; what it opens is to be shown, which rejects where the page can't be served. It never
   * rejects itself.
   */
  reload?(show: (tunnel: Tunnel) => Promise<void>, signal: AbortSignal): Promise<void>
  /** Whether a page shows the requests of this tunnel. Left out: where `--inspect` says so, those of all. */
  inspects?(tunnel: Tunnel): boolean
}

/**
 * Opens tunnels, and reports of them until it is told to end or the last is gone. Where there is a command it runs that
 * meanwhile, leaves stdout to it, and ends when it does.
 */
export async function run(
  { json, quiet = false, wait, inspect = false }: LocalArguments,
  { open, listensHere, many = false, names, command, reload, inspects = () => inspect }: Run,
): Promise<void> {
  const output = command ? process.stderr : process.stdout
  const report = json ? jsonReport(output, names) : textReport(output, { quiet, many, names })
  const stop = new AbortController()
  const tunnels = new Set<Tunnel>()
  /** Served from the first tunnel on that it shows. */
  let page: Promise<Inspector> | undefined
  let isPageTold = false
  const servePage = () => {
    page ??= serveInspector()
    return page
  }
  /** What is still under way: tunnels until their end, and changes to them. */
  const pending = new Set<Promise<void>>()
  const follow = (work: Promise<void>) => {
    pending.add(work)
    work.then(() => pending.delete(work))
  }
  const show = async (tunnel: Tunnel) => {
    tunnels.add(tunnel)
    let shown: Inspector | undefined
    let failure: unknown
    try {
      if (inspects(tunnel)) shown = await servePage()
    } catch (error) {
      failure = error
      // The next one may be served.
      page = undefined
    }
    shown?.add(tunnel)
    announce(tunnel, report, shown?.url)
    if (shown && !isPageTold) {
      report.inspector(shown.url)
      isPageTold = true
    }
    follow(
      watch(tunnel, report).then(() => {
        tunnels.delete(tunnel)
        shown?.remove(tunnel)
      }),
    )
    // It may have been opened while all were closed.
    if (stop.signal.aborted) tunnel.close()
    if (failure) throw new Error(`it is open, but no page can show its requests: ${reasonOf(failure)}`)
  }
  const allDone = async () => {
    while (pending.size > 0) await Promise.all(pending)
  }
  // Before anything is printed: a script may answer the URL with a signal at once.
  const stopListening = onEndSignals(
    (count, signal) => {
      stop.abort()
      // A command that has not run has not gone well.
      if (command) process.exitCode = codeOf(signal)
      // Flows need no time to finish.
      const waitedFor = [...tunnels].filter(({ protocol }) => protocol !== 'udp')
      if (count === 1) report.closing(waitedFor.reduce((sum, tunnel) => sum + tunnel.connections, 0))
      for (const tunnel of tunnels) tunnel.close({ grace: count === 1 ? GRACE : 0 })
    },
    reload && (() => follow(reload(show, stop.signal))),
  )
  try {
    const opened = open(stop.signal)
    if (wait !== undefined) {
      // A mistake is told at once, and nothing is waited for.
      await Promise.race([opened, setImmediate()])
      report.waiting(readWait(wait) / 1_000)
    }
    const first = await opened
    // Before any is announced: without the page that was asked for, nothing begins.
    if (first.some(inspects)) await servePage()
    for (const tunnel of first) await show(tunnel)
    if (!command) report.open([...tunnels], listensHere())
    if (command) {
      // From here on signals are for the command.
      stopListening()
      const code = await runChild(command, [...tunnels])
      for (const tunnel of tunnels) tunnel.close()
      await allDone()
      // A command that went well may not have noticed that the link was lost.
      process.exitCode = code || process.exitCode
    }
    await allDone()
  } catch (error) {
    if (error instanceof TunnelError && error.code === 'aborted') return
    report.error(error)
    fail(error)
  } finally {
    stopListening()
    // That it could not be served was told.
    await (await page?.catch(() => undefined))?.close()
  }
}

function announce(tunnel: Tunnel, report: Report, inspector: string | undefined): void {
  /** Connections that are open, and of which requests were told. */
  const asked = new Set<string>()
  tunnel.on('request', (request) => {
    asked.add(request.connection)
    report.request(tunnel, request)
  })
  tunnel.on('connection', async (connection) =>
    report.connection(tunnel, connection, await connection.closed, asked.delete(connection.id)),
  )
  tunnel.on('reject', (rejection) => report.reject(tunnel, rejection))
  tunnel.on('drop', (drop) => report.drop(tunnel, drop))
  let lostAt = 0
  tunnel.on('disconnect', (error) => {
    lostAt = performance.now()
    report.disconnect(tunnel, error)
  })
  tunnel.on('reconnect', () => report.reconnect(tunnel, performance.now() - lostAt))
  report.ready(tunnel, inspector)
}

/** Resolves when the tunnel is gone and nobody is inside any more. */
async function watch(tunnel: Tunnel, report: Report): Promise<void> {
  const error = await tunnel.closed
  if (error) process.exitCode = exit.lost
  report.close(tunnel, error)
  // Visitors inside do not need the link that was lost.
  await tunnel.close({ grace: GRACE })
}
