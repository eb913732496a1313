import type { promises as dns } from 'node:dns'
import { beforeEach, expect, test, vi } from 'vitest'
import { connected, dial } from '../src/tcp.js'
import { echoTarget } from './helpers/targets.js'

vi.mock('node:dns/promises', () => ({ lookup: vi.fn() }))
const { lookup } = await import('node:dns/promises')
const loopback = [{ address: '127.0.0.1', family: 4 }]

beforeEach(() => {
  vi.mocked(lookup as typeof dns.lookup).mockReset()
})

test('a name is looked up once for all who dial it at the same time, and again for the next', async () => {
  await using target = await echoTarget()
  vi.mocked(lookup as (host: string) => Promise<unknown>).mockImplementation(async () => loopback)
  const address = { host: 'app.test', port: target.port }

  const sockets = Array.from({ length: 20 }, () => dial(address, false))
  await Promise.all(sockets.map((socket) => connected(socket)))
  expect(lookup).toHaveBeenCalledTimes(1)

  const next = dial(address, false)
  await connected(next)
  expect(lookup).toHaveBeenCalledTimes(2)
  for (const socket of [...sockets, next]) socket.destroy()
})

test('a name that does not resolve fails all who dial it, and is asked for again by the next', async () => {
  vi.mocked(lookup as (host: string) => Promise<unknown>).mockRejectedValue(new Error('no such name'))

  const sockets = Array.from({ length: 5 }, () => dial({ host: 'gone.test', port: 1 }, false))
  for (const outcome of await Promise.allSettled(sockets.map((socket) => connected(socket)))) {
    expect(outcome).toMatchObject({ status: 'rejected', reason: { message: 'no such name' } })
  }
  expect(lookup).toHaveBeenCalledTimes(1)
})

test('localhost is not looked up at all', async () => {
  await using target = await echoTarget()
  const socket = dial({ host: 'localhost', port: target.port }, false)
  await connected(socket)
  expect(lookup).not.toHaveBeenCalled()
  socket.destroy()
})
