import { type ContainerTunnel, PipeContainer, type StartedPipeContainer } from 'pipe-tunnel/testcontainers'
import type { StartedNetwork } from 'testcontainers'

export async function use(network: StartedNetwork): Promise<string> {
  await using server: StartedPipeContainer = await new PipeContainer('node:22')
    .withPorts(3)
    .withNetwork(network)
    .withNetworkAliases('tunnel')
    .withSecret('correct-horse-battery')
    .withStartupTimeout(10_000)
    .start()
  await using exposed: ContainerTunnel = await server.expose('udp://localhost:53', { timeout: 1_000 })
  exposed.on('reject', ({ error }) => error.code)
  return exposed.url ?? exposed.mapped.url
}

// @ts-expect-error The container is the server.
export const wrong = (server: StartedPipeContainer) => server.expose(3000, { server: 'other' })
