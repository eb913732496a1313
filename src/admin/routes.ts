import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { reasonOf } from '../errors.js'
import type { Server } from '../server-info.js'
import { type Denial, guard } from './guard.js'
import { listingOf, showTunnel } from './listing.js'
import { serverMetrics } from './metrics.js'

export interface Answer {
  status: number
  type: string
  body: string
  headers?: OutgoingHttpHeaders
  /** Writes the answer itself, and goes on for as long as it is read. */
  stream?(response: ServerResponse): void
}

type Handler = (parameter: string, query: URLSearchParams) => Answer | Promise<Answer>

/** What is at a path, by method. Its last word is for a handler. */
export interface Route {
  path: RegExp
  isOpen?: true
  methods: Record<string, Handler>
}

/** What the administration of a server serves. It counts from now on. */
export function routesOf(server: Server, more: readonly Route[]): Route[] {
  const listing = listingOf(server)
  const metrics = serverMetrics(server)
  const find = (id: string) => server.tunnels.find((one) => one.id === id)
  return [
    { path: /^\/healthz$/, isOpen: true, methods: { GET: () => json({ status: 'alive' }) } },
    {
      path: /^\/readyz$/,
      isOpen: true,
      methods: {
        GET: () =>
          server.closing
            ? failure({ status: 503, code: 'server-closed', message: 'the server is closing' })
            : json({ status: 'ready' }),
      },
    },
    {
      path: /^\/metrics$/,
      methods: {
        GET: async () => ({ status: 200, type: metrics.contentType, body: await metrics.metrics() }),
      },
    },
    ...more,
    { path: /^\/api\/tunnels$/, methods: { GET: () => json({ tunnels: listing.tunnels() }) } },
    {
      path: /^\/api\/connections$/,
      methods: { GET: (_, query) => json(listing.connections(query.get('tunnel') ?? undefined)) },
    },
    {
      path: /^\/api\/tunnels\/([0-9a-z]{1,64})$/,
      methods: {
        GET(id) {
          const tunnel = find(id)
          return tunnel ? json({ tunnel: showTunnel(tunnel) }) : noTunnel(id)
        },
        DELETE(id) {
          const tunnel = find(id)
          if (!tunnel) return noTunnel(id)
          const shown = showTunnel(tunnel)
          tunnel.close()
          return json({ tunnel: shown })
        },
      },
    },
  ]
}

/** Never rejects. */
export async function answerTo(
  request: IncomingMessage,
  routes: Route[],
  secret: string | undefined,
): Promise<Answer> {
  const [path = '', query = ''] = (request.url ?? '').split('?', 2)
  const route = routes.find((one) => one.path.test(path))
  const denial = route?.isOpen ? undefined : guard(request, secret)
  if (denial) return failure(denial)
  if (!route) {
    const message = 'nothing is here: see docs/admin.md for what there is, such as /api/tunnels'
    return failure({ status: 404, code: 'not-found', message })
  }
  const { method = '' } = request
  const handler = Object.hasOwn(route.methods, method)
    ? route.methods[method]
    : method === 'HEAD'
      ? route.methods.GET
      : undefined
  if (!handler) {
    const allow = Object.keys(route.methods).join(', ').replace('GET', 'GET, HEAD')
    const message = `${method} is not for ${path}: use ${allow}`
    return failure({ status: 405, code: 'method-not-allowed', message, headers: { allow } })
  }
  try {
    return await handler(route.path.exec(path)?.[1] ?? '', new URLSearchParams(query))
  } catch (error) {
    return failure({ status: 500, code: 'internal', message: `it can't be answered (${reasonOf(error)})` })
  }
}

function noTunnel(id: string): Answer {
  const message = `no tunnel ${id} is open at this server: pipe status lists those that are`
  return failure({ status: 404, code: 'not-found', message })
}

export function json(value: object, status = 200, headers = {}): Answer {
  return { status, type: 'application/json', body: `${JSON.stringify(value)}\n`, headers }
}

function failure({ status, code, message, headers }: Denial): Answer {
  return json({ error: { code, message } }, status, headers)
}
