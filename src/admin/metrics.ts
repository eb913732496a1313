import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { Protocol } from '../protocol.js'
import type { Server } from '../server-info.js'

const noTunnels: Record<Protocol, number> = { tcp: 0, udp: 0, unix: 0, http: 0 }

/**
 * What a server counts, for Prometheus. Labels have few values, all of them ours: what a client or a visitor chooses would make as many
 * series as they like.
 */
export function serverMetrics(server: Server): Registry {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })

  new Gauge({
    name: 'pipe_tunnels',
    help: 'Tunnels that are open.',
    labelNames: ['protocol'],
    registers,
    collect() {
      const open = { ...noTunnels }
      for (const { protocol } of server.tunnels) open[protocol]++
      for (const [protocol, count] of Object.entries(open)) this.set({ protocol }, count)
    },
  })
  new Gauge({
    name: 'pipe_visitors',
    help: 'Visitors that are inside.',
    registers,
    collect() {
      this.set(server.connections)
    },
  })
  new Counter({
    name: 'pipe_relayed_bytes_total',
    help: 'Bytes from visitors to targets (in), and back (out).',
    labelNames: ['direction'],
    registers,
    // Of open connections too, which no event tells of.
    collect() {
      const { bytesIn, bytesOut } = server.stats
      this.reset()
      this.inc({ direction: 'in' }, bytesIn)
      this.inc({ direction: 'out' }, bytesOut)
    },
  })
  new Counter({
    name: 'pipe_dropped_datagrams_total',
    help: 'Datagrams that were dropped.',
    registers,
    collect() {
      this.reset()
      this.inc(server.stats.drops)
    },
  })

  const opened = new Counter({
    name: 'pipe_opened_tunnels_total',
    help: 'Tunnels that were opened.',
    labelNames: ['protocol'],
    registers,
  })
  const exchanges = new Counter({
    name: 'pipe_exchanges_total',
    help: 'Visitors by what became of them: joined, or the code of the error with which they were turned away.',
    labelNames: ['result'],
    registers,
  })
  const refusals = new Counter({
    name: 'pipe_refusals_total',
    help: 'Clients that were refused, by the code of the error.',
    labelNames: ['code'],
    registers,
  })
  const counter = (name: string, help: string) => new Counter({ name, help, registers })
  const heartbeats = counter('pipe_heartbeats_total', 'Heartbeats that clients have answered.')
  const losses = counter('pipe_lost_clients_total', 'Control connections that were lost.')
  const reconnects = counter('pipe_reconnects_total', 'Clients that were lost and have come back.')

  // What has not happened yet is 0, and not unknown.
  for (const protocol of Object.keys(noTunnels)) opened.inc({ protocol }, 0)
  exchanges.inc({ result: 'joined' }, 0)
  server.on('tunnel', ({ protocol }) => opened.inc({ protocol }))
  server.on('connection', () => exchanges.inc({ result: 'joined' }))
  server.on('reject', ({ error }) => exchanges.inc({ result: error.code }))
  server.on('refuse', ({ error }) => refusals.inc({ code: error.code }))
  server.on('heartbeat', () => heartbeats.inc())
  server.on('disconnect', () => losses.inc())
  server.on('reconnect', () => reconnects.inc())
  return registry
}
