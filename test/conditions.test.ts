/** A network that is broken on purpose. Times are compared with those of the same tunnel without conditions. */
import { once } from 'node:events'
import net from 'node:net'
import { pEvent } from 'p-event'
import { type Conditions, type Connection, forward, openTunnel, type Rejection, type Tunnel } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { echoTarget, tcpTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

/** How often a measurement that other work has disturbed is taken again. */
const retry = 4

describe('latency', () => {
  test.each([
    ['of both directions', { latency: 60 }, 120],
    ['of one direction', { in: { latency: 80 } }, 80],
    ['of the other', { latency: 10, out: { latency: 50 } }, 60],
  ] as const)('%s is added to each answer', { retry }, async (_which, conditions, added) => {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { conditions: {} })
    const visitor = await visit(tunnel)
    await roundTrip(visitor)
    const without = await medianOf(15, () => roundTrip(visitor))
    tunnel.setConditions(conditions)
    const trip = await medianOf(15, () => roundTrip(visitor))

    expect(Math.abs(trip - without - added)).toBeLessThan(Math.max(5, added / 10))
  })
})

async function roundTrip(socket: net.Socket): Promise<number> {
  const start = performance.now()
  socket.write('ping')
  await once(socket, 'data')
  return performance.now() - start
}

async function medianOf(count: number, measure: () => Promise<number>): Promise<number> {
  const values: number[] = []
  for (let i = 0; i < count; i++) values.push(await measure())
  return values.sort((one, other) => one - other)[count >> 1] as number
}
