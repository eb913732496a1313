import { test as withTunnel } from 'pipe-tunnel/vitest'
import { afterAll, expect } from 'vitest'
import { echoTarget } from './helpers/targets.js'
import { ask, visit } from './helpers/visitor.js'

const opened: { host: string; port: number }[] = []

withTunnel('a test opens tunnels through the server of its file', async ({ server, tunnel }) => {
  await using target = await echoTarget()
  const first = await tunnel(target.port)
  const second = await tunnel(target.port, { unref: true })
  opened.push(first, second)

  expect(server.tunnels).toHaveLength(2)
  expect((await ask(first, 'one')).toString()).toBe('one')
  expect((await ask(second, 'two')).toString()).toBe('two')
})

withTunnel('the next test finds them closed, and the server still there', async ({ server, tunnel }) => {
  expect(opened).toHaveLength(2)
  for (const address of opened) await expect(visit(address)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  expect(server.tunnels).toEqual([])
  opened.push(server, await tunnel(3000))
})

afterAll(async () => {
  // What a test forgot to close is closed behind it; the server when the file ends, after this hook.
  await expect(visit(opened[3] as { host: string; port: number })).rejects.toMatchObject({
    code: 'ECONNREFUSED',
  })
})
