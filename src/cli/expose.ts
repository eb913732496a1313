import { TunnelError } from '../errors.js'
import { openTunnels, type WantedTunnel } from '../open-tunnel.js'
import { invalidOption } from '../options.js'
import type { Tunnel } from '../tunnel.js'
import { exit, fail, onEndSignals } from './exit.js'
import { jsonReport, type Report, textReport } from './report.js'
import { readSecret, type SecretOptions } from './secret.js'

/** How long visitors get to finish at the first Ctrl-C, in milliseconds. */
const GRACE = 5_000

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
  try {
    const wanted = targets.map(parseWanted)
    if (options.port !== undefined) {
      if (wanted.length > 1)
        throw invalidOption('--port', 'given with one target alone (write 8080:3000)', options.port)
      wanted[0] = { ...(wanted[0] as WantedTunnel), port: options.port }
    }
    const opening = new AbortController()
    const stop = onEndSignals(() => opening.abort())
    const tunnels = await openTunnels(wanted, {
      server: options.to,
      secret: readSecret(options),
      signal: opening.signal,
    }).finally(stop)
    await serve(tunnels, report)
  } catch (error) {
    if (error instanceof TunnelError && error.code === 'aborted') return
    report.error(error)
    fail(error)
  }
}

/** A target of the command line, with the public port in front where one is asked for: `8080:host:3000`. */
export function parseWanted(text: string): WantedTunnel {
  const [, port, target] = /^(\d+):(.+)$/.exec(text) ?? []
  return target ? { target, port: Number(port) } : { target: text, port: 0 }
}

async function serve(tunnels: Tunnel[], report: Report): Promise<void> {
  for (const tunnel of tunnels) {
    tunnel.on('connection', async (connection) =>
      report.connection(tunnel, connection, await connection.closed),
    )
    tunnel.on('reject', (rejection) => report.reject(tunnel, rejection))
    report.ready(tunnel)
  }
  const stop = onEndSignals((count) => {
    const visitors = tunnels.reduce((sum, tunnel) => sum + tunnel.connections, 0)
    if (count === 1) report.closing(visitors)
    for (const tunnel of tunnels) tunnel.close({ grace: count === 1 ? GRACE : 0 })
  })
  await Promise.all(
    tunnels.map(async (tunnel) => {
      const error = await tunnel.closed
      report.close(tunnel, error)
      if (error) process.exitCode = exit.lost
    }),
  )
  stop()
  // Where the link was lost, visitors may still be inside.
  await Promise.all(tunnels.map((tunnel) => tunnel.close()))
}
