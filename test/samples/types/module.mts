import {
  createServer,
  openTunnel,
  type Server,
  type Tunnel,
  type TunnelError,
  type TunnelErrorCode,
} from 'pipe-tunnel'

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

// @ts-expect-error A target is a text or a number.
openTunnel({})
// @ts-expect-error There is no such event.
openTunnel(3000).then((tunnel) => tunnel.on('error', () => {}))
// @ts-expect-error There is no such code.
export const isOdd = (error: TunnelError) => error.code === 'odd'
