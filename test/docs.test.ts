import dgram from 'node:dgram'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, writeFile } from 'node:fs/promises'
import { join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pEvent } from 'p-event'
import { type Connection, createServer, forward, openTunnel, type Rejection, TunnelError } from 'pipe-tunnel'
import { receiveWebhooks } from 'pipe-tunnel/webhooks'
import { describe, expect, test } from 'vitest'
import packageJson from '../package.json' with { type: 'json' }
import { exit } from '../src/cli/exit.js'
import { schema } from '../src/config/schema.js'
import type { ObjectSchema, Schema } from '../src/config/schema-words.js'
import { errorCodes } from '../src/errors.js'
import { makeCertificate } from './helpers/certificate.js'
import { pipe, pipeToEnd, temporaryFolder } from './helpers/command.js'
import { needsDocker } from './helpers/docker.js'
import {
  freePort,
  mask,
  readRepository,
  runJavaScript,
  runShell,
  runTypeScript,
  type Snippet,
  snippetsOf,
  startWorld,
  tableUnder,
} from './helpers/snippets.js'
import { echoTarget, httpTarget, silentTarget } from './helpers/targets.js'
import { visit } from './helpers/visitor.js'

const docs = [
  'README.md',
  'docs/admin.md',
  'docs/cli.md',
  'docs/config.md',
  'docs/deploy/README.md',
  'docs/errors.md',
  'docs/hostnames.md',
  'docs/inspector.md',
  'docs/https.md',
  'docs/options.md',
  'docs/security.md',
  'docs/testing.md',
]
const snippets = (await Promise.all(docs.map(snippetsOf))).flat()
/** Those of the other test runners are run in projects of theirs, by runners.test.ts. */
const isOfOtherRunner = (code: string) => /'pipe-tunnel\/(playwright|jest)'/.test(code)
const runnable = snippets.filter(({ notRun, code }) => !notRun && !isOfOtherRunner(code))
/** Those of the configuration file. */
const isFile = ({ place, language }: Snippet) => place.startsWith('docs/config.md') && language !== 'sh'
const inLanguage = (language: string) => runnable.filter((snippet) => snippet.language === language)
const byPlace = (list: Snippet[]) => list.map((snippet) => [snippet.place, snippet] as const)

describe('snippets', () => {
  test('every one is run, or says why it is not', () => {
    const languages = ['ts', 'js', 'sh', 'json', 'jsonl', 'toml']
    const outputs = new Set(snippets.map(({ output }) => output))
    const forgotten = runnable.filter(
      (one) =>
        !languages.includes(one.language) && !outputs.has(one) && !one.place.startsWith('docs/errors.md'),
    )
    expect(forgotten.map(({ place }) => place)).toEqual([])
  })

  const usesDocker = ({ code }: Snippet) => code.includes("'pipe-tunnel/testcontainers'")

  test('TypeScript compiles and passes', async () => {
    await expectPasses(inLanguage('ts').filter((one) => !usesDocker(one)))
  }, 150_000)

  test('TypeScript with containers compiles and passes', async (context) => {
    await needsDocker(context)
    await expectPasses(inLanguage('ts').filter(usesDocker))
  }, 150_000)

  async function expectPasses(wanted: Snippet[]): Promise<void> {
    await using world = await startWorld()
    const results = await runTypeScript(world, wanted)

    expect(results.filter(({ passed }) => !passed)).toEqual([])
    expect(results.map(({ place }) => place).sort()).toEqual(wanted.map(({ place }) => place).sort())
  }

  test.each(byPlace(inLanguage('js')))('JavaScript at %s passes', async (_place, snippet) => {
    await using world = await startWorld()
    const { code, stdout, stderr } = await runJavaScript(world, snippet)

    expect(code, `${stdout}${stderr}`).toBe(0)
    expect(stdout).toContain('pass 1')
  })

  describe.skipIf(process.platform === 'win32')('in a shell', () => {
    test.each(byPlace(inLanguage('sh')))('the commands at %s do it', async (place, { code, output }) => {
      await using world = await startWorld()
      const file = inLanguage('json').find(isFile)?.code ?? ''
      if (place.startsWith('docs/config.md')) {
        await writeFile(join(world.folder, 'pipe.config.json'), world.place(file))
      }
      const ending = await runShell(world, code, output?.code)

      expect(ending.code, `${ending.stdout}${ending.stderr}`).toBe(0)
    })

    test.each(byPlace(inLanguage('json').filter((one) => !isFile(one))))(
      'the npm scripts at %s work',
      async (_place, snippet) => {
        await using world = await startWorld()
        const { scripts }: { scripts: Record<string, string> } = JSON.parse(snippet.code)
        for (const script of Object.values(scripts)) {
          expect(await runShell(world, script)).toMatchObject({ code: 0 })
        }
      },
    )
  })
})

describe('config.md', () => {
  const files = runnable.filter((one) => isFile(one) && one.language !== 'text')

  test.each(byPlace(files))('the file at %s is taken, and does it', async (_place, { language, code }) => {
    await using world = await startWorld()
    const file = join(world.folder, `pipe.config.${language}`)
    const isServer = code.startsWith('[server]')
    // The well-known port may be taken.
    await writeFile(file, world.place(isServer ? code.replace('[server]', '[server]\nport = 0') : code))
    await using program = pipe([isServer ? 'server' : 'up'], { cwd: world.folder })

    if (isServer) {
      await program.stdout.line(/^pipe:/)
      await program.stderr.line(/public ports: 20000-20100/)
      return
    }
    const url = await program.stdout.line(/^http:/)
    expect((await fetch(url)).status).toBe(200)
    await program.stderr.line(/^db: tcp:.* leads to localhost:/)
  })

  test.each(['What is shared', 'Tunnels'])('names under %s what the schema has', async (heading) => {
    const { properties } = schema as ObjectSchema
    const tunnels = (properties.tunnels as ObjectSchema).additionalProperties as { anyOf: Schema[] }
    const tunnel = tunnels.anyOf.find((one): one is ObjectSchema & Schema => 'properties' in one)
    const known = heading === 'Tunnels' ? tunnel?.properties : properties
    const names = Object.keys(known ?? {}).filter((name) => !['$schema', 'tunnels', 'server'].includes(name))
    const documented = (await tableUnder('docs/config.md', heading)).map(([name]) => name)
    expect(documented).toEqual(names)
  })
})

describe('errors.md', () => {
  test('has a heading for each code, in the same order', async () => {
    const headings = [...(await readRepository('docs/errors.md')).matchAll(/^## (.+)$/gm)].map(
      ([, one]) => one,
    )
    expect(headings).toEqual(errorCodes)
  })

  const examples = snippets.filter(({ place }) => place.startsWith('docs/errors.md'))

  test('has no example that nothing here brings about', () => {
    expect(examples.map(({ heading }) => heading)).toEqual(Object.keys(causes))
  })

  test.for(examples.map(({ heading, code }) => [heading, code] as const))(
    'shows what %s says',
    async ([code, message], context) => {
      if (code === 'connection-lost' && process.platform === 'win32') {
        context.skip('Windows resets the connections of a program that is killed')
      }
      const error = await causes[code as keyof typeof causes]?.()
      expect(error).toBeInstanceOf(TunnelError)
      expect(error?.code).toBe(code)
      expect(mask(error?.message ?? '')).toBe(mask(message))
    },
  )
})

describe('reliability.md', () => {
  test('names tests that are there', async () => {
    const text = await readRepository('docs/reliability.md')
    const promised = [...text.matchAll(/`(test\/[\w-]+\.test\.ts)`: «(.+?)»/g)]
    expect(promised.length).toBeGreaterThan(20)
    const missing: string[] = []
    for (const [, file = '', name = ''] of promised) {
      const titles = [...(await readRepository(file)).matchAll(/\(\s*'([^'\n]+)',/g)].map(
        ([, one = '']) => one,
      )
      // A test is named alone, or behind what it is of.
      const isThere = titles.some(
        (one) =>
          name === one || (titles.includes(name.slice(0, -one.length - 1)) && name.endsWith(` ${one}`)),
      )
      if (!isThere) missing.push(`${file}: ${name}`)
    }
    expect(missing).toEqual([])
  })

  test('leaves no promise without a test', async () => {
    const text = await readRepository('docs/reliability.md')
    const rows = text.split('\n').filter((line) => /^\| (?!promise)/.test(line))
    expect(rows.filter((row) => !/«.+»/.test(row))).toEqual([])
  })
})

describe('options.md', () => {
  test.each([
    ['openTunnel', 'src/open-tunnel.ts', ['TunnelOptions'], 0],
    ['openTunnel', 'src/local-options.ts', ['LocalOptions', 'WaitOptions'], 1],
    ['forward', 'src/forward.ts', ['ForwardOptions'], 1],
    ['Conditions', 'src/conditions/options.ts', ['DirectionConditions', 'Conditions'], 0],
    ['Conditions', 'src/conditions/options.ts', ['Slice'], 1],
    ['inspect', 'src/inspector/recorder.ts', ['InspectOptions'], 0],
    ['inspect', 'src/inspector/replay.ts', ['ReplayEdits', 'WaitOptions'], 1],
    ['inspect', 'src/inspector/har.ts', ['ExportOptions'], 2],
    ['receiveWebhooks', 'fixtures/webhooks/receiver.ts', ['WebhookOptions'], 0],
    ['receiveWebhooks', 'fixtures/webhooks/verify.ts', ['VerifyOptions'], 1],
    ['receiveWebhooks', 'fixtures/webhooks/reply.ts', ['Reply'], 2],
    ['receiveWebhooks', 'fixtures/webhooks/history.ts', ['MatchOptions', 'CountOptions', 'NoneOptions'], 3],
    ['receiveWebhooks', 'fixtures/webhooks/replay.ts', ['ReplayOptions'], 4],
    ['createServer', 'src/server-options.ts', ['ServerOptions', 'WaitOptions'], 0],
    ['createServer', 'src/server-options.ts', ['ServerLimits'], 1],
    ['Named secrets', 'src/secrets.ts', ['NamedSecret'], 0],
    ['close', 'src/connections.ts', ['CloseOptions'], 0],
  ])('names the options of %s with the types and defaults of %s', async (heading, file, names, number) => {
    const source = `${await readRepository(file)}${await readRepository('src/deadline.ts')}`
    const options = names.flatMap((name) => propertiesIn(source, name))
    const documented = await tableUnder('docs/options.md', heading, number)

    expect(documented.map(([name]) => name)).toEqual([...new Set(options.map(({ name }) => name))])
    for (const [name, type, value] of documented) {
      const option = options.find((one) => one.name === name)
      const inCode = new RegExp(`\\b${name} = ([\\d_]+|'[^']*'|true|false)(?=[, ])`).exec(source)?.[1]
      expect({ name, type, value }).toEqual({
        name,
        type: option?.type,
        value: inCode?.replaceAll('_', ',') ?? expect.stringMatching(/^(none|see below)$/),
      })
      // What an editor shows says the same.
      expect(option?.comment ?? '').toMatch(
        inCode ? new RegExp(`Default \`?${value}\\b|Default \`${value}\``) : /^/,
      )
    }
  })

  test.each([
    [0, 'src/tunnel.ts', 'TunnelEvents'],
    [1, 'src/server-info.ts', 'ServerEvents'],
  ])('names in its table %i the events of %s', async (number, file, name) => {
    const events = propertiesIn(await readRepository(file), name)
    const documented = await tableUnder('docs/options.md', 'Events', number)

    expect(documented.map(([event, parameters]) => [event, parameters])).toEqual(
      events.map((event) => [event.name, event.type.replace(/(\w+): \w+|[[\]]/g, '$1')]),
    )
  })

  test('shows what targets lead to', async () => {
    await using server = await createServer()
    for (const [target = '', leadsTo, scheme] of await tableUnder('docs/options.md', 'Target')) {
      const value = target.startsWith("'") ? target.slice(1, -1) : Number(target)
      await using tunnel = await openTunnel(value, { server })
      expect([target, tunnel.target, new URL(tunnel.url).protocol]).toEqual([target, leadsTo, `${scheme}:`])
    }
  })

  test('names every environment variable of ours, and no other', async () => {
    const files = (await readdir(join(repository, 'src'), { recursive: true })).filter((one) =>
      one.endsWith('.ts'),
    )
    const sources = await Promise.all(files.map((file) => readRepository(join('src', file))))
    const inCode = sources.join('').match(/\bPIPE_\w+/g)
    const documented = (await tableUnder('docs/options.md', 'Environment')).map(([name]) => name)

    expect(documented.filter((name) => name?.startsWith('PIPE_')).sort()).toEqual([...new Set(inCode)].sort())
  })
})

describe('cli.md', () => {
  test.each(['expose', 'up', 'forward', 'server'])(
    'has the options that pipe %s --help shows',
    async (command) => {
      const { stdout } = await pipeToEnd([command, '--help'])
      const shown = [...stdout.matchAll(/^ {2}(--\S+(?: [<[][\w.]+[>\]])?)(?: |$)/gm)].map(
        ([, option]) => option,
      )

      expect(shown.length).toBeGreaterThan(5)
      const tables = await Promise.all(
        [0, 1].map((number) => tableUnder('docs/cli.md', `pipe ${command}`, number)),
      )
      const documented = tables.flat().map(([option]) => option)
      expect(documented.filter((option) => option?.startsWith('--'))).toEqual(shown)
    },
  )

  test('has a section for each command that pipe --help shows', async () => {
    const { stdout } = await pipeToEnd(['--help'])
    const [, commands = ''] = /^Commands:\n(.*?)^$/ms.exec(stdout) ?? []
    const shown = [...commands.matchAll(/^ {2}(\w+) .*$/gm)].map(([, command]) => command)
    const sections = [...(await readRepository('docs/cli.md')).matchAll(/^## pipe (\w+)$/gm)]

    expect([...sections.map(([, command]) => command), 'help']).toEqual(shown)
  })

  test('shows what targets lead to, and at which public port', async () => {
    await using world = await startWorld()
    const rows = (await tableUnder('docs/cli.md', 'Target')).map((row) => row.map(world.place))
    await using program = pipe(['expose', '--json', ...rows.map(([target = '']) => target)])
    const ready = () =>
      program.stdout.text
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line))
    await expect.poll(() => ready().length, { timeout: 30_000 }).toBe(rows.length)

    expect(ready().map(({ target, port, url }) => [target, port, new URL(url).protocol])).toEqual(
      rows.map(([, leadsTo, port, scheme]) => [
        leadsTo,
        port === 'any' ? expect.any(Number) : Number(port),
        `${scheme}:`,
      ]),
    )
  })

  test('shows which targets are refused', async () => {
    const rows = await tableUnder('docs/cli.md', 'Target', 1)
    expect(rows.length).toBeGreaterThan(3)
    for (const [target = ''] of rows) {
      const { code, stderr } = await pipeToEnd(['expose', target])
      expect([target, code, stderr]).toEqual([
        target,
        exit.usage,
        expect.stringMatching(/^pipe: (target|port) (must be|.* has no port)/),
      ])
    }
  })

  test('has every exit code', async () => {
    const codes = (await tableUnder('docs/cli.md', 'Ending')).map(([code]) => Number(code))
    expect(codes).toEqual(Object.values(exit))
  })

  test('shows JSON as it is printed, and has all of its fields', async (context) => {
    if (process.platform === 'win32') context.skip('Windows has no Ctrl-C to send')
    const printed = await printedJson()

    const [block] = inLanguage('jsonl')
    const documented = block?.code.split('\n').map((line) => JSON.parse(line)) ?? []
    expect(documented.map(shapeOf)).toEqual(printed.map(shapeOf))

    const events = [...new Set(printed.map(({ event }) => event))]
    expect((await tableUnder('docs/cli.md', 'JSON')).map(([event]) => event)).toEqual(events)
    for (const event of events) {
      const fields = (await tableUnder('docs/cli.md', 'JSON', 1))
        .filter(([, where]) =>
          where === 'all but error' ? event !== 'error' : where?.split(', ').includes(String(event)),
        )
        .map(([field]) => field)
      const { event: _, ...rest } = printed.find((one) => one.event === event) ?? {}
      expect(fields).toEqual(Object.keys(rest))
    }
  })
})

test.each([
  ...docs,
  'docs/design.md',
  'docs/performance.md',
  'docs/protocol.md',
  'docs/reliability.md',
  'CHANGELOG.md',
])('links in %s lead somewhere', async (file) => {
  const text = await readRepository(file)
  for (const [, path, anchor] of text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)) {
    const target = path ? normalize(join(file, '..', path)) : file
    expect(existsSync(join(repository, target)), `${target}, from ${file}`).toBe(true)
    if (anchor) expect(anchorsOf(await readRepository(target))).toContain(anchor)
  }
})

test('the changelog has an entry for this version', async () => {
  expect(await readRepository('CHANGELOG.md')).toContain(`\n## [${packageJson.version}] - `)
})

const repository = fileURLToPath(new URL('..', import.meta.url))

/** What brings each example of errors.md about. */
const causes = {
  aborted: () => rejection(openTunnel('localhost:3000', { signal: AbortSignal.abort() })),
  'address-unavailable': () =>
    rejection(createServer({ host: '192.0.2.1', port: 8910, secret: 'correct-horse-battery' })),
  async 'broken-on-purpose'() {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { conditions: { resetAfter: 0 } })
    const connected = pEvent<'connection', Connection>(tunnel, 'connection')
    await visit(tunnel)
    return (await (await connected).closed).error
  },
  async 'caddy-unreachable'() {
    const caddy = `http://127.0.0.1:${await freePort()}`
    return await rejection(createServer({ http: { port: 0, domain: 'example.com', caddy } }))
  },
  async closed() {
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port)
    const connected = pEvent<'connection', Connection>(tunnel, 'connection')
    const visitor = await visit(tunnel)
    visitor.write('ping')
    await once(visitor, 'data')
    const { closed } = await connected
    await tunnel.close()
    return (await closed).error
  },
  async 'closed-by-server'() {
    await using server = await createServer()
    const tunnel = await openTunnel(3000, { server })
    for (const info of server.tunnels) await info.close()
    return tunnel.closed
  },
  async 'connection-lost'() {
    await using server = pipe(['server', '--port', '0'])
    const tunnel = await openTunnel(3000, { server: await server.stdout.line(/^pipe:/), reconnect: false })
    server.signal('SIGKILL')
    return tunnel.closed
  },
  async 'hostname-not-allowed'() {
    const secrets = {
      alice: { secret: 'a-secret-for-alice', hostnames: ['shop'] },
      bob: { secret: 'a-secret-for-bob' },
    }
    await using server = await createServer({ http: { port: 0 }, secrets, tls: false })
    return await rejection(openTunnel(3000, { server, secret: 'a-secret-for-bob', hostname: 'shop' }))
  },
  async 'hostname-taken'() {
    await using server = await createServer({ http: { port: 0 } })
    await using _first = await openTunnel(3000, { server, hostname: 'shop' })
    return await rejection(openTunnel(3000, { server, hostname: 'shop' }))
  },
  async 'http-unavailable'() {
    await using server = await createServer()
    return await rejection(openTunnel(3000, { server, hostname: 'shop' }))
  },
  'insecure-address': () => rejection(createServer({ host: '0.0.0.0' })),
  'invalid-option': () => rejection(openTunnel(3000, { port: 99_999 })),
  async 'limit-reached'() {
    await using server = await createServer({ limits: { tunnels: 1 } })
    const { stderr } = await pipeToEnd(['expose', '3000', '3001', '--to', server.address])
    return new TunnelError('limit-reached', stderr.replace('pipe: ', '').trim())
  },
  async 'path-not-allowed'() {
    await using server = await createServer()
    return await rejection(openTunnel(3000, { server, listen: 'unix:x.sock' }))
  },
  async 'path-taken'() {
    await using folder = await temporaryFolder()
    const path = join(folder.path, 'taken.sock')
    await using _first = await forward(`unix:${path}`, 3000)
    const error = await rejection(forward(`unix:${path}`, 3000))
    return error && new TunnelError(error.code, error.message.replace(path, '/tmp/taken.sock'))
  },
  async 'port-not-allowed'() {
    await using server = await createServer({ ports: '20000-20100' })
    return await rejection(openTunnel(3000, { server, port: 8080 }))
  },
  async 'port-taken'() {
    await using other = await echoTarget()
    return await rejection(openTunnel(3000, { port: other.port }))
  },
  async 'ports-exhausted'() {
    await using other = await echoTarget()
    await using server = await createServer({ ports: other.port })
    return await rejection(openTunnel(3000, { server }))
  },
  async 'protocol-violation'() {
    await using web = await httpTarget((_request, response) => response.end())
    return await rejection(openTunnel(3000, { server: `127.0.0.1:${web.port}` }))
  },
  async 'secret-required'() {
    await using server = await createServer({ secret: 'correct-horse-battery' })
    return await rejection(openTunnel(3000, { server: server.address }))
  },
  async 'secret-revoked'() {
    await using server = await createServer({ secrets: { ci: { secret: 'correct-horse-battery' } } })
    server.revoke('ci')
    return await rejection(openTunnel(3000, { server, secret: 'correct-horse-battery' }))
  },
  async 'secret-wrong'() {
    await using server = await createServer({ secret: 'correct-horse-battery' })
    return await rejection(openTunnel(3000, { server: server.address, secret: 'not-the-secret' }))
  },
  async 'server-closed'() {
    const server = await createServer()
    const tunnel = await openTunnel(3000, { server })
    await server.close()
    return tunnel.closed
  },
  async 'server-unproven'() {
    await using server = await createServer()
    return await rejection(openTunnel(3000, { server: server.address, secret: 'correct-horse-battery' }))
  },
  async 'server-unreachable'() {
    return await rejection(openTunnel(3000, { server: `127.0.0.1:${await freePort()}` }))
  },
  async 'target-unreachable'() {
    await using tunnel = await openTunnel(`127.0.0.1:${await freePort()}`)
    const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')
    await visit(tunnel)
    return (await rejected).error
  },
  async timeout() {
    await using server = await silentTarget()
    return await rejection(openTunnel(3000, { server: `127.0.0.1:${server.port}`, timeout: 100 }))
  },
  async 'tls-required'() {
    await using server = await createServer({ tls: makeCertificate(['127.0.0.1']) })
    return await rejection(openTunnel(3000, { server: server.address }))
  },
  async 'unexpected-request'() {
    await using hook = await receiveWebhooks()
    await fetch(`${hook.url}/paid`, { method: 'POST', body: '{}' })
    return await rejection(hook.expectNone({ within: 1 }).then(() => hook))
  },
  async 'url-unreachable'() {
    const domain = `http://tunnels.localhost:${await freePort()}`
    await using server = await createServer({ http: { port: 0, domain } })
    return await rejection(openTunnel(3000, { server, hostname: 'shop', timeout: 3_000 }))
  },
  async 'visitor-denied'() {
    await using tunnel = await forward(0, 3000, { deny: ['127.0.0.1'] })
    const rejected = pEvent<'reject', Rejection>(tunnel, 'reject')
    // Its reset may come with the connection.
    await visit(tunnel).catch(() => {})
    return (await rejected).error
  },
} satisfies Partial<Record<string, () => Promise<TunnelError | undefined>>>

/** What it rejects with. */
async function rejection(promise: Promise<AsyncDisposable>): Promise<TunnelError | undefined> {
  try {
    await using _opened = await promise
    return undefined
  } catch (error) {
    return error as TunnelError
  }
}

/** Each JSON object that `pipe expose --json` can print, in the order of the documentation. */
async function printedJson(): Promise<Record<string, unknown>[]> {
  await using target = await httpTarget((_request, response) => response.end('ok'))
  const server = await createServer()
  await using program = pipe(['expose', '--json', target.address, '--to', server.address])
  const { url } = JSON.parse(await program.stdout.line(/"ready"/))
  await fetch(url, { headers: { connection: 'close' } })
  await program.stdout.line(/"connection"/)
  await target[Symbol.asyncDispose]()
  await expect(fetch(url)).rejects.toThrow()
  await program.stdout.line(/target-unreachable/)
  await server.close()
  await using _restarted = await createServer({ port: server.port })
  await program.stdout.line(/"reconnect"/)
  program.signal('SIGINT')
  const { stdout } = await program.ended()
  const closing = stdout.lastIndexOf('\n', stdout.length - 2)

  const failed = await pipeToEnd(['expose', '--json', '3000', '--to', `127.0.0.1:${target.port}`])
  return `${stdout.slice(0, closing)}\n${await printedDrop()}${stdout.slice(closing)}${failed.stdout}`
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}

/** The line of a datagram for a target that is not there. */
async function printedDrop(): Promise<string> {
  await using program = pipe(['expose', '--json', `udp://127.0.0.1:${await freePort()}`])
  const { host, port } = JSON.parse(await program.stdout.line(/"ready"/))
  const visitor = dgram.createSocket('udp4')
  visitor.send('hello', port, host)
  const line = await program.stdout.line(/"drop"/)
  visitor.close()
  return line
}

/** A value with what differs from run to run replaced by its type. */
function shapeOf(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value === null ? null : typeof value
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, /^(event|code)$/.test(key) ? one : shapeOf(one)]),
  )
}

interface Property {
  name: string
  type: string
  comment: string
}

/** The properties of an interface in a source file. */
function propertiesIn(source: string, name: string): Property[] {
  const [, body = ''] =
    new RegExp(`^export interface ${name}\\b[^{]*\\{\\n([\\s\\S]*?)\\n\\}`, 'm').exec(source) ?? []
  return [...body.matchAll(/(?:\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s+)?^ {2}(\w+)\??: (.+)$/gm)].map(
    ([, comment = '', property = '', type = '']) => ({ name: property, type, comment }),
  )
}

/** As GitHub makes them. */
function anchorsOf(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
}
