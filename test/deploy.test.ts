/** The recipes of docs/deploy, by the tools that they are for. */
import { cp, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createServer, openTunnel } from 'pipe-tunnel'
import { parse as parseToml } from 'smol-toml'
import { GenericContainer, Wait } from 'testcontainers'
import { describe, expect, test } from 'vitest'
import { parseAllDocuments, parse as parseYaml } from 'yaml'
import { startCaddy } from './helpers/caddy.js'
import { makeCertificate } from './helpers/certificate.js'
import { freePort, pipeToEnd, runToEnd, temporaryFolder } from './helpers/command.js'
import { deploy } from './helpers/compose.js'
import { image, needsDocker } from './helpers/docker.js'
import { compile } from './helpers/installed.js'
import { needs, run } from './helpers/programs.js'
import { project } from './helpers/project.js'
import { readRepository } from './helpers/snippets.js'

const repository = fileURLToPath(new URL('..', import.meta.url))
const secret = 'correct-horse-battery'
const read = (file: string) => readRepository(`docs/deploy/${file}`)

/** The arguments of `pipe` in each file. */
const commands: Record<string, () => Promise<string[]>> = {
  Dockerfile: async () => JSON.parse(/^CMD (.+)$/m.exec(await read('Dockerfile'))?.[1] ?? ''),
  'pipe-tunnel.service': async () => wordsOf(await read('pipe-tunnel.service'), /^ExecStart=.*? pipe (.+)$/m),
  Caddyfile: async () => wordsOf(await read('Caddyfile'), /^# +pipe (.+)$/m),
  'compose.yaml': async () => parseYaml(await read('compose.yaml')).services.pipe.command,
  'fly.toml': async () => (await readFly()).processes.app.split(' '),
  'kubernetes.yaml': async () => (await readKubernetes()).container.args,
}

test.each(Object.keys(commands))('%s has flags that pipe server has, and no others', async (file) => {
  const [command, ...args] = (await commands[file]?.()) ?? []
  const { stdout } = await pipeToEnd(['server', '--help'])

  expect(command).toBe('server')
  const flags = args.filter((arg) => arg.startsWith('--')).map((arg) => arg.replace(/=.*/, ''))
  expect(flags).not.toEqual([])
  expect(flags.filter((flag) => !stdout.includes(`  ${flag} `))).toEqual([])
})

test('README.md has a section for each file', async () => {
  const files = (await readdir(join(repository, 'docs/deploy'))).filter((file) => file !== 'README.md')
  const headings = [...(await read('README.md')).matchAll(/^## `?([\w.-]+)`?/gm)].map(([, file]) => file)
  expect(headings.sort()).toEqual(files.sort())
})

describe('Dockerfile', () => {
  test('makes an image that is healthy, not root, and serves', async (context) => {
    await needsDocker(context)
    await using folder = await temporaryFolder()
    for (const one of ['package.json', 'dist', 'docs/deploy/Dockerfile']) {
      await cp(join(repository, one), join(folder.path, one), { recursive: true })
    }
    const built = await GenericContainer.fromDockerfile(folder.path, 'docs/deploy/Dockerfile')
      .withBuildArgs({ NODE_IMAGE: image })
      .build('pipe-tunnel-test:dockerfile', { deleteOnExit: false })
    await using server = await built
      .withExposedPorts(8_910, 20_000)
      .withEnvironment({ PIPE_SECRET: secret })
      .withWaitStrategy(Wait.forHealthCheck())
      .start()
    const host = server.getHost()
    await using _tunnel = await openTunnel((_, response) => response.end('hello'), {
      server: `pipe://${secret}@${host}:${server.getMappedPort(8_910)}`,
      port: 20_000,
    })

    expect(await (await fetch(`http://${host}:${server.getMappedPort(20_000)}`)).text()).toBe('hello')
    expect((await server.exec(['node', '--print', 'process.getuid()'])).output).toBe('1000\n')
  }, 180_000)
})

describe('compose.yaml', () => {
  test('is understood by docker-compose', async (context) => {
    needs(context, 'docker-compose')
    const env = { PIPE_DOMAIN: 'example.com', PIPE_SECRET: secret, PIPE_PACKAGE: '../..' }
    const { pipe } = await composed(join(repository, 'docs/deploy'), env)
    expect(pipe.command).toContain('--domain=example.com')
    expect(pipe.environment).toEqual({ PIPE_SECRET: secret })
  })

  test('finds the package from a copy of the folder, and from the repository', async (context) => {
    needs(context, 'docker-compose')
    const env = { PIPE_DOMAIN: 'example.com', PIPE_SECRET: secret }
    await using folder = await temporaryFolder()
    const installed = join(folder.path, 'node_modules/pipe-tunnel')
    await cp(join(repository, 'docs/deploy'), join(installed, 'docs/deploy'), { recursive: true })
    await runToEnd('bash', ['-euc', await copying()], { cwd: folder.path })

    const copied = await composed(join(folder.path, 'my-server'), env)
    expect(copied.pipe.build.context).toBe(installed)
    const here = await composed(join(repository, 'docs/deploy'), { ...env, PIPE_PACKAGE: '../..' })
    expect(`${here.pipe.build.context}/`).toBe(repository)
  })

  test('brings up a server whose names have https by Caddy', async (context) => {
    needs(context, 'docker-compose', 'caddy')
    await needsDocker(context)
    await using deployment = await deploy({ secret })
    await using tunnel = await openTunnel((_, response) => response.end('hello'), {
      server: deployment.server,
      secret,
      hostname: 'app',
      retry: true,
      timeout: 60_000,
    })

    // It is there, so its client has seen it answer by https.
    expect(tunnel.url).toBe(`https://app.${deployment.domain}`)
  }, 240_000)
})

describe('Caddyfile', () => {
  test('leads all names of the domain to the HTTP port', async (context) => {
    needs(context, 'caddy')
    const text = await read('Caddyfile')
    await using folder = await temporaryFolder()
    const { cert, key } = makeCertificate(['*.tunnel.localhost'])
    const [certFile, keyFile] = [join(folder.path, 'cert.pem'), join(folder.path, 'key.pem')]
    await Promise.all([writeFile(certFile, cert), writeFile(keyFile, key)])
    const port = await freePort()
    const environment = { PIPE_DOMAIN: 'tunnel.localhost', PIPE_CERT: certFile, PIPE_KEY: keyFile }
    const filled = Object.entries(environment).reduce(
      (filled, [name, value]) => filled.replaceAll(`{$${name}}`, value),
      text.replace('127.0.0.1:8080 {', `127.0.0.1:${port} {`),
    )
    await using caddy = await startCaddy(() => `}\n${filled}`)
    const domain = `https://tunnel.localhost:${caddy.ports.https}`
    await using server = await createServer({ http: { port, domain, trustedProxies: ['127.0.0.1'] } })
    await using tunnel = await openTunnel((_, response) => response.end('hello'), { server, hostname: 'app' })

    expect(tunnel.url).toBe(`https://app.tunnel.localhost:${caddy.ports.https}`)
    const { stdout } = await run('caddy', ['fmt', '-'], { input: text })
    expect(`${stdout}`).toBe(text)
  })
})

describe('pipe-tunnel.service', () => {
  test('is understood by systemd, and leaves the server few rights', async (context) => {
    needs(context, 'systemd-analyze')
    const unit = 'docs/deploy/pipe-tunnel.service'
    const { stderr } = await run('systemd-analyze', ['verify', unit], { cwd: repository })
    const { stdout } = await run('systemd-analyze', ['security', '--offline=true', '--threshold=15', unit], {
      cwd: repository,
    })

    expect(stderr).toBe('')
    expect(`${stdout}`).toContain('OK')
  })
})

describe('fly.toml', () => {
  test('has a service for each port that the server listens on', async () => {
    const { services, processes } = await readFly()
    const internal = services.map(({ internal_port }) => internal_port)
    const [, httpPort] = /--http-port (\d+)/.exec(processes.app) ?? []
    const [, from, to] = /--ports (\d+)-(\d+)/.exec(processes.app) ?? []

    expect(internal).toEqual([8_910, Number(httpPort), Number(from), Number(to)])
    for (const { internal_port, ports } of services) {
      const outside = ports.map(({ port }) => port)
      expect(outside).toEqual(internal_port === Number(httpPort) ? [80, 443] : [internal_port])
    }
    expect(services.find(({ ports }) => ports[1]?.port === 443)?.ports[1]?.handlers).toEqual(['tls', 'http'])
  })
})

describe('kubernetes.yaml', () => {
  test('has what the API of Kubernetes has, and nothing else', async () => {
    const text = await read('kubernetes.yaml')
    const misspelt = text.replace('readOnlyRootFilesystem:', 'readOnlyRootFileSystem:')
    const files = { 'right.ts': literals(text), 'wrong.ts': literals(misspelt) }
    await using folder = await project(files, ['kubernetes-types'])
    const settings = { module: 'esnext', moduleResolution: 'bundler' }
    const told = await compile({ ...folder, packed: [] }, settings, Object.keys(files)).then(() => '', String)

    expect(told.match(/^.*error TS.*$/gm)).toEqual([
      expect.stringMatching(/^wrong\.ts.*readOnlyRootFileSystem\W+ does not exist in type 'SecurityContext'/),
    ])
  })

  test('holds together', async () => {
    const { deployment, container, services, secretName, backend } = await readKubernetes()
    const { labels } = deployment.spec.template.metadata
    const ports = new Map(container.ports.map((one) => [one.name, one]))

    expect(deployment.spec.selector.matchLabels).toEqual(labels)
    for (const { spec } of services) {
      expect(spec.selector).toEqual(labels)
      for (const { targetPort, protocol } of spec.ports) {
        expect(ports.get(targetPort)?.protocol, targetPort).toBe(protocol)
      }
    }
    expect(services.map(({ metadata }) => metadata.name)).toContain(backend)
    expect(container.env.map(({ name, valueFrom }) => [name, valueFrom.secretKeyRef.name])).toEqual([
      ['PIPE_SECRET', secretName],
      ['PIPE_ADMIN_SECRET', secretName],
    ])
    for (const probe of [container.readinessProbe, container.livenessProbe]) {
      expect(ports.get(probe.httpGet.port)?.containerPort).toBe(8_912)
    }
  })

  test('has a container port for each port that the server listens on', async () => {
    const { container } = await readKubernetes()
    const value = (flag: string) =>
      container.args.find((arg) => arg.startsWith(`${flag}=`))?.slice(flag.length + 1)
    const expected = [
      8_910,
      ...['--http-port', '--admin-port', '--ports'].flatMap((flag) =>
        (value(flag) ?? '').split('-').map(Number),
      ),
    ]
    expect(container.ports.map(({ containerPort }) => containerPort)).toEqual(expected)
  })

  test('runs one server, not as root', async () => {
    const { deployment, container } = await readKubernetes()
    expect(deployment.spec).toMatchObject({ replicas: 1, strategy: { type: 'Recreate' } })
    expect(deployment.spec.template.spec.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 1000,
    })
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
  })
})

/** The services of the file in a folder, as docker-compose understands it. */
async function composed(folder: string, variables: Record<string, string>) {
  const args = ['--file', join(folder, 'compose.yaml'), 'config']
  const { stdout } = await run('docker-compose', args, { cwd: folder, env: { ...process.env, ...variables } })
  return parseYaml(`${stdout}`).services
}

/** How README.md has the folder copied. */
async function copying(): Promise<string> {
  return /^cp -r .+$/m.exec(await read('README.md'))?.[0] ?? ''
}

function wordsOf(text: string, pattern: RegExp): string[] {
  return pattern.exec(text)?.[1]?.split(' ') ?? []
}

interface Fly {
  processes: { app: string }
  services: { internal_port: number; protocol: string; ports: { port: number; handlers?: string[] }[] }[]
}

async function readFly(): Promise<Fly> {
  return parseToml(await read('fly.toml')) as unknown as Fly
}

/** The documents as TypeScript. Only of a literal, a name that its type does not have is a mistake. */
function literals(text: string): string {
  const lines = parseAllDocuments(text).map((one, index) => {
    const { apiVersion, kind } = one.toJS() as { apiVersion: string; kind: string }
    const [version = '', group = 'core'] = apiVersion.split('/').reverse()
    const type = `import('kubernetes-types/${group.replace('.k8s.io', '')}/${version}').${kind}`
    return `export const one${index}: ${type} = ${JSON.stringify(one)}\n`
  })
  return lines.join('')
}

async function readKubernetes() {
  const documents = parseAllDocuments(await read('kubernetes.yaml')).map((one) => one.toJS())
  const ofKind = (kind: string) => documents.filter((one) => one.kind === kind)
  const [deployment] = ofKind('Deployment')
  const container: Container = deployment.spec.template.spec.containers[0]
  const services: Service[] = ofKind('Service')
  const [ingress] = ofKind('Ingress')
  return {
    deployment,
    container,
    services,
    secretName: ofKind('Secret')[0].metadata.name,
    backend: ingress.spec.rules[0].http.paths[0].backend.service.name,
  }
}

interface Container {
  args: string[]
  env: { name: string; valueFrom: { secretKeyRef: { name: string } } }[]
  ports: { name: string; containerPort: number; protocol?: string }[]
  readinessProbe: { httpGet: { port: string } }
  livenessProbe: { httpGet: { port: string } }
  securityContext: object
}

interface Service {
  metadata: { name: string }
  spec: { selector: object; ports: { targetPort: string; protocol?: string }[] }
}
