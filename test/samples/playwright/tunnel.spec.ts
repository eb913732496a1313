import { test as base, expect, mergeTests } from '@playwright/test'
import { openTunnel } from 'pipe-tunnel'
import { type TunnelFixtures, type TunnelWorkerFixtures, test, tunnelFixtures } from 'pipe-tunnel/playwright'

test('a tunnel opens, and closes with its test', async ({ request, server, tunnel }) => {
  const { url, port } = await tunnel((_, response) => response.end('hello'))
  process.stdout.write(`ports ${server.port} ${port}\n`)

  expect(await (await request.get(url)).text()).toBe('hello')
  expect(server.tunnels).toHaveLength(1)
})

test('the next test has the same server, without that tunnel', async ({ server }) => {
  await expect.poll(() => server.tunnels).toHaveLength(0)
})

test('a webhook is received', async ({ request, server, webhook }) => {
  const hook = await webhook({ reply: { status: 201 } })
  const response = await request.post(hook.url, { data: 'hello' })

  expect(response.status()).toBe(201)
  expect((await hook.waitFor()).text()).toBe('hello')
  expect(server.tunnels).toHaveLength(1)
})

const mine = base.extend<TunnelFixtures, TunnelWorkerFixtures>(tunnelFixtures)
const merged = mergeTests(test, base.extend<{ greeting: string }>({ greeting: 'hello' }))

mine('the fixtures make a test of its own', async ({ tunnel, tunnels }) => {
  const { url } = await tunnel(3000)
  expect(tunnels.log()).toContain(url)
})

merged('the test is merged with another', async ({ greeting, tunnel }) => {
  expect(greeting).toBe('hello')
  await tunnel(3000)
})

test('who forgets to close holds nobody up', async ({ server }) => {
  const { port } = await openTunnel(3000, { server })
  process.stdout.write(`ports ${port}\n`)
})

test('nor does who forgets to wait', ({ tunnel, webhook }) => {
  tunnel(3000)
  webhook()
})
