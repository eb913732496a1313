/** Real programs on unix sockets, behind PROXY headers and under a limit. */
import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { createServer, forward, openTunnel, type Tunnel } from 'pipe-tunnel'
import { expect, test } from 'vitest'
import { pipe } from './helpers/command.js'
import {
  needs,
  pseudorandomFile,
  type RunOptions,
  run,
  type ServerProgram,
  sha256,
  start,
  startNginx,
  startPostgres,
  temporaryFolder,
} from './helpers/programs.js'
import { answerAtEndTarget, echoTarget, tcpTarget } from './helpers/targets.js'

const MiB = 1_048_576

/** Where a tunnel listens, and which of its addresses is visited. */
const places = [
  ['127.0.0.1', '127.0.0.1'],
  ['::1', '::1'],
  ['0.0.0.0', '127.0.0.1'],
  ['::', '127.0.0.1'],
  ['::', '::1'],
] as const

for (const version of [1, 2] as const) {
  test.for(places)(
    `nginx hears by PROXY version ${version} who its visitor is, from a tunnel on %s visited at %s`,
    async ([host, visited], context) => {
      needs(context, 'curl', 'nginx')
      await using nginx = await startNginx({ proxyProtocol: true })
      await using server = await createServer({ host, secret: 'only for this test' })
      await using tunnel = await openTunnel(nginx.port, { server, proxyProtocol: version })

      await expectToBeKnown(tunnel, visited)
    },
  )

  test.for(places)(
    `nginx hears by PROXY version ${version} who its visitor is, from a forward on %s visited at %s`,
    async ([host, visited], context) => {
      needs(context, 'curl', 'nginx')
      await using nginx = await startNginx({ proxyProtocol: true })
      const listen = host.includes(':') ? `[${host}]:0` : `${host}:0`
      await using tunnel = await forward(listen, nginx.port, { proxyProtocol: version })

      await expectToBeKnown(tunnel, visited)
    },
  )

  test(`nginx takes a visitor of a unix socket, whom PROXY version ${version} calls unknown`, async (context) => {
    needs(context, 'curl', 'nginx')
    await using nginx = await startNginx({ proxyProtocol: true })
    await using tunnel = await openTunnel(nginx.port, {
      listen: `unix:${nginx.folder.file('visitors.sock')}`,
      proxyProtocol: version,
    })

    const { stdout } = await curl(['--unix-socket', `${tunnel.path}`, 'http://localhost/visitor'])

    expect(`${stdout}`.trim()).toBe('')
  })
}

test('curl gets from and puts to nginx that listens on a unix socket, large files both', async (context) => {
  needs(context, 'curl', 'nginx')
  await using nginx = await startNginx()
  const hash = await pseudorandomFile(nginx.folder.file('large'), 128 * MiB)
  await using server = await createServer()
  await using tunnel = await openTunnel(socketOf(nginx), { server })
  expect(tunnel.url).toBe(`http://127.0.0.1:${tunnel.port}`)

  await using download = start('curl', [...quiet, `${tunnel.url}/large`])
  const [downloaded] = await Promise.all([
    sha256(download.stdout),
    curl(['--upload-file', nginx.folder.file('large'), `${tunnel.url}/uploaded`]),
  ])

  await download.exited
  expect(downloaded).toBe(hash)
  expect(await sha256(nginx.folder.file('uploaded'))).toBe(hash)
})

test('curl visits a tunnel on a unix socket, of a server of its own and of another', async (context) => {
  needs(context, 'curl', 'nginx')
  await using nginx = await startNginx()
  const hash = await pseudorandomFile(nginx.folder.file('large'), 64 * MiB)
  await using server = await createServer({ sockets: nginx.folder.path })
  await using own = await openTunnel(socketOf(nginx), {
    listen: `unix:${nginx.folder.file('own.sock')}`,
  })
  await using another = await openTunnel(socketOf(nginx), { server, listen: 'unix:another.sock' })
  expect(another.path).toBe(nginx.folder.file('another.sock'))

  for (const tunnel of [own, another]) {
    await using client = start('curl', [
      ...quiet,
      '--unix-socket',
      `${tunnel.path}`,
      'http://localhost/large',
    ])
    expect(await sha256(client.stdout)).toBe(hash)
    await client.exited
    await tunnel.close()
    expect(existsSync(`${tunnel.path}`)).toBe(false)
  }
})

test('curl visits nginx by pipe forward from a unix socket, 50 times at once', async (context) => {
  needs(context, 'curl', 'nginx')
  await using nginx = await startNginx()
  const hash = await pseudorandomFile(nginx.folder.file('small'), MiB)
  const path = nginx.folder.file('visitors.sock')
  await using program = pipe(['forward', `unix:${path}`, `tcp:localhost:${nginx.port}`])
  expect(await program.stdout.line(/./)).toBe(`unix:${path}`)

  const files = Array.from({ length: 50 }, (_, i) => nginx.folder.file(`copy-${i}`))
  const wanted = files.flatMap((file) => ['--output', file, 'http://localhost/small'])
  await curl(['--unix-socket', path, '--parallel', '--parallel-immediate', ...wanted])

  expect(await Promise.all(files.map((file) => sha256(file)))).toEqual(files.map(() => hash))
  program.signal('SIGTERM')
  expect(await program.ended()).toMatchObject({ code: 0 })
  expect(existsSync(path)).toBe(false)
})

test('nc sends lines and an EOF to a unix socket, and only then hears them sorted', async (context) => {
  needs(context, 'nc.openbsd', 'sort')
  const lines = Array.from({ length: 100_000 }, (_, i) => `${(i * 7_919) % 100_000}`.padStart(5, '0'))
  await using target = await tcpTarget((socket) => {
    const sort = start('sort', [])
    socket.pipe(sort.stdin)
    sort.stdout.pipe(socket)
  })
  await using folder = await temporaryFolder()
  await using tunnel = await openTunnel(target.address, { listen: `unix:${folder.file('visitors.sock')}` })

  const input = `${lines.join('\n')}\n`
  const { stdout } = await run('nc.openbsd', ['-N', '-U', `${tunnel.path}`], { input })

  expect(`${stdout}`).toBe(`${lines.sort().join('\n')}\n`)
})

test('psql copies 100,000 rows to and from PostgreSQL on its unix socket, and by one', async (context) => {
  needs(context, 'initdb', 'postgres', 'psql')
  await using postgres = await startPostgres()
  await using folder = await temporaryFolder()
  await using server = await createServer()
  const socket = `unix:${postgres.folder.file(`.s.PGSQL.${postgres.port}`)}`
  await using tunnel = await openTunnel(socket, { server })
  // psql takes a folder for a host, and adds the port to the name of the socket in there.
  await using local = await forward(`unix:${folder.file('.s.PGSQL.5432')}`, `tcp:${place(tunnel)}`)
  const rows = Array.from({ length: 100_000 }, (_, i) => `${i}\tname of ${i}\n`).join('')

  await psql(tunnel.host, tunnel.port, 'CREATE TABLE people (id integer PRIMARY KEY, name text)')
  await psql(tunnel.host, tunnel.port, '\\copy people FROM STDIN', rows)
  const copied = await psql(folder.path, 5432, '\\copy (SELECT * FROM people ORDER BY id) TO STDOUT')
  const from = await psql(folder.path, 5432, 'SELECT inet_client_addr() IS NULL')

  expect(copied === rows).toBe(true)
  // A connection by TCP has an address.
  expect(from).toBe('t\n')
  expect(local.stats).toMatchObject({ connections: 2, rejections: 0 })
})

test('socat and pipe forward give the same bytes', async (context) => {
  needs(context, 'nc.openbsd', 'socat')
  const input = randomBytes(8 * MiB)
  const greeting = randomBytes(MiB)
  await using folder = await temporaryFolder()
  await using echo = await echoTarget()
  await using answer = await answerAtEndTarget((request) => createHash('sha256').update(request).digest())
  await using greeter = await tcpTarget((socket) => socket.resume().end(greeting))
  const expected = { echo: input, answer: createHash('sha256').update(input).digest(), greeter: greeting }

  for (const [name, { port }] of Object.entries({ echo, answer, greeter })) {
    const paths = { socat: folder.file(`${name}.socat`), pipe: folder.file(`${name}.pipe`) }
    // Half a second after the first FIN it would cut the other direction.
    const patience = ['-t', '60']
    await using socat = start('socat', [
      ...patience,
      `unix-listen:${paths.socat},fork`,
      `tcp:127.0.0.1:${port}`,
    ])
    await using program = pipe(['forward', `unix:${paths.pipe}`, `tcp:127.0.0.1:${port}`])
    await program.stdout.line(/./)
    await expect.poll(() => existsSync(paths.socat), { timeout: 20_000 }).toBe(true)

    const ask = (path: string) => run('nc.openbsd', ['-N', '-U', path], { input })
    const [bySocat, byPipe] = await Promise.all([ask(paths.socat), ask(paths.pipe)])

    expect(bySocat.stdout.equals(expected[name as keyof typeof expected])).toBe(true)
    expect(byPipe.stdout.equals(bySocat.stdout)).toBe(true)
    expect(socat.stderr()).toBe('')
  }
})

test('curl measures the speed that pipe expose was told, in each direction', async (context) => {
  needs(context, 'curl', 'nginx')
  await using nginx = await startNginx()
  // Three and a half seconds' worth.
  await pseudorandomFile(nginx.folder.file('large'), 350 * 1_024)
  await using program = pipe(['expose', `${nginx.port}`, '--limit', '100kb'])
  const url = await program.stdout.line(/^http:/)
  const measure = async (speed: string, ...args: string[]) => {
    const { stdout } = await curl(['--output', '/dev/null', '--write-out', `%{${speed}}`, ...args])
    return Number(`${stdout}`)
  }

  // At once: one direction does not take from the other.
  const speeds = await Promise.all([
    measure('speed_download', `${url}/large`),
    measure('speed_upload', '--upload-file', nginx.folder.file('large'), `${url}/uploaded`),
  ])

  for (const speed of speeds) {
    expect(speed).toBeGreaterThan(0.9 * 102_400)
    expect(speed).toBeLessThan(1.1 * 102_400)
  }
})

/** No progress bar; fails where the server answers with an error. */
const quiet = ['--silent', '--show-error', '--fail']

function curl(args: string[], options?: RunOptions) {
  return run('curl', [...quiet, ...args], options)
}

/** The addresses of both ends that curl has are the ones that nginx heard, also for the second request. */
async function expectToBeKnown({ port }: Tunnel, visited: string): Promise<void> {
  const url = `http://${visited.includes(':') ? `[${visited}]` : visited}:${port}/visitor`
  const ends = '\\n%{local_ip} %{local_port} %{remote_ip} %{remote_port} %{num_connects}\\n'
  const { stdout } = await curl(['--write-out', ends, url, url])

  const [heard, actual, heardAgain, actualAgain] = `${stdout}`.split('\n')
  expect(heard).toMatch(new RegExp(`^${visited} \\d+ ${visited} ${port}$`))
  expect(actual).toBe(`${heard} 1`)
  expect(heardAgain).toBe(heard)
  expect(actualAgain).toBe(`${heard} 0`)
}

function socketOf({ folder }: ServerProgram): string {
  return `unix:${folder.file('nginx.sock')}`
}

function place({ host, port }: Tunnel): string {
  return `${host}:${port}`
}

/** What psql prints, unaligned tuples only. `host` is that, or a folder with a socket. */
async function psql(host: string, port: number, command: string, input?: string): Promise<string> {
  const plain = ['-X', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-U', 'postgres']
  const { stdout } = await run('psql', [...plain, '-h', host, '-p', `${port}`, '-c', command, 'postgres'], {
    input,
  })
  return `${stdout}`
}
