import { setTimeout as wait } from 'node:timers/promises'
import type { Address } from '../address.js'
import { withDeadline } from '../deadline.js'
import { TunnelError, toTunnelError } from '../errors.js'
import { changeConfig } from './caddy-admin.js'
import { type AskListener, isAnswered, listenForAsk } from './caddy-ask.js'
import { askOf, type CaddyConfig, type Site, withoutSite, withSite } from './caddy-config.js'

/** Options of {@link configureCaddy}. */
export interface CaddyOptions {
  /** Caddy's admin API. */
  admin: URL
  /** What the names of tunnels end with. */
  domain: string
  /** Where requests for these names go, as Caddy dials it. It asks its questions at another port there. */
  upstream: Address
  /** Whether a tunnel has this name, `name.domain`; only then Caddy obtains a certificate for it. */
  isInUse(hostname: string): boolean
  /** Caddy does not answer any more, or can't do what it is asked for. It is tried again. */
  onLost(error: TunnelError): void
  /** Caddy had lost the configuration, or was lost, and has it again. */
  onBack(): void
  /** Gives up what comes before it is configured. */
  aborted: AbortSignal
}

/** A Caddy that is configured. */
export interface Caddy {
  /** Takes out of Caddy's configuration what was put there. */
  close(): Promise<void>
}

/** How often it is looked whether Caddy still has the configuration, in milliseconds. A reload or a restart takes it away. */
const LOOK_INTERVAL = 5_000
/** How long one look, and the removal, may take. */
const LOOK_TIMEOUT = 10_000

/**
 * Has a running Caddy take https for all names of a domain, and resolves when it does. This is the only time that it is
 * configured: Caddy closes everybody's WebSockets when its configuration changes. Which names have a tunnel it asks us, at the first
 * visit of each. Rejects with `caddy-unreachable`, `caddy-conflict`, `caddy-failed`, or the
 * signal's reason.
 */
export async function configureCaddy(options: CaddyOptions): Promise<Caddy> {
  const { upstream, domain, isInUse, aborted } = options
  const ask = await listenForAsk(upstream.host, domain, isInUse)
  try {
    const caddy = new ConfiguredCaddy(ask, options)
    await caddy.start(aborted)
    return caddy
  } catch (error) {
    await ask.close()
    throw error
  }
}

class ConfiguredCaddy implements Caddy {
  readonly #admin: URL
  readonly #ask: AskListener
  readonly #site: Site
  readonly #options: CaddyOptions
  readonly #closing = new AbortController()
  /** Why Caddy does not do what it should. */
  #lost: TunnelError | undefined
  #watching: Promise<void> | undefined
  #closed: Promise<void> | undefined

  constructor(ask: AskListener, options: CaddyOptions) {
    const { admin, domain, upstream } = options
    this.#admin = admin
    this.#ask = ask
    this.#site = { domain, upstream, ask: ask.url }
    this.#options = options
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#configure(signal)
    this.#watching = this.#watch()
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  /** Sees to it that Caddy has the site; tells whether that took a change. */
  #configure(signal: AbortSignal): Promise<boolean> {
    return changeConfig(this.#admin, signal, async (config) => {
      await this.#checkAlone(config)
      return withSite(config, this.#site)
    })
  }

  /** A site that was left behind by a process that died is replaced; one of another that runs is not. */
  async #checkAlone(config: CaddyConfig | null): Promise<void> {
    const { domain, ask } = this.#site
    const other = askOf(config, domain)
    if (other === undefined || other === ask || !(await isAnswered(other))) return
    const message = `another pipe server has this Caddy take *.${domain}: close it, or use another Caddy`
    throw new TunnelError('caddy-conflict', message)
  }

  /** Looks again and again: a reload or a restart of Caddy takes away what it was told here. */
  async #watch(): Promise<void> {
    const { signal } = this.#closing
    for (;;) {
      await wait(LOOK_INTERVAL, undefined, { signal, ref: false }).catch(() => {})
      if (signal.aborted) return
      await this.#look()
    }
  }

  async #look(): Promise<void> {
    const { onLost, onBack } = this.#options
    const { signal } = this.#closing
    try {
      const isChanged = await withDeadline(
        `an answer of Caddy at ${this.#admin.origin}`,
        { timeout: LOOK_TIMEOUT, signal, unref: true },
        (aborted) => this.#configure(aborted),
      )
      if (isChanged || this.#lost) onBack()
      this.#lost = undefined
    } catch (error) {
      if (signal.aborted) return
      const lost = toTunnelError(error, 'caddy-failed', 'Caddy could not be configured again')
      if (lost.code !== this.#lost?.code) onLost(lost)
      this.#lost = lost
    }
  }

  async #close(): Promise<void> {
    this.#closing.abort()
    await this.#watching
    const { domain } = this.#site
    try {
      await withDeadline(
        `taking *.${domain} out of Caddy's configuration`,
        { timeout: LOOK_TIMEOUT },
        (aborted) => changeConfig(this.#admin, aborted, async (config) => withoutSite(config, domain)),
      )
    } catch (error) {
      // One that is gone has nothing of ours any more.
      if (!(error instanceof TunnelError) || error.code === 'caddy-unreachable') return
      this.#options.onLost(error)
    } finally {
      await this.#ask.close()
    }
  }
}
