import net from 'node:net'
import { test as withTunnel } from 'pipe-tunnel/vitest'
import { afterAll, expect, vi } from 'vitest'
import { TestTunnels } from '../fixtures/shared/test-tunnels.js'
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

withTunnel('the log tells of what went through, once each', async ({ tunnel, tunnels }) => {
  await using target = await echoTarget()
  const { host, port, url } = await tunnel(target.port)
  await ask({ host, port }, 'hello')
  const nowhere = await tunnel('127.0.0.1:1')
  const denied = await tunnel(target.port, { deny: ['127.0.0.1'] })
  for (const one of [nowhere, denied]) await turnedAway(one)

  await vi.waitFor(() => expect(tunnels.log()).toMatch(/ended: 5 B in, 5 B out/))
  expect(tunnels.log().split(`${url}  127.0.0.1:`)).toHaveLength(3)
  await vi.waitFor(() => expect(tunnels.log()).toMatch(/may not visit this tunnel/))
  expect(tunnels.log().match(/turned away: .+ \((.+)\)/g)).toHaveLength(2)
})

withTunnel('the log tells why a tunnel could not be opened', async ({ server, tunnel, tunnels }) => {
  await expect(tunnel(3000, { port: server.port })).rejects.toMatchObject({ code: 'port-taken' })

  expect(tunnels.log()).toMatch(/could not be opened: .+ is taken by another program or tunnel/)
})

withTunnel('a server that was not awaited is told so', async ({ server, tunnel, webhook }) => {
  const options = { server: Promise.resolve(server) as never }
  for (const opening of [tunnel(3000, options), webhook(options)]) {
    await expect(opening).rejects.toThrow('server is a promise: did you forget await?')
  }
})

withTunnel('the log keeps its last lines', async ({ tunnel, tunnels }) => {
  const denied = await tunnel(3000, { deny: ['127.0.0.1'] })
  for (let i = 0; i < 210; i++) await turnedAway(denied)

  await vi.waitFor(() => expect(tunnels.log().split('\n', 1)).toEqual(['11 lines before these']))
  expect(tunnels.log().split('\n')).toHaveLength(201)
})

withTunnel('the log has the seed of conditions, so that what failed can be repeated', async ({ tunnels }) => {
  const broken = await tunnels.tunnel(3000, { conditions: { latency: 1 } })
  const chosen = await tunnels.tunnel(3000, { conditions: { latency: 1, seed: 7 } })
  await tunnels.tunnel(3000)

  expect(tunnels.log().split('\n').slice(-2)).toEqual([
    `${broken.url}  conditions: { seed: ${broken.conditions.seed} } repeats its chances`,
    `${chosen.url}  conditions: { seed: 7 } repeats its chances`,
  ])
})

withTunnel('one that is opened when the test has ended is given up', async ({ server }) => {
  const late = new TestTunnels(() => server)
  await late.close()

  await expect(late.tunnel(3000)).rejects.toMatchObject({ code: 'aborted' })
})

afterAll(async () => {
  // What a test forgot to close is closed behind it; the server when the file ends, after this hook.
  await expect(visit(opened[3] as { host: string; port: number })).rejects.toMatchObject({
    code: 'ECONNREFUSED',
  })
})

/** Connects, and waits until it is cut. */
function turnedAway({ host, port }: { host: string; port: number }): Promise<unknown> {
  const visitor = net.connect(port, host).on('error', () => {})
  return new Promise((resolve) => visitor.on('close', resolve))
}
