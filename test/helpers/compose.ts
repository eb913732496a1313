/** docs/deploy/compose.yaml, brought up by docker-compose, with images and ports that a test can have. */
import { cp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { freePort, runToEnd, temporaryFolder } from './command.js'
import { image, makeImage } from './docker.js'
import { readRepository } from './snippets.js'

const repository = fileURLToPath(new URL('../..', import.meta.url))
const CADDY_IMAGE = 'pipe-tunnel-test:caddy'
/** How long docker-compose may take for one command, in milliseconds. */
const TIMEOUT = 120_000

export interface Deployment extends AsyncDisposable {
  /** What URLs of HTTP tunnels end with, and that of Caddy's admin API. */
  readonly domain: string
  readonly caddyAdmin: string
  /** Where clients connect, and that of the administration. */
  readonly server: string
  readonly admin: string
  /** The one public port. */
  readonly publicPort: number
  /** Runs a command of docker-compose, and gives what it prints. */
  compose(...args: string[]): Promise<string>
  /** Ids of its containers, those that have ended too. */
  containers(): Promise<string[]>
  /** Takes away all that was brought up. */
  down(): Promise<void>
}

export interface DeploymentOptions {
  secret: string
  /** What `server` has in the configuration file. */
  config?: object
  /** Opens the administration to this machine, for who holds this. */
  adminSecret?: string
}

/** It is up: not ready yet, so its first client tries again. */
export async function deploy({ secret, adminSecret, config }: DeploymentOptions): Promise<Deployment> {
  await makeImage(CADDY_IMAGE, 'caddy')
  const folder = await temporaryFolder()
  for (const one of ['package.json', 'dist', 'docs/deploy/Dockerfile']) {
    await cp(join(repository, one), join(folder.path, one), { recursive: true })
  }
  const [https, caddyAdmin] = [await freePort(), await freePort()]
  const [clients, admin, publicPort] = [await freePort(), await freePort(), await freePort()]
  const domain = `tunnel.localhost:${https}`
  const { services, ...others } = parse(await readRepository('docs/deploy/compose.yaml'))
  const { caddy, pipe } = services

  // The Caddy of Debian is older than the image of the registry, and reads the address of its admin API from a file alone.
  await writeFile(
    join(folder.path, 'caddy.json'),
    JSON.stringify({ admin: { listen: caddy.environment.CADDY_ADMIN } }),
  )
  caddy.image = CADDY_IMAGE
  caddy.command = `${caddy.command} --config /caddy.json`
  caddy.ports = [`127.0.0.1:${https}:443`, `127.0.0.1:${caddyAdmin}:2019`]
  caddy.volumes.push('./caddy.json:/caddy.json:ro')

  Object.assign(pipe.build, { context: folder.path, args: { NODE_IMAGE: image } })
  const flags: Record<string, string> = {
    '--domain': `https://${domain}`,
    '--public-host': '127.0.0.1',
    '--ports': `${publicPort}`,
  }
  pipe.command = pipe.command.map((arg: string) => {
    const [name = ''] = arg.split('=')
    return name in flags ? `${name}=${flags[name]}` : arg
  })
  pipe.ports = [`127.0.0.1:${clients}:8910`, `127.0.0.1:${publicPort}:${publicPort}/udp`]
  if (config) {
    await writeFile(join(folder.path, 'pipe.config.json'), JSON.stringify({ server: config }))
    pipe.volumes = ['./pipe.config.json:/etc/pipe.config.json:ro']
    pipe.command.push('--config=/etc/pipe.config.json')
  }
  if (adminSecret !== undefined) {
    pipe.environment.PIPE_ADMIN_SECRET = adminSecret
    pipe.command.push('--admin-host=0.0.0.0')
    pipe.ports.push(`127.0.0.1:${admin}:8912`)
  }
  const file = join(folder.path, 'compose.json')
  await writeFile(file, JSON.stringify({ ...others, services }))

  const name = `pipe-tunnel-${https}`
  const env = { PIPE_DOMAIN: 'example.com', PIPE_SECRET: secret }
  const compose = async (...args: string[]) => {
    const all = ['--project-name', name, '--file', file, ...args]
    return (await runToEnd('docker-compose', all, { env, timeout: TIMEOUT })).stdout
  }
  const down = async () => {
    await compose('down', '--rmi', 'local', '--volumes', '--timeout', '5')
  }
  const deployment: Deployment = {
    domain,
    caddyAdmin: `http://127.0.0.1:${caddyAdmin}`,
    server: `pipe://127.0.0.1:${clients}`,
    admin: `http://127.0.0.1:${admin}`,
    publicPort,
    compose,
    async containers() {
      const label = `label=com.docker.compose.project=${name}`
      const { stdout } = await runToEnd('docker', ['ps', '--all', '--quiet', '--filter', label])
      return stdout.split('\n').filter(Boolean)
    },
    down,
    async [Symbol.asyncDispose]() {
      await down()
      await folder[Symbol.asyncDispose]()
    },
  }
  try {
    await compose('up', '--detach', '--build')
    return deployment
  } catch (error) {
    await deployment[Symbol.asyncDispose]()
    throw error
  }
}
