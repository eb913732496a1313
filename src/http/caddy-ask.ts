/** Answers Caddy whether a name may have a certificate. */
import { once } from 'node:events'
import type { ClientRequest } from 'node:http'
import type net from 'node:net'
import { formatAddress } from '../address.js'
import { listening } from '../listener.js'
import { askPath } from './caddy-config.js'
import { responseTo } from './response.js'

// An import would be hoisted out of this part of the bundle, and loaded by all who import the package.
const http = process.getBuiltinModule('node:http')

/** How long another server may take to say that it is there, in milliseconds. */
const ANSWER_TIMEOUT = 1_000
/** Longest that it may be: a domain. */
const MAX_ANSWER = 255

export interface AskListener {
  readonly url: string
  close(): Promise<void>
}

/** Approves exactly the names that are in use. Listens at an address of this machine that Caddy dials. */
export async function listenForAsk(
  host: string,
  domain: string,
  isInUse: (hostname: string) => boolean,
): Promise<AskListener> {
  const path = askPath(domain)
  const server = http.createServer((request, response) => {
    const [where, query = ''] = (request.url ?? '').split('?')
    const hostname = new URLSearchParams(query).get('domain')?.toLowerCase()
    const isKnown = where === path && (hostname === undefined || isInUse(hostname))
    response.writeHead(isKnown ? 200 : 404).end(isKnown ? domain : undefined)
  })
  // The server that it belongs to decides whether the process goes on.
  server.unref().listen(0, host)
  await listening(server, formatAddress({ host, port: 0 }))
  const { port } = server.address() as net.AddressInfo
  return {
    url: `http://${formatAddress({ host, port })}${path}`,
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

/** Whether the server answers that told Caddy to ask there. */
export async function isAnswered(ask: string): Promise<boolean> {
  const signal = AbortSignal.timeout(ANSWER_TIMEOUT)
  let sent: ClientRequest | undefined
  try {
    sent = http.get(ask, { agent: false, signal })
    const response = await responseTo(sent)
    let body = ''
    for await (const chunk of response.setEncoding('utf8')) {
      body += chunk
      if (body.length > MAX_ANSWER) return false
    }
    return response.statusCode === 200 && ask.endsWith(askPath(body))
  } catch {
    return false
  } finally {
    sent?.destroy()
  }
}
