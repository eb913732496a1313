/** The client's own way to the public URL of its tunnel. */
import type { Agent, IncomingMessage, RequestOptions } from 'node:http'
import { reasonOf, TunnelError } from '../errors.js'
import { lookupForConnect } from '../lookup.js'
import { PROBE_PATH } from '../protocol.js'
import { untilItWorks } from '../retry.js'
import { responseTo } from './response.js'

/** Milliseconds that one look at the URL may take. */
const PROBE_TIMEOUT = 5_000
/** What the server answers with is shorter. */
const MAX_ANSWER = 1_024

/** What a server has told of an HTTP tunnel. */
export interface PublicName {
  hostname: string
  url: string
  /** What the server answers with at a path of its own. */
  probe: string
}

export interface ReachOptions {
  /** Gives up. */
  aborted: AbortSignal
  /** Lets the process end while waiting. */
  unref: boolean
  /** Resolves when the tunnel is gone. */
  closed: Promise<TunnelError | undefined>
}

/**
 * Resolves when a request to the URL gets through to its tunnel, with what dials it, also where the name is one in `localhost`. Rejects
 * with `url-unreachable` when the time is up, with why the tunnel is gone, or with the signal's reason.
 */
export async function reach(name: PublicName, { aborted, unref, closed }: ReachOptions): Promise<Agent> {
  const gone = new AbortController()
  closed.then((error) => gone.abort(error ?? new TunnelError('closed', 'the tunnel was closed')))
  await untilReached(name, AbortSignal.any([aborted, gone.signal]), unref)
  const { Agent } = await clientOf(name.url)
  return new Agent({ keepAlive: true, lookup: lookupForConnect, autoSelectFamily: true })
}

async function untilReached(name: PublicName, signal: AbortSignal, unref: boolean): Promise<void> {
  let last: TunnelError | undefined
  const attempt = () =>
    probe(name, signal).catch((error) => {
      last = error as TunnelError
      throw error
    })
  await untilItWorks(attempt, { attempts: Number.POSITIVE_INFINITY, signal, unref }).catch((error) => {
    const isLate = signal.aborted && (signal.reason as TunnelError).code === 'timeout'
    throw isLate ? (last ?? unreachable(name.url, new Error('no answer in time'))) : error
  })
}

async function probe({ url, probe: expected }: PublicName, signal: AbortSignal): Promise<void> {
  const { request } = await clientOf(url)
  const limit = AbortSignal.any([signal, AbortSignal.timeout(PROBE_TIMEOUT)])
  const options: RequestOptions & { rejectUnauthorized: boolean } = {
    agent: false,
    lookup: lookupForConnect,
    signal: limit,
    // Whether visitors trust the certificate is up to them: the authority may be one that only they know.
    rejectUnauthorized: false,
  }
  const answer = await responseTo(request(new URL(PROBE_PATH, url), options).end()).catch((error) => {
    throw signal.aborted ? signal.reason : unreachable(url, error)
  })
  const text = await textOf(answer)
  if (answer.statusCode !== 200 || text !== expected) throw wrongAnswer(url, answer)
}

function clientOf(
  url: string,
): Promise<Pick<typeof import('node:https'), 'request'> & { Agent: typeof Agent }> {
  return url.startsWith('https:') ? import('node:https') : import('node:http')
}

/** The beginning of what it says, and all of what the server would. */
async function textOf(answer: IncomingMessage): Promise<string> {
  let text = ''
  try {
    for await (const chunk of answer.setEncoding('latin1')) {
      text += chunk
      if (text.length > MAX_ANSWER) break
    }
  } catch {
    // It broke off: then it is not what was expected.
  }
  return text
}

function unreachable(url: string, error: NodeJS.ErrnoException): TunnelError {
  const { hostname, protocol, port } = new URL(url)
  const domain = hostname.replace(/^[^.]*\./, '')
  const told = `the tunnel is open, but its URL ${url} can't be reached from here`
  const next =
    error.syscall === 'getaddrinfo'
      ? `let *.${domain} point to the server in DNS`
      : protocol === 'https:' && error.code === 'ECONNREFUSED'
        ? // The server takes http alone.
          `nothing answers at port ${port || 443}: is the proxy that takes https running?`
        : /^(ERR_SSL|ERR_TLS|EPROTO)/.test(error.code ?? '')
          ? `does what stands in front of the server speak TLS for *.${domain}?`
          : domain === 'localhost'
            ? 'names in localhost lead to this machine, so start a server on another with --domain'
            : `does *.${domain} lead to the server, and is its port open?`
  return new TunnelError('url-unreachable', `${told} (${reasonOf(error)}): ${next}`, { cause: error })
}

function wrongAnswer(url: string, { statusCode, headers: { location } }: IncomingMessage): TunnelError {
  const answered = `${statusCode}${location ? `, to ${location}` : ''}`
  const next = location?.startsWith('https:')
    ? 'give the server that origin as its domain, with https:// in front'
    : 'what answers there must pass requests on to the HTTP port of the server, with their Host header'
  return new TunnelError(
    'url-unreachable',
    `the tunnel is open, but its URL ${url} leads elsewhere (it answers ${answered}): ${next}`,
  )
}
