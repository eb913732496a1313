import {
  createServer,
  openTunnel,
  type Server,
  type Tunnel,
  type TunnelError,
  type TunnelErrorCode,
} from 'pipe-tunnel'
import { type Config, defineConfig } from 'pipe-tunnel/config'
import { type Reply, receiveWebhooks, type WebhookRequest } from 'pipe-tunnel/webhooks'

export async function use(): Promise<string> {
  await using server: Server = await createServer({ port: 0, ports: '20000-20100' })
  await using tunnel: Tunnel = await openTunnel('localhost:3000', { server, timeout: 1_000 })
  tunnel.on('connection', async ({ visitor, closed }) => {
    const { bytesIn }: { bytesIn: number } = await closed
    return `${visitor.address} ${bytesIn}`
  })
  const lost: TunnelError | undefined = await tunnel.closed
  const code: TunnelErrorCode | undefined = lost?.code
  return code ?? tunnel.url
}

export async function receive(): Promise<string> {
  await using hook = await receiveWebhooks({
    verify: { provider: 'github', secret: 'correct-horse-battery' },
  })
  hook
    .reply(({ query }): Reply => ({ status: 201, body: { id: query.get('id') } }))
    .reply(200, 'ok', { delay: 5 })
  const request: WebhookRequest = await hook.waitFor(
    { header: { 'x-a': 'b' }, body: { list: [1, /x/] } },
    { timeout: 1 },
  )
  const [name, value]: readonly [string, string] = request.headers[0] ?? ['', '']
  const verified: boolean | undefined = request.verified
  return `${name}${value}${verified}${(await hook.replay(request, { to: hook.url })).status}`
}

// @ts-expect-error There is no such field.
receiveWebhooks().then((hook) => hook.waitFor({ url: '/' }))
// @ts-expect-error A unix socket has no URL.
receiveWebhooks({ listen: 'unix:/tmp/x.sock' })
// @ts-expect-error There is no such provider.
receiveWebhooks({ verify: { provider: 'nobody', secret: 'correct-horse-battery' } })
// @ts-expect-error A target is a text or a number.
openTunnel({})
// @ts-expect-error There is no such event.
openTunnel(3000).then((tunnel) => tunnel.on('error', () => {}))
// @ts-expect-error There is no such code.
export const isOdd = (error: TunnelError) => error.code === 'odd'

export const config: Config = defineConfig({
  to: 'tunnel.example.com',
  tunnels: { web: 3000, db: { target: 'tcp:localhost:5432', port: 5432, allow: ['10.0.0.0/8'] } },
  server: { ports: '20000-20100', tls: { certFile: 'cert.pem', keyFile: 'key.pem' } },
})
