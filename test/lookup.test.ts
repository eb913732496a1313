import type { promises as dns } from 'node:dns'
import { beforeEach, expect, test, vi } from 'vitest'
import { dialTcp } from '../src/tcp.js'
import { echoTarget } from './helpers/targets.js'

vi.mock('node:dns/promises', () => ({ lookup: vi.fn() }))
const { lookup } = await import('node:dns/promises')
const options = { unref: false, aborted: new AbortController().signal }
const loopback = [{ address: '127.0.0.1', family: 4 }]

beforeEach(() => {
  vi.mocked(lookup as typeof dns.lookup).mockReset()
})

test('a name is looked up once for all who dial it at the same time, and again for the next', async () => {
  await using target = await echoTarget()
  vi.mocked(lookup as (host: string) => Promise<unknown>).mockImplementation(async () => loopback)
  const address = { host: 'app.test', port: target.port }

  const sockets = await Promise.all(Array.from({ length: 20 }, () => dialTcp(address, options)))
  expect(lookup).toHaveBeenCalledTimes(1)

  const next = await dialTcp(address, options)
  expect(lookup).toHaveBeenCalledTimes(2)
  for (const socket of [...sockets, next]) socket.destroy()
})

test('a name that does not resolve fails all who dial it, and is asked for again by the next', async () => {
  vi.mocked(lookup as (host: string) => Promise<unknown>).mockRejectedValue(new Error('no such name'))

  const sockets = Array.from({ length: 5 }, () => dialTcp({ host: 'gone.test', port: 1 }, options))
  for (const outcome of await Promise.allSettled(sockets)) {
    expect(outcome).toMatchObject({ status: 'rejected', reason: { message: 'no such name' } })
  }
  expect(lookup).toHaveBeenCalledTimes(1)
})

test('localhost is not looked up at all', async () => {
  await using target = await echoTarget()
  const socket = await dialTcp({ host: 'localhost', port: target.port }, options)
  expect(lookup).not.toHaveBeenCalled()
  socket.destroy()
})
