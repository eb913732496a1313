const { openTunnel } = require('pipe-tunnel')
const { useTunnels } = require('pipe-tunnel/jest')

const { tunnel, webhook, server } = useTunnels()

test('a tunnel opens, and closes with its test', async () => {
  const { url, port } = await tunnel((_, response) => response.end('hello'))
  process.stdout.write(`ports ${(await server()).port} ${port}\n`)

  expect(await (await fetch(url)).text()).toBe('hello')
  expect((await server()).tunnels).toHaveLength(1)
})

test('the next test has the same server, without that tunnel', async () => {
  expect((await server()).tunnels).toHaveLength(0)
})

test('a webhook is received', async () => {
  const hook = await webhook({ reply: { status: 201 } })
  const response = await fetch(hook.url, { method: 'POST', body: 'hello' })

  expect(response.status).toBe(201)
  expect((await hook.waitFor()).text()).toBe('hello')
})

test('who forgets to close holds nobody up', async () => {
  const { port } = await openTunnel(3000, { server: await server() })
  process.stdout.write(`ports ${port}\n`)
})

test('nor does who forgets to wait', () => {
  tunnel(3000)
  webhook()
})
