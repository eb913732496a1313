import { TunnelError } from '../errors.js'
import { openTunnels, type WantedTunnel } from '../open-tunnel.js'
import { invalidOption } from '../options.js'
import type { Tunnel } from '../tunnel.js'
import { exit, fail, GRACE, onEndSignals } from './exit.js'
import { jsonReport, type Report, textReport } from './report.js'
import { readSecret, type SecretOptions } from './secret.js'

interface ExposeOptions extends SecretOptions {
  to?: string
  port?: number
  json?: boolean
  quiet?: boolean
}

/** `pipe expose`: runs until it is told to end, or the link is lost. */
export async function expose(targets: string[], options: ExposeOptions): Promise<void> {
  const report = options.json
    ? jsonReport()
    : textReport({ quiet: options.quiet ?? false, many: targets.length > 1 })
  const opening = new AbortController()
  let tunnels: Tunnel[] = []
  // Before anything is printed: a script may answer the URL with a signal at once.
  const stopListening = onEndSignals((count) => {
    opening.abort()
    if (count === 1) report.closing(tunnels.reduce((sum, tunnel) => sum + tunnel.connections, 0))
    for (const tunnel of tunnels) tunnel.close({ grace: count === 1 ? GRACE : 0 })
  })
  try {
    const secret = readSecret(options)
    tunnels = await openTunnels(readTargets(targets, options.port), {
      server: options.to,
      secret,
      signal: opening.signal,
    })
    for (const tunnel of tunnels) announce(tunnel, report)
    report.open(tunnels)
    await Promise.all(tunnels.map((tunnel) => watch(tunnel, report)))
  } catch (error) {
    if (error instanceof TunnelError && error.code === 'aborted') return
    report.error(error)
    fail(error)
  } finally {
    stopListening()
  }
}

function readTargets(targets: string[], port: number | undefined): WantedTunnel[] {
  const wanted = targets.map(parseWanted)
  if (port === undefined) return wanted
  if (wanted.some((one) => one.port !== 0)) {
    throw invalidOption('--port', 'left out where the target names a public port', port)
  }
  if (wanted.length > 1) throw invalidOption('--port', 'given with one target alone (write 8080:3000)', port)
  return wanted.map(({ target }) => ({ target, port }))
}

/** A target of the command line, with the public port in front where one is asked for: `8080:host:3000`. */
export function parseWanted(text: string): WantedTunnel {
  const [, port, target] = /^(\d+):(.+)$/.exec(text) ?? []
  return target ? { target, port: Number(port) } : { target: text, port: 0 }
}

function announce(tunnel: Tunnel, report: Report): void {
  tunnel.on('connection', async (connection) =>
    report.connection(tunnel, connection, await connection.closed),
  )
  tunnel.on('reject', (rejection) => report.reject(tunnel, rejection))
  report.ready(tunnel)
}

/** Resolves when the tunnel is gone and nobody is inside any more. */
async function watch(tunnel: Tunnel, report: Report): Promise<void> {
  const error = await tunnel.closed
  if (error) process.exitCode = exit.lost
  report.close(tunnel, error)
  // Visitors inside do not need the link that was lost.
  await tunnel.close({ grace: GRACE })
}
