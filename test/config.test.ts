/** The configuration file, through the command: its forms, what goes before it, and reading it again. */
import path from 'node:path'
import { createServer } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { freePort, pipe, pipeToEnd } from './helpers/command.js'
import { project, ready } from './helpers/project.js'
import { echoTarget } from './helpers/targets.js'
import { ask } from './helpers/visitor.js'

const SECRET = 'correct-horse-battery'
const OTHER = 'quite-another-secret'

describe('pipe up', () => {
  const forms: [string, (port: number) => string][] = [
    [
      'json',
      (port) => `\uFEFF{ "tunnels": { "web": ${port}, "db": { "target": "tcp:localhost:${port}" } } }`,
    ],
    ['toml', (port) => `[tunnels]\nweb = ${port}\n[tunnels.db]\ntarget = "tcp:localhost:${port}"`],
    ['mjs', (port) => `export default { tunnels: { web: ${port}, db: 'tcp:localhost:${port}' } }`],
    ['js', (port) => `export default await { tunnels: { web: ${port}, db: 'tcp:localhost:${port}' } }`],
    ['cjs', (port) => `module.exports = { tunnels: { web: ${port}, db: 'tcp:localhost:${port}' } }`],
    ['ts', typeScript],
    ['mts', typeScript],
  ]

  test.each(forms)('opens what stands in pipe.config.%s, and names it', async (ending, text) => {
    await using target = await echoTarget()
    await using folder = await project({ [`pipe.config.${ending}`]: text(target.port) })
    await using program = pipe(['up', '--json'], { cwd: folder.path })

    expect(await ready(program, 'web')).toMatchObject({ target: `localhost:${target.port}` })
    const { url, ...place } = await ready(program, 'db')
    expect(url).toMatch(/^tcp:/)
    expect(String(await ask(place, 'hello'))).toBe('hello')
  })

  test('uses one control connection for all, and prints as pipe expose does, with names', async () => {
    await using target = await echoTarget()
    await using server = await createServer()
    const tunnels = {
      web: target.port,
      db: { target: `tcp:localhost:${target.port}`, port: await freePort() },
    }
    await using folder = await project({ 'pipe.config.json': { to: server.address, tunnels } })
    await using program = pipe(['up'], { cwd: folder.path })

    await program.stdout.line(new RegExp(`^tcp://127.0.0.1:${tunnels.db.port}$`))
    await program.stderr.line(/^web: http:\/\/.* leads to localhost:/)
    await program.stderr.line(/^db: tcp:\/\/.* leads to localhost:/)
    expect(new Set(server.tunnels.map(({ client }) => client.port)).size).toBe(1)
    expect(String(await ask({ port: tunnels.db.port }, 'hello'))).toBe('hello')
    await program.stderr.line(/ {2}db {2}127\.0\.0\.1:\d+ {2}5 B in, 5 B out/)
  })

  test('gives each tunnel options of its own', async () => {
    await using target = await echoTarget()
    const tunnels = { open: target.port, closed: { target: target.port, deny: ['127.0.0.1'] } }
    await using folder = await project({ 'pipe.config.json': { tunnels } })
    await using program = pipe(['up', '--json'], { cwd: folder.path })

    expect(String(await ask(await ready(program, 'open'), 'hello'))).toBe('hello')
    await expect(ask(await ready(program, 'closed'), 'hello')).rejects.toThrow()
  })

  test('opens the named ones alone, also of a file elsewhere, beside which its paths are', async () => {
    await using server = await createServer({ secret: SECRET })
    const tunnels = { web: 3000, db: 'unix:db.sock', other: 3001 }
    await using folder = await project({
      'conf/mine.json': { to: server.address, secretFile: 'secret.txt', tunnels },
      'conf/secret.txt': `${SECRET}\n`,
    })
    await using program = pipe(['up', 'db', 'web', '--config', 'conf/mine.json', '--json'], {
      cwd: folder.path,
    })

    expect((await ready(program, 'db')).target).toBe(`unix:${path.join(folder.path, 'conf/db.sock')}`)
    await ready(program, 'web')
    expect(server.tunnels).toHaveLength(2)
  })

  test.each<[string, Record<string, unknown>, string[], RegExp]>([
    ['no file', {}, [], /^pipe: there is no configuration file here: .*--config$/],
    [
      'two files',
      { 'pipe.config.js': '', 'pipe.config.toml': '' },
      [],
      /pipe\.config\.js and pipe\.config\.toml/,
    ],
    ['a file that is missing', {}, ['--config', 'x.json'], /^pipe: x\.json can't be read \(ENOENT/],
    ['a file of another kind', { 'x.yaml': '' }, ['--config', 'x.yaml'], /must end in one of \.ts, /],
    ['no tunnels', { 'pipe.config.json': {} }, [], /^pipe: pipe\.config\.json has no tunnels: /],
    [
      'an unknown name',
      { 'pipe.config.json': { tunnels: { web: 1 } } },
      ['wep'],
      /^pipe: pipe\.config\.json has no tunnel wep: did you mean web\?$/,
    ],
    [
      'all mistakes at once',
      { 'pipe.config.toml': 'mux = 1\n[tunnels]\nweb = { target = 1, port = "x" }' },
      [],
      /^pipe: pipe\.config\.toml: mux must be true or false, not 1\npipe\.config\.toml: tunnels\.web\.port must be a whole number from 0 to 65535, not "x"$/,
    ],
    [
      'what an option means',
      { 'pipe.config.json': { tunnels: { web: { target: 3000, limit: '12q' } } } },
      [],
      /^pipe: pipe\.config\.json: tunnels\.web\.limit must be bytes per second, .*, not "12q"$/,
    ],
    [
      'two ports',
      { 'pipe.config.json': { tunnels: { web: { target: '8080:3000', port: 8081 } } } },
      [],
      /^pipe: pipe\.config\.json: tunnels\.web\.port must be left out where the target names a public port, not 8081$/,
    ],
    [
      'two secrets',
      { 'pipe.config.json': { to: 'x', secret: SECRET, secretFile: 'x', tunnels: { web: 1 } } },
      [],
      /^pipe: pipe\.config\.json: secretFile must be left out where secret is given$/,
    ],
    [
      'the syntax of JSON',
      { 'pipe.config.json': '{\n  "to": "x"\n  "mux": true }' },
      [],
      /^pipe: pipe\.config\.json:3:3: comma expected$/,
    ],
    [
      'the end of JSON',
      { 'pipe.config.json': '{ "to": ' },
      [],
      /^pipe: pipe\.config\.json:1:9: value expected$/,
    ],
    [
      'a comment in JSON',
      { 'pipe.config.json': '{ // x\n}' },
      [],
      /^pipe: pipe\.config\.json:1:3: invalid comment token$/,
    ],
    [
      'the syntax of TOML',
      { 'pipe.config.toml': 'to = "x"\nmux = tru' },
      [],
      /^pipe: pipe\.config\.toml:2:7: \S/,
    ],
    [
      'JSON that is nested without end',
      { 'pipe.config.json': '['.repeat(200_000) },
      [],
      /^pipe: pipe\.config\.json: .+$/,
    ],
    [
      'TOML that is nested without end',
      { 'pipe.config.toml': `a = ${'['.repeat(200_000)}` },
      [],
      /^pipe: pipe\.config\.toml:1:\d+: \S.+$/,
    ],
    [
      'a value that throws when it is read',
      { 'pipe.config.mjs': "export default { get to() { throw new Error('TO is not set') } }" },
      [],
      /^pipe: pipe\.config\.mjs: TO is not set$/,
    ],
    [
      'a hostname that two tunnels have',
      {
        'pipe.config.json': JSON.stringify({
          tunnels: { web: { target: 3000, hostname: 'shop' }, api: { target: 4000, hostname: 'Shop' } },
        }),
      },
      [],
      /^pipe: pipe\.config\.json: tunnels\.web and tunnels\.api have the same hostname Shop$/,
    ],
    [
      'a module that throws',
      { 'pipe.config.mjs': 'export default {}\nmissing()' },
      [],
      /^pipe: pipe\.config\.mjs:2:1: missing is not defined$/,
    ],
    [
      'a module without a default',
      { 'pipe.config.mjs': 'export const a = 1' },
      [],
      /^pipe: pipe\.config\.mjs: it has no default export: write export default { … }$/,
    ],
  ])('refuses %s with exit code 2 and a sentence', async (_what, files, args, sentence) => {
    await using folder = await project(files)
    const { code, stdout, stderr } = await pipeToEnd(['up', ...args], { cwd: folder.path })

    expect(stderr.trim()).toMatch(sentence)
    expect([code, stdout]).toEqual([2, ''])
  })

  test.each(['await new Promise(() => {})', 'await new Promise(() => setInterval(() => {}, 1_000))'])(
    'gives up a module that never ends: %s',
    async (text) => {
      await using folder = await project({ 'pipe.config.mjs': text })
      const { code, stderr } = await pipeToEnd(['up'], { cwd: folder.path })
      expect(stderr).toBe('pipe: pipe.config.mjs: loading it took longer than 10000 ms\n')
      expect(code).toBe(2)
    },
  )

  test('says what TypeScript needs where Node does not read it and jiti is missing', async ({ skip }) => {
    skip('typescript' in process.features && Boolean(process.features.typescript), 'this Node strips types')
    await using folder = await project({ 'pipe.config.ts': 'export default {}' }, [])
    const { code, stderr } = await pipeToEnd(['up'], { cwd: folder.path })

    expect([code, stderr]).toEqual([2, expect.stringMatching(/npm install --save-dev jiti/)])
  })
})

describe('what says where the server is', () => {
  const layers: [string, string[], Record<string, string>, object, number][] = [
    ['a flag, first', ['--to'], { PIPE_SERVER: 'env' }, { to: 'file' }, 0],
    ['then the environment', [], { PIPE_SERVER: 'env' }, { to: 'file' }, 1],
    ['then the file', [], {}, { to: 'file' }, 2],
    ['and else it is one of its own', [], {}, {}, 3],
  ]

  test.each(
    layers.flatMap(([what, ...rest]) =>
      [['up'], ['expose', '3000']].map((words) => [`${what} (${words[0]})`, words, ...rest] as const),
    ),
  )('is %s', async (_what, words, flags, env, file, expected) => {
    await using flagServer = await createServer()
    await using envServer = await createServer()
    await using fileServer = await createServer()
    const servers = [flagServer, envServer, fileServer]
    const config = { ...file, ...('to' in file && { to: fileServer.address }), tunnels: { web: 3000 } }
    await using folder = await project({ 'pipe.config.json': config })
    const args = [...words, ...flags.flatMap((flag) => [flag, flagServer.address])]
    const where: Record<string, string> = 'PIPE_SERVER' in env ? { PIPE_SERVER: envServer.address } : {}
    await using program = pipe(args, { cwd: folder.path, env: where })

    await program.stdout.line(/^http:/)
    expect(servers.map((server) => server.tunnels.length)).toEqual(
      [0, 1, 2].map((at) => Number(at === expected)),
    )
  })
})

describe('what says the secret', () => {
  test.each<[string, string[], Record<string, string>, object]>([
    ['a flag, first', ['--secret', SECRET], { PIPE_SECRET: OTHER }, { secret: OTHER }],
    ['then the environment', [], { PIPE_SECRET: SECRET }, { secret: OTHER }],
    ['then the file', [], {}, { secret: SECRET }],
    ['a file that the file names', [], {}, { secretFile: 'secret.txt' }],
  ])('is %s, for tunnels and for a server', async (_what, flags, env, file) => {
    const port = await freePort()
    await using folder = await project({
      'pipe.config.json': {
        to: `127.0.0.1:${port}`,
        ...file,
        tunnels: { web: 3000 },
        server: { port, ...file },
      },
      'secret.txt': SECRET,
    })
    const options = { cwd: folder.path, env }
    await using server = pipe(['server', ...flags], options)
    await server.stdout.line(new RegExp(`^pipe://127.0.0.1:${port}$`))
    await using program = pipe(['up', ...flags], options)
    await program.stdout.line(/^http:/)
    await using other = pipe(['expose', '3000', '--secret', SECRET, '--to', `127.0.0.1:${port}`])
    await other.stdout.line(/^http:/)
  })

  test.each(['--to', 'PIPE_SERVER'])('is in the address of %s, before that of the file', async (name) => {
    await using server = await createServer({ secret: SECRET })
    const address = server.address.replace('pipe://', `pipe://${SECRET}@`)
    await using folder = await project({ 'pipe.config.json': { secret: OTHER, tunnels: { web: 3000 } } })
    const args = name === '--to' ? ['up', '--to', address] : ['up']
    const env: Record<string, string> = name === '--to' ? {} : { PIPE_SERVER: address }
    await using program = pipe(args, { cwd: folder.path, env })
    await program.stdout.line(/^http:/)
  })
})

describe('pipe server', () => {
  test('runs with what stands under server, behind its flags', async () => {
    const [port, tunnelPort] = [await freePort(), await freePort()]
    await using folder = await project({
      'pipe.config.json': { server: { port, ports: tunnelPort, publicHost: 'file.example.com' } },
    })
    await using server = pipe(['server', '--public-host', 'flag.example.com'], { cwd: folder.path })
    await server.stdout.line(new RegExp(`^pipe://flag.example.com:${port}$`))
    await using client = pipe(['expose', '3000', '--to', `127.0.0.1:${port}`])
    await client.stdout.line(new RegExp(`^http://flag.example.com:${tunnelPort}$`))
  })

  test('has named secrets', async () => {
    await using folder = await project({
      'pipe.config.toml': 'server.port = 0\n[server.secrets.ci]\nsecretFile = "ci.txt"\nmaxTunnels = 1',
      'ci.txt': SECRET,
    })
    await using server = pipe(['server'], { cwd: folder.path })
    const to = await server.stdout.line(/^pipe:/)
    await server.stderr.line(/^asks for one of the secrets; /)
    const { stderr } = await pipeToEnd(['expose', '3000', '3001', '--to', to, '--secret', SECRET])
    expect(stderr).toMatch(/the secret ci has as many tunnels as it may/)
  })

  test.each([
    [
      { server: { limits: { flows: 0 } } },
      /^pipe: pipe\.config\.json: server\.limits\.flows must be a whole number/,
    ],
    [
      { server: { heartbeatTimeout: 1 } },
      /^pipe: pipe\.config\.json: server\.heartbeatTimeout must be at least/,
    ],
    [
      { server: { tls: { certFile: 'x', keyFile: 'x' } } },
      /^pipe: can't read pipe\.config\.json: server\.tls\.certFile/,
    ],
    [{ server: { host: '0.0.0.0' } }, /^pipe: 0\.0\.0\.0 can be reached by others/],
  ])('refuses %j', async (config, sentence) => {
    await using folder = await project({ 'pipe.config.json': config })
    const { code, stderr } = await pipeToEnd(['server'], { cwd: folder.path })
    expect([code, stderr]).toEqual([2, expect.stringMatching(sentence)])
  })
})

function typeScript(port: number): string {
  return `import { type Config, defineConfig } from 'pipe-tunnel/config'
const tunnels: Config['tunnels'] = { web: ${port}, db: 'tcp:localhost:${port}' }
export default defineConfig({ tunnels })`
}
