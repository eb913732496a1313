import type { Tunnel } from '../tunnel.js'

/** The page that shows the requests of tunnels, while it is served. */
export interface Inspector {
  readonly url: string
  /** Shows those of one more tunnel. */
  add(tunnel: Tunnel): void
  /** Shows those of a tunnel no more. */
  remove(tunnel: Tunnel): void
  close(): Promise<void>
}

/** Serves the page, without tunnels. */
export async function serveInspector(): Promise<Inspector> {
  // Loaded by who wants it alone.
  const [{ serveWeb }, { requestsApi }] = await Promise.all([
    import('../web/server.js'),
    import('../inspector-page.js'),
  ])
  const api = requestsApi([])
  const { url, close } = await serveWeb(api)
  return { url, close, add: (tunnel) => api.add(tunnel), remove: (tunnel) => api.remove(tunnel) }
}
