import tunnels = require('pipe-tunnel')
import configs = require('pipe-tunnel/config')
import webhooks = require('pipe-tunnel/webhooks')

export async function use(): Promise<string> {
  const server: tunnels.Server = await tunnels.createServer({ port: 0 })
  const tunnel: tunnels.Tunnel = await tunnels.openTunnel(3000, { server })
  await tunnel.close()
  await server.close()
  return tunnel.url
}

export async function receive(): Promise<webhooks.WebhookRequest> {
  const hook: webhooks.WebhookReceiver = await webhooks.receiveWebhooks({ timeout: 1_000 })
  return hook.reply(500).reply({ hang: true }).waitFor({ path: /^\/a/ })
}

// @ts-expect-error A port is a number.
tunnels.openTunnel(3000, { port: '80' })

export const config: configs.Config = configs.defineConfig({ tunnels: { web: 3000 } })
