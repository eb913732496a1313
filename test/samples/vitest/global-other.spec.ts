import { test } from 'pipe-tunnel/vitest'
import { expect, inject } from 'vitest'

test('tunnels go through the server of the run', async ({ tunnel, tunnelServer }) => {
  const { url, port } = await tunnel((_, response) => response.end('hello'))
  process.stdout.write(`server ${tunnelServer.port}\nports ${tunnelServer.port} ${port}\n`)

  expect(await (await fetch(url)).text()).toBe('hello')
  expect(tunnelServer).toEqual(inject('pipe-tunnel'))
})

test.fails('it is in another process, where nobody can look at it', ({ server }) => {
  expect(server.tunnels).toBeDefined()
})
