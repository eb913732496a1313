import { openTunnel } from 'pipe-tunnel'
import { type TunnelFixtures, test, tunnelFixtures } from 'pipe-tunnel/vitest'
import { test as base, expect } from 'vitest'

test('a tunnel opens, and closes with its test', async ({ server, tunnel }) => {
  const { url, port } = await tunnel((_, response) => response.end('hello'))
  process.stdout.write(`ports ${server.port} ${port}\n`)

  expect(await (await fetch(url)).text()).toBe('hello')
  expect(server.tunnels).toHaveLength(1)
})

test('the next test has the same server, without that tunnel', async ({ server }) => {
  await expect.poll(() => server.tunnels).toHaveLength(0)
})

test('a webhook is received', async ({ server, webhook }) => {
  const hook = await webhook({ reply: { status: 201 } })
  const response = await fetch(hook.url, { method: 'POST', body: 'hello' })

  expect(response.status).toBe(201)
  expect((await hook.waitFor()).text()).toBe('hello')
  expect(server.tunnels).toHaveLength(1)
})

const mine = base.extend<TunnelFixtures>(tunnelFixtures).extend<{ greeting: string }>({
  greeting: async ({ tunnel }, use) => {
    const { url } = await tunnel((_, response) => response.end('hello'))
    await use(await (await fetch(url)).text())
  },
})

mine('fixtures of others build on these', ({ greeting }) => {
  expect(greeting).toBe('hello')
})

test.concurrent('tests side by side have each their own', async ({ tunnel, tunnels }) => {
  const { port } = await tunnel(3000)
  expect(tunnels.log().match(/:\d+ {2}open/g)).toEqual([`:${port}  open`])
})

test.concurrent('the other of them', async ({ tunnel, tunnels }) => {
  const { port } = await tunnel(3000)
  expect(tunnels.log().match(/:\d+ {2}open/g)).toEqual([`:${port}  open`])
})

test('who forgets to close holds nobody up', async ({ server }) => {
  const { port } = await openTunnel(3000, { server })
  process.stdout.write(`ports ${port}\n`)
})

test('nor does who forgets to wait', ({ tunnel, webhook }) => {
  tunnel(3000)
  webhook()
})
