import type { ServerResponse } from 'node:http'
import type { Server } from '../server-info.js'
import { EventStreams } from '../web/events.js'
import { readPage } from '../web/files.js'
import { HEADERS } from '../web/guard.js'
import { type Answer, json, type Route } from './routes.js'

/** The page that shows the tunnels. What it shows and closes, it asks the API for. */
export interface Dashboard {
  routes: Route[]
  /** Ends what tells pages that the server is there. */
  close(): void
}

export function dashboardOf(server: Server): Dashboard {
  let files: ReturnType<typeof readPage> | undefined
  const streams = new EventStreams()
  const file = async (name: string): Promise<Answer> => {
    files ??= readPage()
    const { type, bytes } = (await files).get(name || 'index.html') ?? {}
    if (!type || !bytes)
      return json({ error: { code: 'not-found', message: `the page has no ${name}` } }, 404)
    return { status: 200, type, body: bytes.toString(), headers: HEADERS }
  }
  const stream = (response: ServerResponse) => {
    if (!streams.add(response)) response.writeHead(503).end()
  }
  return {
    routes: [
      { path: /^\/(|[a-z]+\.(?:html|css|js))$/, methods: { GET: file } },
      { path: /^\/api\/about$/, methods: { GET: () => json({ title: server.address, views: ['tunnels'] }) } },
      { path: /^\/api\/events$/, methods: { GET: () => ({ ...json({}), stream }) } },
    ],
    close: () => streams.close(),
  }
}
