import { isAnyAddress } from '../address.js'
import type { TunnelError } from '../errors.js'
import type { CaddySettings, HttpSettings } from '../http-options.js'
import { visitorFilter } from '../visitor-filter.js'
import { configureCaddy } from './caddy.js'
import { findCaddy } from './caddy-admin.js'
import { type Front, type FrontOptions, openFront } from './front.js'

export interface BehindCaddyOptions extends FrontOptions {
  aborted: AbortSignal
  /** Caddy was lost or, without an error, is back. */
  onCaddy(error?: TunnelError): void
}

/**
 * Opens the HTTP port where Caddy finds it, and has Caddy take https for its names. Rejects as `openFront` and
 * `configureCaddy` do.
 */
export async function openBehindCaddy(
  settings: HttpSettings,
  { admin, showsHost, showsProxy }: CaddySettings,
  { onCaddy, ...options }: BehindCaddyOptions,
): Promise<Front> {
  const { ours, its } = await findCaddy(admin, options.aborted)
  const hosts = showsHost ? [ours] : settings.hosts
  const isTrusted = showsProxy ? visitorFilter({ allow: [its] }) : settings.isTrusted
  const front = await openFront({ ...settings, hosts, isTrusted }, options)
  const [first = ours] = hosts
  const host = hosts.some((one) => one === ours || isAnyAddress(one)) ? ours : first
  try {
    const caddy = await configureCaddy({
      admin,
      domain: settings.domain,
      upstream: { host, port: front.port },
      isInUse: (name) => front.names.has(name),
      onLost: onCaddy,
      onBack: onCaddy,
      aborted: options.aborted,
    })
    return {
      ...front,
      async finish(grace) {
        // Caddy would cut the WebSockets of those who have been given time to finish.
        await front.finish(grace)
        await caddy.close()
      },
    }
  } catch (error) {
    front.stop()
    await front.finish(0)
    throw error
  }
}
