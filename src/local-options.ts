import { setTimeout } from 'node:timers/promises'
import { type Conditions, readConditions } from './conditions/options.js'
import { type WaitOptions, withDeadline } from './deadline.js'
import { reasonOf, TunnelError } from './errors.js'
import { readHostHeader } from './host-header.js'
import { type InspectOptions, readInspect } from './inspector/recorder.js'
import type { LocalSettings } from './local-settings.js'
import { checkLogger, type Logger } from './logger.js'
import { checkInteger, checkTimeout, invalidOption, MAX_TIMEOUT } from './options.js'
import { checkProxyProtocol, type ProxyProtocol } from './proxy-header.js'
import { parseTarget, type Target } from './target.js'
import { parseRate, type Rate } from './throttle.js'
import { checkLists, visitorFilter } from './visitor-filter.js'

/** Options of the way to the target, the same for {@link openTunnel} and {@link forward}. */
export interface LocalOptions extends WaitOptions {
  /**
   * Tells the target who its visitor is, by a PROXY header in front of the visitor's first byte: version 1 is text, 2 is
   * binary. Default: none.
   */
  proxyProtocol?: ProxyProtocol
  /**
   * The host that HTTP/1 requests are made to name, for targets that answer for hosts they know alone: `'rewrite'` for the
   * target's own, or one such as `'localhost:3000'`. Default: what the visitor sent.
   */
  hostHeader?: string
  /**
   * Most bytes per second in each direction, of all visitors together: a number, or a text such as `'100kb'` or
   * `'1.5mb'`, of which a kb is 1,024 bytes. What one second brings can be saved up. Default: no limit.
   */
  limit?: Rate
  /** A network that is broken on purpose, with latency, loss and more. Default: none. */
  conditions?: Conditions
  /** Records requests of HTTP/1 and their answers, for `tunnel.requests`. Default false. */
  inspect?: boolean | InspectOptions
  /** Visitors that may come, as addresses and ranges: `'192.0.2.7'`, `'10.0.0.0/8'`. At most 64. Default: all. */
  allow?: readonly string[]
  /** Visitors that may not, also where `allow` has them. Default: none. */
  deny?: readonly string[]
  /** Waits for the target to accept a connection: for so many milliseconds, or with `true` for `timeout`. Default false. */
  waitForTarget?: boolean | number
  /** Milliseconds of silence in both directions after which a flow of a UDP tunnel ends. Default 60,000, or what the server says. */
  flowTimeout?: number
  /** Flows of a UDP tunnel at a time; one more ends the one that was silent the longest. Default 1,024, or what the server says. */
  maxFlows?: number
  /** Who is told what happens, such as `pino()` or `console`. Default: nobody. */
  logger?: Logger
  /** Lets the process end while the tunnel is open. Default false. */
  unref?: boolean
  /** Milliseconds until the public address is open. Default 10,000. */
  timeout?: number
}

/** Their names. The type sees to it that none is missing. */
const NAMES: Record<keyof LocalOptions, true> = {
  proxyProtocol: true,
  hostHeader: true,
  limit: true,
  conditions: true,
  inspect: true,
  allow: true,
  deny: true,
  waitForTarget: true,
  flowTimeout: true,
  maxFlows: true,
  logger: true,
  unref: true,
  timeout: true,
  signal: true,
}
export const localNames = Object.keys(NAMES)

/** The options as they are worked with; those of flows are left to whoever knows the defaults. */
export interface CheckedOptions extends LocalSettings {
  flowTimeout: number | undefined
  maxFlows: number | undefined
  allow: readonly string[] | undefined
  deny: readonly string[] | undefined
  waitForTarget: boolean | number
}

/** Checks the options, and fills in the defaults. */
export function readLocalOptions(target: Target, options: LocalOptions): CheckedOptions {
  const {
    proxyProtocol,
    hostHeader,
    limit,
    conditions,
    inspect = false,
    allow,
    deny,
    waitForTarget = false,
    flowTimeout,
    maxFlows,
    logger,
    unref = false,
  } = options
  const parsed = parseTarget(target)
  checkProxyProtocol(proxyProtocol)
  checkLists({ allow, deny })
  checkLogger(logger)
  if (flowTimeout !== undefined) checkTimeout('flowTimeout', flowTimeout)
  if (maxFlows !== undefined) checkInteger('maxFlows', maxFlows, 1, 1_000_000)
  if (typeof waitForTarget !== 'boolean') checkInteger('waitForTarget', waitForTarget, 1, MAX_TIMEOUT)
  if (proxyProtocol && !parsed.takesHeader) {
    const wanted = 'left out for a udp target, and for an HTTP server or handler of this process'
    throw invalidOption('proxyProtocol', wanted, proxyProtocol)
  }
  if (parsed.isUdp && waitForTarget) {
    throw invalidOption('waitForTarget', 'left out for a udp target, which nothing tells of', waitForTarget)
  }
  for (const [name, value] of Object.entries({ flowTimeout, maxFlows })) {
    if (!parsed.isUdp && value !== undefined)
      throw invalidOption(name, 'left out where the target is not udp', value)
  }
  const mayVisit = visitorFilter({ allow, deny })
  const rate = parseRate('limit', limit)
  return {
    target: parsed,
    proxyProtocol,
    hostHeader: readHostHeader(hostHeader, parsed),
    limit: rate,
    conditions: conditions === undefined ? undefined : readConditions(conditions, parsed.isUdp),
    inspect: readInspect(inspect),
    allow,
    deny,
    mayVisit,
    flowTimeout,
    maxFlows,
    waitForTarget,
    logger,
    unref,
  }
}

/** Milliseconds between two attempts to reach a target that is waited for. */
const INTERVAL = 100

/** Resolves when all targets that are waited for accept connections. Rejects with `timeout` or `aborted`. */
export async function waitForTargets(
  locals: readonly CheckedOptions[],
  { timeout = 10_000, signal }: WaitOptions,
): Promise<void> {
  const waitedFor = locals.filter(({ waitForTarget }) => waitForTarget !== false)
  await Promise.all(
    waitedFor.map((local) => {
      const patience = local.waitForTarget === true ? timeout : Number(local.waitForTarget)
      return withDeadline(
        `waiting for the target ${local.target.name}`,
        { timeout: patience, signal },
        (aborted) => waitFor(local, aborted),
      )
    }),
  )
}

async function waitFor({ target, unref }: LocalSettings, aborted: AbortSignal): Promise<void> {
  let last = ''
  while (!aborted.aborted) {
    try {
      const stream = await target.dial({
        unref,
        aborted,
        onDrop() {},
        throttle: undefined,
        network: undefined,
      })
      stream.destroy()
      return
    } catch (error) {
      if (!aborted.aborted) last = ` (${reasonOf(error)})`
    }
    await setTimeout(INTERVAL, undefined, { signal: aborted, ref: !unref }).catch(() => {})
  }
  const { code, message, cause } = aborted.reason as TunnelError
  throw new TunnelError(code, `${message}${last}`, { cause })
}
