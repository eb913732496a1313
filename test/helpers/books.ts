/** What targets have seen, and what a server says of it in its metrics. */
import type net from 'node:net'
import type { SampleTarget } from './targets.js'
import type { UdpTarget } from './udp.js'

/** Metrics of `pipe`, by name and labels. */
export type Metrics = Record<string, number>

/** Keeps the books of these targets from now on; gives what the metrics of their server must be. */
export function keepBooks(targets: SampleTarget[], echo: UdpTarget): () => Metrics {
  const sockets: net.Socket[] = []
  for (const { server } of targets) server.on('connection', (socket) => sockets.push(socket))
  const senders = new Set<number>()
  let echoed = 0
  echo.socket.on('message', ({ length }, { port }) => {
    senders.add(port)
    echoed += length
  })
  return () => {
    const sum = (count: (socket: net.Socket) => number) =>
      sockets.reduce((total, socket) => total + count(socket), 0)
    return {
      'pipe_relayed_bytes_total{direction="in"}': sum(({ bytesRead }) => bytesRead) + echoed,
      'pipe_relayed_bytes_total{direction="out"}': sum(({ bytesWritten }) => bytesWritten) + echoed,
      'pipe_exchanges_total{result="joined"}': sockets.length + senders.size,
      pipe_visitors: sum(({ closed }) => (closed ? 0 : 1)) + senders.size,
      pipe_dropped_datagrams_total: 0,
    }
  }
}

/** What the administration tells now. */
export async function readMetrics(admin: string, secret: string): Promise<Metrics> {
  const response = await fetch(`${admin}/metrics`, { headers: { authorization: `Bearer ${secret}` } })
  const text = await response.text()
  const lines = [...text.matchAll(/^(pipe_\S+) (\d+)$/gm)]
  return Object.fromEntries(lines.map(([, name, value]) => [name, Number(value)]))
}
