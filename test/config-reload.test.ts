/** SIGHUP: the configuration file is read again, and what has not changed there goes on. */
import { EventEmitter, once } from 'node:events'
import { cp, mkdir, symlink } from 'node:fs/promises'
import net from 'node:net'
import path from 'node:path'
import { pEvent } from 'p-event'
import { createServer, openTunnel, type Server } from 'pipe-tunnel'
import { describe, expect, type TestContext, test } from 'vitest'
import {
  cli,
  freePort,
  type Program,
  pipe,
  pipeInShell,
  runToEnd,
  start,
  temporaryFolder,
} from './helpers/command.js'
import { project, ready } from './helpers/project.js'
import { snippetsOf } from './helpers/snippets.js'
import { echoTarget, httpTarget, tcpTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

const SECRET = 'correct-horse-battery'
const OTHER = 'quite-another-secret'

/** Sends SIGHUP, and resolves with the line that tells of the reading. */
async function reload(program: Program, line: RegExp): Promise<string> {
  program.signal('SIGHUP')
  return program.stderr.line(line)
}

describe('pipe up', () => {
  test('opens, closes and changes tunnels over the same control connection, and leaves the others alone', async (context) => {
    needsSignals(context)
    await using target = await echoTarget()
    await using server = await createServer()
    const port = await freePort()
    const [kept, gone] = [target.port, target.port]
    const first = { kept, gone, changed: { target: target.port, port } }
    await using folder = await project({ 'pipe.config.json': { to: server.address, tunnels: first } })
    await using program = pipe(['up', '--json'], { cwd: folder.path })
    const [keptPlace, gonePlace] = [await ready(program, 'kept'), await ready(program, 'gone')]
    const [client] = server.tunnels.map(({ client }) => client.port)
    const visitor = await visit(keptPlace)
    await converse(visitor)

    const then = { kept, changed: { target: target.port, port, deny: ['127.0.0.1'] }, added: target.port }
    await folder.write('pipe.config.json', { to: server.address, tunnels: then })
    await reload(
      program,
      /^pipe\.config\.json was read again: 2 closed \(gone, changed\), 2 opened \(changed, added\), 1 unchanged$/,
    )

    await converse(visitor)
    expect(String(await ask(keptPlace, 'hello'))).toBe('hello')
    expect(String(await ask(await ready(program, 'added'), 'hello'))).toBe('hello')
    await expect(visit(gonePlace)).rejects.toThrow()
    await expect(ask({ port }, 'hello')).rejects.toThrow()
    expect(server.tunnels.map(({ client }) => client.port)).toEqual([client, client, client])
    visitor.destroy()
    program.signal('SIGINT')
    expect((await program.ended()).code).toBe(0)
  })

  test('reads the file again that was changed before its tunnels were open', async (context) => {
    needsSignals(context)
    await using target = await echoTarget()
    await using server = await createServer()
    const events = new EventEmitter()
    const opened = once(events, 'open')
    await using way = await tcpTarget(async (socket) => {
      await opened
      const there = net.connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true })
      socket.pipe(there).pipe(socket)
    })
    const to = `pipe://127.0.0.1:${way.port}`
    await using folder = await project({ 'pipe.config.json': { to, tunnels: { first: target.port } } })
    await using program = pipe(['up', '--json'], { cwd: folder.path })
    await pEvent(way.server, 'connection', { timeout: 30_000 })
    await folder.write('pipe.config.json', { to, tunnels: { second: target.port } })
    program.signal('SIGHUP')
    events.emit('open')

    await program.stderr.line(
      /^pipe\.config\.json was read again: 1 closed \([^)]+\), 1 opened \([^)]+\), 0 unchanged$/,
    )
    expect(String(await ask(await ready(program, 'second'), 'hello'))).toBe('hello')
  })

  test('is told to by the commands that the docs have for it', async (context) => {
    needsSignals(context)
    const snippets = await snippetsOf('docs/config.md')
    const own = snippets.filter(
      ({ heading, language }) => heading === 'Reading it again' && language === 'sh',
    )
    const [begin = '', hangUp = ''] = own.map(({ code }) => code)
    await using target = await echoTarget()
    const text = (tunnels: object) => JSON.stringify({ tunnels })
    await using folder = await project({ 'pipe.config.json': text({ one: target.port }) })
    await mkdir(`${folder.path}/node_modules/.bin`, { recursive: true })
    await symlink(cli, `${folder.path}/node_modules/.bin/pipe`)
    const cwd = folder.path
    await using shell = start('bash', ['-c', `${begin}\nwait`], { cwd })
    try {
      await shell.stderr.line(/leads to/)
      await folder.write('pipe.config.json', text({ one: target.port, two: target.port }))
      await runToEnd('bash', ['-c', hangUp], { cwd })
      await shell.stderr.line(/was read again/)
    } finally {
      await runToEnd('bash', ['-c', hangUp.replace('-HUP', '-TERM')], { cwd })
    }
    expect((await shell.ended()).stderr).toContain('two: ')
  })

  test('serves one page for the tunnels with inspect, from the first of them on, also of those that came later', async (context) => {
    needsSignals(context)
    await using target = await httpTarget((_, response) => response.end('here'))
    await using server = await createServer()
    const tunnels: Record<string, unknown> = { plain: target.port }
    const write = () => folder.write('pipe.config.json', { to: server.address, tunnels })
    await using folder = await project({
      'pipe.config.json': { to: server.address, tunnels },
    })
    await using program = pipe(['up', '--json'], { cwd: folder.path })
    expect(await ready(program, 'plain')).toMatchObject({ inspector: null })

    const pages: string[] = []
    for (const name of ['one', 'two']) {
      tunnels[name] = { target: target.port, inspect: true }
      await write()
      program.signal('SIGHUP')
      const { url, inspector } = await ready(program, name)
      await (await fetch(`${url}/${name}`)).text()
      pages.push(String(inspector))
    }

    expect(pages[0]).toMatch(/^http:/)
    expect(pages[1]).toBe(pages[0])
    const recorded = await (await fetch(`${pages[0]}api/requests`)).json()
    expect(recorded).toMatchObject([{ url: '/one' }, { url: '/two' }])
    program.signal('SIGINT')
    expect((await program.ended()).code).toBe(0)
  })

  test('opens a tunnel that has changed at the public address that the server had chosen for it', async (context) => {
    needsSignals(context)
    await using target = await httpTarget((_, response) => response.end('here'))
    await using server = await createServer({ http: { port: 0 } })
    const write = (both: object) => {
      const tunnels = {
        port: { target: target.port, ...both },
        name: { target: target.port, hostname: true, ...both },
        datagrams: { target: `udp:127.0.0.1:${target.port}`, ...both },
      }
      return folder.write('pipe.config.json', { to: server.address, tunnels })
    }
    await using folder = await project({})
    await write({})
    await using program = pipe(['up', '--json'], { cwd: folder.path })
    await ready(program, 'datagrams')
    const before = places(server)

    await write({ allow: ['127.0.0.1'] })
    await reload(program, /: 3 closed \([^)]+\), 3 opened \([^)]+\), 0 unchanged$/)
    await folder.write('pipe.config.json', { to: server.address, tunnels: { other: target.port } })
    await reload(program, /: 3 closed \([^)]+\), 1 opened \([^)]+\), 0 unchanged$/)
    await write({ deny: ['192.0.2.1'] })
    await reload(program, /: 1 closed \([^)]+\), 3 opened \([^)]+\), 0 unchanged$/)

    expect(places(server)).toEqual(before)
  })

  test('opens a tunnel that has changed at another port where somebody has taken the one that it had', async (context) => {
    needsSignals(context)
    await using target = await echoTarget()
    await using server = await createServer()
    const write = (tunnels: object) => folder.write('pipe.config.json', { to: server.address, tunnels })
    await using folder = await project({})
    await write({ kept: target.port, web: target.port })
    await using program = pipe(['up', '--json'], { cwd: folder.path })
    const { port } = await ready(program, 'web')
    await write({ kept: target.port })
    await reload(program, /: 1 closed \([^)]+\), 0 opened, 1 unchanged$/)
    await using other = await openTunnel(target.port, { server, port })

    await write({ kept: target.port, web: target.port })
    await reload(program, /: 0 closed, 1 opened \([^)]+\), 1 unchanged$/)
    const web = server.tunnels.at(-1) as { port: number }
    expect([web.port, other.port]).not.toEqual([port, port])
    expect(String(await ask(web, 'hello'))).toBe('hello')
  })

  test('leaves a port that the server had chosen to the tunnel that the file gives it to', async (context) => {
    needsSignals(context)
    await using target = await echoTarget()
    await using server = await createServer()
    const write = (tunnels: object) => folder.write('pipe.config.json', { to: server.address, tunnels })
    await using folder = await project({})
    await write({ web: target.port })
    await using program = pipe(['up', '--json'], { cwd: folder.path })
    const { port } = await ready(program, 'web')
    await write({
      web: { target: target.port, deny: ['192.0.2.1'] },
      api: { target: target.port, port },
    })
    await reload(program, /: 1 closed \([^)]+\), 2 opened \([^)]+\), 0 unchanged$/)
    expect((await ready(program, 'api')).port).toBe(port)
  })

  test('takes the requests of a tunnel that is replaced off the page', async (context) => {
    needsSignals(context)
    await using target = await httpTarget((_, response) => response.end('here'))
    await using server = await createServer()
    const write = (changed: object) => {
      const tunnels = {
        kept: { target: target.port, inspect: true },
        changed: { target: target.port, inspect: true, ...changed },
      }
      return folder.write('pipe.config.json', { to: server.address, tunnels })
    }
    await using folder = await project({})
    await write({})
    await using program = pipe(['up', '--json'], { cwd: folder.path })
    const [kept, before] = [await ready(program, 'kept'), await ready(program, 'changed')]
    const visitOnce = async (url: string) =>
      await (await fetch(url, { headers: { connection: 'close' } })).text()
    await visitOnce(`${kept.url}/kept`)
    await visitOnce(`${before.url}/before`)
    const events = await fetch(`${kept.inspector}api/events`)
    const recorded = async () => {
      const all = (await (await fetch(`${kept.inspector}api/requests`)).json()) as { url: string }[]
      return all.map(({ url }) => url)
    }
    expect(await recorded()).toEqual(['/kept', '/before'])

    await write({ deny: ['192.0.2.1'] })
    await reload(program, /: 1 closed \([^)]+\), 1 opened \([^)]+\), 1 unchanged$/)
    await visitOnce(`${before.url}/after`)

    await expect.poll(recorded, { timeout: 15_000 }).toEqual(['/kept', '/after'])
    let told = ''
    for await (const piece of events.body ?? []) {
      told += Buffer.from(piece)
      if (/^event: gone$/m.test(told)) break
    }
    expect(told).toMatch(/^event: gone$/m)
  })

  test('tells that the page can not be served, and of the tunnel that it was to show', async (context) => {
    needsSignals(context)
    await using target = await echoTarget()
    await using server = await createServer()
    await using install = await installedWithout('page')
    const tunnels: Record<string, unknown> = { plain: target.port }
    const write = () => folder.write('pipe.config.json', { to: server.address, tunnels })
    await using folder = await project({})
    await write()
    await using program = start(process.execPath, [install.command, 'up', '--json'], { cwd: folder.path })
    await ready(program, 'plain')

    tunnels.inspected = { target: target.port, inspect: true }
    await write()
    await reload(
      program,
      /^pipe: pipe\.config\.json: tunnels\.inspected: it is open, but no page can show its requests: /,
    )
    await program.stderr.line(/: 0 closed, 1 opened \([^)]+\), 1 unchanged$/)
    const place = await ready(program, 'inspected')
    expect(place.inspector).toBeNull()
    expect(String(await ask(place, 'hello'))).toBe('hello')

    await install.mend()
    tunnels.more = { target: target.port, inspect: true }
    await write()
    program.signal('SIGHUP')
    expect((await ready(program, 'more')).inspector).toMatch(/^http:/)
    program.signal('SIGINT')
    const { code, stdout } = await program.ended()
    expect([code, stdout.match(/"event":"close"/g)?.length]).toEqual([0, 3])
  })

  test.for([
    ['json', '{ "tunnels": { "web": ', /^pipe: pipe\.config\.json:1:\d+: value expected$/],
    [
      'json',
      '{ "tunnels": { "web": { "target": "x" } } }',
      /^pipe: pipe\.config\.json: tunnels\.web\.target /,
    ],
    ['cjs', 'throw new Error("no")', /^pipe: pipe\.config\.cjs:1:\d+: no$/],
    [
      'ts',
      'export default { tunnels: 1 as number }',
      /^pipe: pipe\.config\.ts: tunnels must be an object, not 1$/,
    ],
  ] as const)(
    'reports a broken file of %s (%s), changes nothing, and takes it once it is mended',
    async ([ending, broken, complaint], context) => {
      needsSignals(context)
      await using target = await echoTarget()
      const file = `pipe.config.${ending}`
      const text = (tunnels: object) => {
        const json = JSON.stringify({ tunnels })
        return ending === 'json'
          ? json
          : `${ending === 'cjs' ? 'module.exports =' : 'export default'} ${json}`
      }
      await using folder = await project({ [file]: text({ web: target.port }) })
      await using program = pipe(['up', '--json'], { cwd: folder.path })
      const place = await ready(program, 'web')
      const visitor = await visit(place)
      await converse(visitor)

      await folder.write(file, broken)
      await reload(program, complaint)
      await program.stderr.line(/^the tunnels stay as they are$/)
      await converse(visitor)

      await folder.write(file, text({ web: target.port, more: target.port }))
      await reload(program, /was read again: 0 closed, 1 opened \(\w+\), 1 unchanged$/)
      expect(String(await ask(await ready(program, 'more'), 'hello'))).toBe('hello')
      await converse(visitor)
      visitor.destroy()
    },
  )

  test('tells of a tunnel that can not be opened, and tries again at the next reading', async (context) => {
    needsSignals(context)
    await using target = await echoTarget()
    await using server = await createServer()
    const taken = await echoTarget()
    const { port } = taken
    await using folder = await project({
      'pipe.config.json': { to: server.address, tunnels: { web: target.port } },
    })
    await using program = pipe(['up', '--json'], { cwd: folder.path })
    const place = await ready(program, 'web')
    const tunnels = { web: target.port, more: { target: target.port, port } }
    await folder.write('pipe.config.json', { to: server.address, tunnels })
    await reload(program, /^pipe: pipe\.config\.json: tunnels\.more: .*is taken/)
    expect(String(await ask(place, 'hello'))).toBe('hello')

    await taken[Symbol.asyncDispose]()
    await reload(program, /was read again: 0 closed, 1 opened \(\w+\), 1 unchanged$/)
    expect(String(await ask({ port }, 'hello'))).toBe('hello')
  })

  test('says that another server needs another start', async (context) => {
    needsSignals(context)
    await using server = await createServer()
    await using other = await createServer()
    await using folder = await project({ 'pipe.config.json': { to: server.address, tunnels: { web: 3000 } } })
    await using program = pipe(['up'], { cwd: folder.path })
    await program.stdout.line(/^http:/)
    await folder.write('pipe.config.json', { to: other.address, tunnels: { web: 3000, more: 3001 } })
    await reload(program, /^pipe: pipe\.config\.json: what all tunnels share has changed, /)
    await program.stderr.line(/: 0 closed, 1 opened \(\w+\), 1 unchanged$/)
    expect([server.tunnels.length, other.tunnels.length]).toEqual([2, 0])
  })

  test('ends when its terminal is closed, which sends SIGHUP too', async (context) => {
    needsSignals(context)
    context.skip(process.platform !== 'linux', 'needs script of util-linux to make a terminal')
    await using server = await createServer()
    await using folder = await project({ 'pipe.config.json': { to: server.address, tunnels: { web: 3000 } } })
    const terminal = start('script', ['-qec', `exec ${pipeInShell} up`, '/dev/null'], { cwd: folder.path })
    await terminal.stdout.line(/^http:/)
    const [tunnel] = server.tunnels
    // With script, the master of its terminal is gone.
    await terminal[Symbol.asyncDispose]()
    await tunnel?.closed
    expect(server.tunnels).toEqual([])
  })
})

describe('pipe server', () => {
  test('takes secrets in and back, and lists of visitors, while who is not concerned stays inside', async (context) => {
    needsSignals(context)
    await using target = await echoTarget()
    const secrets = { ci: { secret: SECRET }, guests: { secret: OTHER } }
    await using folder = await project({ 'pipe.config.json': { server: { port: 0, secrets } } })
    await using program = pipe(['server'], { cwd: folder.path })
    const server = await program.stdout.line(/^pipe:/)
    await using kept = await openTunnel(target.port, { server, secret: SECRET })
    await using gone = await openTunnel(target.port, { server, secret: OTHER })
    const visitor = await visit(kept)
    await converse(visitor)

    const then = { ci: { secret: SECRET, maxTunnels: 1 }, more: { secret: 'a-third-secret' } }
    await folder.write('pipe.config.json', { server: { port: 0, secrets: then } })
    await reload(program, /^pipe\.config\.json was read again$/)

    expect(await gone.closed).toMatchObject({ code: 'secret-revoked' })
    await converse(visitor)
    await expect(openTunnel(target.port, { server, secret: OTHER })).rejects.toMatchObject({
      code: 'secret-wrong',
    })
    await expect(openTunnel(target.port, { server, secret: SECRET })).rejects.toMatchObject({
      code: 'limit-reached',
    })
    await using more = await openTunnel(target.port, { server, secret: 'a-third-secret' })
    expect(String(await ask(more, 'hello'))).toBe('hello')

    await folder.write('pipe.config.json', { server: { port: 1, secrets: then, deny: ['127.0.0.1'] } })
    await reload(program, /^pipe\.config\.json was read again; port will hold when it is started again$/)
    await expect(ask(more, 'hello')).rejects.toThrow()
    await converse(visitor)
    visitor.destroy()
  })

  test.for([
    ['{', / pipe\.config\.json:1:2: .*; the server stays as it is$/],
    [{ server: { port: 0 } }, / a server that runs can neither begin to encrypt nor stop it: /],
    [
      { server: { port: 0, secret: SECRET, limits: { tunnels: 0 } } },
      / pipe\.config\.json: server\.limits\.tunnels .*; the server stays as it is$/,
    ],
  ] as const)('reports %j, and stays as it is', async ([broken, complaint], context) => {
    needsSignals(context)
    await using target = await echoTarget()
    await using folder = await project({ 'pipe.config.json': { server: { port: 0, secret: SECRET } } })
    await using program = pipe(['server'], { cwd: folder.path })
    const server = await program.stdout.line(/^pipe:/)
    await using tunnel = await openTunnel(target.port, { server, secret: SECRET })
    await folder.write('pipe.config.json', broken)
    await reload(program, complaint)
    await using other = await openTunnel(target.port, { server, secret: SECRET })
    for (const one of [tunnel, other]) expect(String(await ask(one, 'hello'))).toBe('hello')
  })

  test('ends at SIGHUP where it has no file', async (context) => {
    needsSignals(context)
    await using program = pipe(['server', '--port', '0'])
    await program.stdout.line(/^pipe:/)
    program.signal('SIGHUP')
    expect((await program.ended()).code).toBe(0)
  })
})

describe('server.update', () => {
  test('makes one change after the other, so that none is lost', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ secret: SECRET })
    await Promise.all([
      server.update({ secret: OTHER }),
      server.update({ deny: ['127.0.0.1'] }),
      server.update({ limits: { tunnels: 1 } }),
    ])
    await using tunnel = await openTunnel(target.port, { server })

    expect(server.secret).toBe(OTHER)
    await expect(ask(tunnel, 'hello')).rejects.toThrow()
  })

  test.each([
    ['a list', { limits: [] }, /^limits must be an object/],
    [
      'what a secret does not have',
      { secrets: { a: { secret: OTHER, hostname: ['shop'] } } },
      /^secrets\.a has no "hostname": did you mean hostnames\?/,
    ],
  ])('refuses %s, and then changes nothing', async (_, wrong, message) => {
    await using server = await createServer({ secret: SECRET })

    await expect(server.update({ secret: OTHER, ...(wrong as object) })).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringMatching(message),
    })
    expect(server.secret).toBe(SECRET)
  })

  test('refuses a promise, which holds no changes', async () => {
    await using server = await createServer()

    await expect(server.update(Promise.resolve({}) as object)).rejects.toThrow('did you forget await?')
  })

  test('changes limits for clients that log in from then on, and leaves out what it is not told', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ secret: SECRET, deny: ['192.0.2.1'] })
    await using before = await openTunnel(target.port, { server })
    await server.update({ limits: { clients: 1 } })
    await expect(openTunnel(target.port, { server })).rejects.toMatchObject({ code: 'limit-reached' })
    expect(String(await ask(before, 'hello'))).toBe('hello')
    expect(server.secret).toBe(SECRET)
  })

  test('changes at once how many connections to the HTTP port there may be', async () => {
    await using server = await createServer({ http: { port: 0 }, limits: { httpConnections: 1 } })
    const place = { port: server.httpPort as number }
    const answered = async (visitor: net.Socket) => {
      visitor.write('GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n')
      const [answer] = await once(visitor, 'data')
      return String(answer).split('\r\n')[0]
    }
    const first = await visit(place)
    expect(await ending(await visit(place))).toMatch(/end|reset/)

    await server.update({ limits: { httpConnections: 2 } })
    const second = await visit(place)
    expect(await answered(second)).toBe('HTTP/1.1 404 Not Found')
    await server.update({ limits: {} })
    const third = await visit(place)
    expect(await answered(third)).toBe('HTTP/1.1 404 Not Found')
    await server.update({ limits: { httpConnections: 1 } })
    expect(await ending(await visit(place))).toMatch(/end|reset/)
    expect(await answered(first)).toBe('HTTP/1.1 404 Not Found')
    for (const visitor of [first, second, third]) visitor.destroy()
  })

  test('refuses what can not change while it runs', async () => {
    await using server = await createServer()
    await expect(server.update({ port: 1 } as object)).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(server.update({ secret: SECRET })).rejects.toMatchObject({ code: 'invalid-option' })
    expect(server.secret).toBeUndefined()
  })
})

function needsSignals(context: TestContext): void {
  if (process.platform === 'win32') context.skip('Windows has no SIGHUP to send')
}

/** Name or else port of each tunnel, sorted. */
function places(server: Server): string[] {
  return server.tunnels.map(({ hostname, port }) => hostname ?? String(port)).sort()
}

/** A copy of the built package of which a folder is missing, until it is mended. */
async function installedWithout(missing: string) {
  const folder = await temporaryFolder()
  const built = path.dirname(cli)
  await cp(path.join(built, '../package.json'), path.join(folder.path, 'package.json'))
  await cp(built, path.join(folder.path, 'dist'), {
    recursive: true,
    filter: (from) => from !== path.join(built, missing),
  })
  const mend = () =>
    cp(path.join(built, missing), path.join(folder.path, 'dist', missing), { recursive: true })
  return { ...folder, command: path.join(folder.path, 'dist/cli.js'), mend }
}

async function converse(visitor: net.Socket): Promise<void> {
  visitor.write('?')
  const [answer] = await once(visitor, 'data')
  expect(`${answer}`).toBe('?')
}
