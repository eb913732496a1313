/** What the server answers by itself. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { TunnelError } from '../errors.js'

/** Why a request goes no further. */
export interface Refusal {
  status: number
  /** For people. */
  sentence: string
  headers?: Record<string, string>
  /** Whether nothing more is to be read from this visitor. */
  ends?: boolean
}

/** Answers with a page, or in text for who does not read HTML. */
export function refuse(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
  const { status, sentence, headers = {}, ends = false } = refusal
  if (ends) response.shouldKeepAlive = false
  const isHtml = /\btext\/html\b/i.test(request.headers.accept ?? '')
  const reason = TITLES[status] ?? ''
  const title = `${status} ${reason}`
  const body = isHtml ? page(title, sentence) : `${title}\n\n${sentence}\n`
  // One that could not be passed back may have left its own reason there.
  response.writeHead(status, reason, {
    'Content-Type': `text/${isHtml ? 'html' : 'plain'}; charset=utf-8`,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    ...headers,
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}

/** How a visitor is told that its request does not get through to the target. */
export function refusalOf(error: unknown, hostname: string): Refusal {
  const code = error instanceof TunnelError ? error.code : undefined
  switch (code) {
    case 'visitor-denied':
      return { status: 403, sentence: 'Your address may not visit this tunnel.' }
    case 'limit-reached':
      return { status: 503, sentence: `The tunnel ${hostname} takes no more visitors now: try again later.` }
    case 'exchange-expired':
      return { status: 504, sentence: `The client of the tunnel ${hostname} did not answer in time.` }
    case 'target-unreachable':
      return {
        status: 502,
        sentence: `The tunnel ${hostname} is open, but what it leads to can't be reached.`,
      }
    case 'connection-lost':
    case 'closed':
    case 'server-closed':
      return { status: 502, sentence: `The tunnel ${hostname} has lost its client, or was closed.` }
    default:
      return {
        status: 502,
        sentence: `What the tunnel ${hostname} leads to broke off, or did not answer in HTTP.`,
      }
  }
}

const TITLES: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

/** Readable on any screen, by day and night. */
const STYLE =
  ':root{color-scheme:light dark;font:1.1rem/1.5 system-ui,sans-serif}body{max-width:36rem;margin:15vh auto;padding:0 1rem}'

function page(title: string, sentence: string): string {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escapeHtml(title)}</title><style>${STYLE}</style><h1>${escapeHtml(title)}</h1><p>${escapeHtml(sentence)}</p></html>\n`
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`)
}
