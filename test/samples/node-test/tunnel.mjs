import assert from 'node:assert/strict'
import test from 'node:test'
import { openTunnel } from 'pipe-tunnel'
import { useTunnels } from 'pipe-tunnel/node-test'

for (const name of ['one test', 'another beside it']) {
  test(name, { concurrency: true }, async (t) => {
    const { tunnel, server } = useTunnels(t)
    const { url, port } = await tunnel((_, response) => response.end('hello'))
    const { port: serverPort, tunnels } = await server()
    process.stdout.write(`ports ${serverPort} ${port}\n`)

    assert.equal(await (await fetch(url)).text(), 'hello')
    assert.equal(tunnels.length, 1)
  })
}

test('a webhook is received', async (t) => {
  const { webhook } = useTunnels(t)
  const hook = await webhook({ reply: { status: 201 } })
  const response = await fetch(hook.url, { method: 'POST', body: 'hello' })

  assert.equal(response.status, 201)
  assert.equal((await hook.waitFor()).text(), 'hello')
})

test('who forgets to close holds nobody up', async (t) => {
  const { server, webhook } = useTunnels(t)
  const { port } = await openTunnel(3000, { server: await server() })
  process.stdout.write(`ports ${port}\n`)
  webhook()
})
