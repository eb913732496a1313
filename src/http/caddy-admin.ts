/** Caddy's admin API (caddyserver.com/docs/api), of which the whole configuration is read and written at once. */
import type { RequestOptions } from 'node:http'
import { isDeepStrictEqual } from 'node:util'
import type { Aborted } from '../deadline.js'
import { printable, reasonOf, TunnelError, toTunnelError } from '../errors.js'
import { untilItWorks } from '../retry.js'
import { dialTcp } from '../tcp.js'
import type { CaddyConfig } from './caddy-config.js'
import { responseTo } from './response.js'

// An import would be hoisted out of this part of the bundle, and loaded by all who import the package.
const http = process.getBuiltinModule('node:http')

/** Most bytes of a configuration. */
const MAX_CONFIG = 16_777_216
/** What Caddy answers where the configuration is not any more the one that was read. */
const PRECONDITION_FAILED = 412

/** Changes that are tried while somebody else changes the configuration at the same time. */
const ATTEMPTS = 20
/** While a configuration is loaded, whoever did that, nobody may answer for a moment. */
const PATIENCE = { attempts: 4, unref: false }

/** The two ends of a connection from this machine to Caddy. */
export interface WayToCaddy {
  /** Address of this machine, at which Caddy can dial it. */
  ours: string
  /** The address that Caddy will come from. */
  its: string
}

/** Rejects with `caddy-unreachable`, or the reason why it was given up. */
export async function findCaddy(admin: URL, aborted: Aborted): Promise<WayToCaddy> {
  const host = admin.hostname.replace(/^\[(.*)\]$/, '$1')
  try {
    const socket = await dialTcp({ host, port: Number(admin.port || 80) }, { unref: false, aborted })
    const { localAddress: ours = host, remoteAddress: its = host } = socket
    socket.destroy()
    return { ours, its }
  } catch (error) {
    throw aborted.aborted ? aborted.reason : unreachable(admin, error)
  }
}

/**
 * Changes the configuration, unless that makes no difference; tells whether it did. Nothing that somebody else changes meanwhile gets
 * lost: the change is made again then. Rejects as `request` does, and with the `TunnelError` that `change` throws.
 */
export async function changeConfig(
  admin: URL,
  signal: AbortSignal,
  change: (config: CaddyConfig | null) => Promise<CaddyConfig | null>,
): Promise<boolean> {
  const ask = (options: RequestOptions, content?: string) =>
    untilItWorks(() => request(admin, { ...options, signal }, content), { ...PATIENCE, signal })
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const { body, etag } = await ask({ method: 'GET' })
    const changed = await changedText(parseConfig(admin, body), change).catch((error) => {
      throw toTunnelError(
        error,
        'caddy-failed',
        `the configuration at ${admin.origin} is not as Caddy has it`,
      )
    })
    if (changed === undefined) return false
    // Any part could be written alone, but each time Caddy loads all of it anew.
    const headers = { 'content-type': 'application/json', ...(etag && { 'if-match': etag }) }
    const { status } = await ask({ method: 'POST', headers }, changed)
    if (status !== PRECONDITION_FAILED) return true
  }
  const message = `the configuration of Caddy at ${admin.origin} was changed ${ATTEMPTS} times meanwhile: try again`
  throw new TunnelError('caddy-failed', message)
}

/** What is to be written; undefined where there is no difference. */
async function changedText(
  config: CaddyConfig | null,
  change: (config: CaddyConfig | null) => Promise<CaddyConfig | null>,
): Promise<string | undefined> {
  const changed = await change(config)
  return isDeepStrictEqual(changed, config) ? undefined : JSON.stringify(changed)
}

function parseConfig(admin: URL, body: string): CaddyConfig | null {
  try {
    const config = JSON.parse(body)
    if (typeof config === 'object' && !Array.isArray(config)) return config
  } catch {
    // Told below.
  }
  const message = `what answers at ${admin.origin} is not the admin API of Caddy: is that at another port?`
  throw new TunnelError('caddy-failed', message)
}

interface Answer {
  status: number
  body: string
  etag: string | undefined
}

/** Rejects with `caddy-unreachable`, with `caddy-failed` for what Caddy does not take, or with the signal's reason. */
async function request(admin: URL, options: RequestOptions, content?: string): Promise<Answer> {
  const sent = http.request(new URL('/config/', admin), { ...options, agent: false })
  try {
    const response = await responseTo(sent.end(content))
    let body = ''
    for await (const chunk of response.setEncoding('utf8')) {
      body += chunk
      if (body.length > MAX_CONFIG) throw tooLong(admin)
    }
    const { statusCode: status = 0, headers, trailers } = response
    if (status !== 200 && status !== PRECONDITION_FAILED) throw refused(admin, options.method, status, body)
    return { status, body, etag: trailers.etag ?? headers.etag }
  } catch (error) {
    sent.destroy()
    if (options.signal?.aborted) throw options.signal.reason
    if (error instanceof TunnelError) throw error
    throw unreachable(admin, error)
  }
}

function unreachable(admin: URL, error: unknown): TunnelError {
  const message = `no Caddy answers at ${admin.origin} (${reasonOf(error)}): is it running, and is its admin API there?`
  return new TunnelError('caddy-unreachable', message, { cause: error })
}

function tooLong({ origin }: URL): TunnelError {
  const message = `what answers at ${origin} says more than ${MAX_CONFIG} characters: is that the admin API of Caddy?`
  return new TunnelError('caddy-failed', message)
}

function refused({ origin }: URL, method: string | undefined, status: number, body: string): TunnelError {
  // `{"error":"…"}`
  const reason = /"error":\s*"((?:[^"\\]|\\.)*)"/.exec(body)?.[1] ?? body
  const told = [status, printable(reason).slice(0, 500)].filter(Boolean).join(', ')
  const message =
    method === 'GET'
      ? `what answers at ${origin} does not tell its configuration (${told}): is that the admin API of Caddy, and open to this machine?`
      : `Caddy did not take its new configuration (${told}): its log may tell more`
  return new TunnelError('caddy-failed', message)
}
