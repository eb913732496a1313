import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'pipe-tunnel/vitest'
import { expect } from 'vitest'

test('a tunnel opens, and closes with its test', async ({ server, tunnel, onTestFinished }) => {
  const target = http.createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1')
  await once(target, 'listening')
  onTestFinished(() => void target.close())

  const { url } = await tunnel((target.address() as AddressInfo).port)

  expect(await (await fetch(url)).text()).toBe('hello')
  expect(server.tunnels).toHaveLength(1)
})

test('the next test has the same server, without that tunnel', async ({ server }) => {
  await expect.poll(() => server.tunnels).toHaveLength(0)
})
