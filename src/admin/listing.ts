import type { Connection } from '../connection.js'
import type { Server } from '../server-info.js'
import { formatTunnel, type TunnelInfo } from '../tunnel-info.js'

/** Visitors that are listed at the most: as many as anybody reads. */
const MAX_LISTED = 1_000

/** What the administration shows of a server. */
export interface Listing {
  tunnels(): object[]
  /** Visitors inside, the last first, and how many there are in all; of all tunnels where none is named. */
  connections(tunnel: string | undefined): { connections: object[]; total: number }
}

/** Listens from now on for who comes. */
export function listingOf(server: Server): Listing {
  const inside = new Map<Connection, { tunnel: TunnelInfo; joinedAt: Date }>()
  server.on('connection', (connection, tunnel) => {
    inside.set(connection, { tunnel, joinedAt: new Date() })
    connection.closed.then(() => inside.delete(connection))
  })
  return {
    tunnels: () => server.tunnels.map(showTunnel),
    connections(id) {
      const all = [...inside].filter(([, { tunnel }]) => id === undefined || tunnel.id === id)
      const connections = all
        .slice(-MAX_LISTED)
        .reverse()
        .map(([{ id, visitor, bytesIn, bytesOut }, { tunnel, joinedAt }]) => {
          return { id, tunnel: tunnel.id, visitor, joinedAt, bytesIn, bytesOut }
        })
      return { connections, total: all.length }
    },
  }
}

export function showTunnel(tunnel: TunnelInfo): object {
  const { id, protocol, host, port, path = null, hostname = null, url = null } = tunnel
  const { client, secretName = null, openedAt, connections, stats } = tunnel
  const address = formatTunnel(tunnel)
  const place = { address, host, port, path, hostname, url }
  return { id, protocol, ...place, client, secretName, openedAt, connections, stats }
}
