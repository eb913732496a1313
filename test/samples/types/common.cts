import tunnels = require('pipe-tunnel')

export async function use(): Promise<string> {
  const server: tunnels.Server = await tunnels.createServer({ port: 0 })
  const tunnel: tunnels.Tunnel = await tunnels.openTunnel(3000, { server })
  await tunnel.close()
  await server.close()
  return tunnel.url
}

// @ts-expect-error A port is a number.
tunnels.openTunnel(3000, { port: '80' })
