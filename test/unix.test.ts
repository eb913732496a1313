/** Unix sockets that visitors come to: their files, and who may have one. */
import { once } from 'node:events'
import { existsSync, lstatSync, type Stats } from 'node:fs'
import { mkdir, mkdtemp, readFile, realpath, rename, rm, symlink, writeFile } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { pEvent } from 'p-event'
import {
  type Connection,
  createServer,
  forward,
  openTunnel,
  type Tunnel,
  type TunnelInfo,
  type TunnelOptions,
} from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { echoTarget, track } from './helpers/targets.js'
import { ask, visit } from './helpers/visitor.js'

interface Folder extends AsyncDisposable {
  path: string
  at(name: string): string
}

/** A folder of its own. Its path is short: that of a socket may not be long. */
async function folder(): Promise<Folder> {
  const path = await realpath(await mkdtemp(join(tmpdir(), 'pipe-')))
  return {
    path,
    at: (name) => join(path, name),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  }
}

/** The file of a unix socket that nobody listens on any more. */
async function leaveStale(path: string): Promise<Stats> {
  const server = net.createServer().listen(`${path}.old`)
  await once(server, 'listening')
  // Node would remove it.
  await rename(`${path}.old`, path)
  server.close()
  await once(server, 'close')
  await expect(visit({ path })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  return lstatSync(path)
}

interface Way {
  name: string
  open(path: string, target: number): Promise<Tunnel>
}

const ways: Way[] = [
  { name: 'forward', open: (path, target) => forward(`unix:${path}`, target) },
  { name: 'openTunnel', open: (path, target) => openTunnel(target, { listen: `unix:${path}` }) },
]

describe.skipIf(process.platform === 'win32')('a unix socket', () => {
  describe.each(ways)('of $name', ({ open }) => {
    test('is a file while it is open, and none afterwards', async () => {
      await using target = await echoTarget()
      await using place = await folder()
      const path = place.at('x.sock')
      const tunnel = await open(path, target.port)

      expect(lstatSync(path).isSocket()).toBe(true)
      expect(tunnel).toMatchObject({ path, protocol: 'unix', host: '', port: 0, url: `unix:${path}` })
      expect((await ask({ path }, 'hello')).toString()).toBe('hello')
      await tunnel.close()

      expect(existsSync(path)).toBe(false)
    })

    test('replaces a file that nobody listens on', async () => {
      await using target = await echoTarget()
      await using place = await folder()
      const path = place.at('x.sock')
      await leaveStale(path)

      await using tunnel = await open(path, target.port)

      expect((await ask(tunnel, 'mine')).toString()).toBe('mine')
    })

    test('leaves one alone that somebody listens on', async () => {
      await using place = await folder()
      const path = place.at('x.sock')
      const server = net.createServer((socket) => socket.on('error', () => {}).end('still here'))
      await using _other = await track(server, { path })
      const before = lstatSync(path).ino

      const opening = open(path, 3000)
      await expect(opening).rejects.toMatchObject({ name: 'TunnelError', code: 'path-taken' })
      await expect(opening).rejects.toThrow(`${path} is taken by another program or tunnel`)

      expect(lstatSync(path).ino).toBe(before)
      expect((await ask({ path }, '')).toString()).toBe('still here')
    })

    test('leaves one alone that another tunnel listens on', async () => {
      await using target = await echoTarget()
      await using place = await folder()
      const path = place.at('x.sock')
      await using first = await open(path, target.port)

      await expect(open(path, 3000)).rejects.toMatchObject({ code: 'path-taken' })

      expect((await ask(first, 'still here')).toString()).toBe('still here')
    })

    test('leaves a file alone that is no socket', async () => {
      await using place = await folder()
      const path = place.at('notes.txt')
      await writeFile(path, 'dear to somebody')

      const opening = open(path, 3000)
      await expect(opening).rejects.toMatchObject({ code: 'path-taken' })
      await expect(opening).rejects.toThrow(`${path} is there and is no socket`)
      expect(await readFile(path, 'utf8')).toBe('dear to somebody')
    })

    test('leaves a folder and a link alone', async () => {
      await using place = await folder()
      const path = place.at('stale.sock')
      await leaveStale(path)
      await symlink(path, place.at('link'))
      await mkdir(place.at('folder'))

      for (const name of ['link', 'folder']) {
        await expect(open(place.at(name), 3000)).rejects.toMatchObject({ code: 'path-taken' })
      }
      expect(lstatSync(place.at('link')).isSymbolicLink()).toBe(true)
      expect(lstatSync(path).isSocket()).toBe(true)
    })

    test('can not be where there is no folder', async () => {
      await using place = await folder()
      const path = place.at('nowhere/x.sock')
      await expect(open(path, 3000)).rejects.toMatchObject({
        code: 'address-unavailable',
        message: expect.stringContaining(`can't listen on unix:${path}`),
      })
    })

    test('leaves the file of another alone that has come in its place', async () => {
      await using target = await echoTarget()
      await using place = await folder()
      const path = place.at('x.sock')
      const first = await open(path, target.port)
      await rm(path)
      await using second = await open(path, target.port)

      await first.close()

      expect((await ask(second, 'still here')).toString()).toBe('still here')
    })

    test('has a visitor that closes both directions at once, as curl does, end well', async () => {
      await using target = await echoTarget()
      await using place = await folder()
      await using tunnel = await open(place.at('x.sock'), target.port)
      const connected = pEvent<'connection', Connection>(tunnel, 'connection')
      const visitor = await visit(tunnel)
      visitor.write('hello')
      await once(visitor, 'data')
      visitor.destroy()

      const { closed } = await connected
      const end = await closed
      expect(end).toMatchObject({ bytesIn: 5, bytesOut: 5 })
      expect(end.error).toBeUndefined()
    })

    test('is given to one of several that want it at once', async () => {
      await using target = await echoTarget()
      await using place = await folder()
      const path = place.at('x.sock')
      for (let round = 0; round < 10; round++) {
        await leaveStale(path)
        const outcomes = await Promise.allSettled(Array.from({ length: 5 }, () => open(path, target.port)))
        const opened = outcomes.filter((one) => one.status === 'fulfilled').map(({ value }) => value)
        const codes = outcomes.filter((one) => one.status === 'rejected').map(({ reason }) => reason.code)
        try {
          expect(codes).toEqual(Array(4).fill('path-taken'))
          expect(opened).toHaveLength(1)
          expect((await ask({ path }, 'hello')).toString()).toBe('hello')
        } finally {
          for (const tunnel of opened) await tunnel.close()
        }
      }
    })

    test('may have any name that a file may have', async () => {
      await using target = await echoTarget()
      await using place = await folder()
      for (const name of ['a b', 'ü', '#%?', '..x', "it's"]) {
        await using tunnel = await open(place.at(name), target.port)
        expect(tunnel.path).toBe(place.at(name))
        expect((await ask({ path: place.at(name) }, 'hello')).toString()).toBe('hello')
      }
    })

    test('whose name has control characters is opened, or refused with a sentence', async () => {
      await using target = await echoTarget()
      await using place = await folder()
      const outcome = await open(place.at('a\nb'), target.port).then(
        async (tunnel) => {
          await tunnel.close()
          return 'opened'
        },
        ({ code }) => code,
      )
      expect(['opened', 'invalid-option']).toContain(outcome)
    })
  })

  test('has the permissions that are asked for', async () => {
    await using place = await folder()
    for (const mode of [0o600, 0o660, 0o666, 0]) {
      const path = place.at(`${mode}.sock`)
      await using _tunnel = await forward(`unix:${path}`, 3000, { mode })
      expect(lstatSync(path).mode & 0o777).toBe(mode)
    }
  })

  test.each([-1, 0o1000, 1.5, Number.NaN, '600'])('has no permissions %j', async (mode) => {
    await using place = await folder()
    const opening = forward(`unix:${place.at('x.sock')}`, 3000, { mode: mode as number })
    await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(opening).rejects.toThrow(/^mode must be /)
    expect(existsSync(place.at('x.sock'))).toBe(false)
  })
})

describe.skipIf(process.platform === 'win32')("a server's folder for unix sockets", () => {
  test('is where clients may listen, with a path in it or from it', async () => {
    await using target = await echoTarget()
    await using place = await folder()
    await mkdir(place.at('inner'))
    await using server = await createServer({ sockets: place.path })
    const told = pEvent<'tunnel', TunnelInfo>(server, 'tunnel')

    for (const listen of [
      place.at('x.sock'),
      'x.sock',
      './x.sock',
      'inner/x.sock',
      'inner/../x.sock',
      '..x.sock',
    ]) {
      await using tunnel = await openTunnel(target.port, { server, listen: `unix:${listen}` })
      const path = listen.startsWith('/') ? listen : place.at(listen)
      expect(tunnel).toMatchObject({ path, url: `unix:${path}`, host: '', port: 0, protocol: 'unix' })
      expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
      expect(server.tunnels).toMatchObject([{ protocol: 'unix', path, host: '', port: 0 }])
    }
    expect(await told).toMatchObject({ protocol: 'unix', path: place.at('x.sock') })
    await vi.waitFor(() => expect(existsSync(place.at('x.sock'))).toBe(false))
  })

  test('may be given by a relative path', async () => {
    await using target = await echoTarget()
    await using place = await folder()
    await using server = await createServer({ sockets: relative(process.cwd(), place.path) })
    await using tunnel = await openTunnel(target.port, { server, listen: 'unix:x.sock' })
    expect(tunnel.path).toBe(place.at('x.sock'))
  })

  test('may be given by a link', async () => {
    await using target = await echoTarget()
    await using place = await folder()
    await mkdir(place.at('real'))
    await symlink(place.at('real'), place.at('link'))
    await using server = await createServer({ sockets: place.at('link') })
    await using _tunnel = await openTunnel(target.port, { server, listen: 'unix:x.sock' })
    expect(lstatSync(place.at('real/x.sock')).isSocket()).toBe(true)
  })

  test('is one that no client gets out of', async () => {
    await using place = await folder()
    await mkdir(place.at('allowed'))
    await mkdir(place.at('allowed-not'))
    await symlink(place.at('allowed-not'), place.at('allowed/link'))
    await symlink('..', place.at('allowed/up'))
    await using server = await createServer({ sockets: place.at('allowed') })

    for (const listen of [
      place.at('x.sock'),
      place.at('allowed-not/x.sock'),
      '/x.sock',
      '../x.sock',
      '../allowed-not/x.sock',
      'link/x.sock',
      'up/x.sock',
      place.at('allowed/link/x.sock'),
      place.at('allowed/../x.sock'),
      '.',
      '..',
      place.at('allowed'),
      place.path,
    ]) {
      const opening = openTunnel(3000, { server, listen: `unix:${listen}` })
      await expect(opening, listen).rejects.toMatchObject({ name: 'TunnelError', code: 'path-not-allowed' })
      await expect(opening).rejects.toThrow("ask for one in its folder for them, such as 'unix:x.sock'")
    }
    for (const path of ['x.sock', 'allowed-not/x.sock', 'allowed/x.sock']) {
      expect(existsSync(place.at(path))).toBe(false)
    }
    expect(server.tunnels).toEqual([])
  })

  test('is none unless it is given', async () => {
    await using server = await createServer()
    for (const listen of ['unix:/tmp/x.sock', 'unix:x.sock']) {
      const opening = openTunnel(3000, { server, listen })
      await expect(opening).rejects.toMatchObject({ code: 'path-not-allowed' })
      await expect(opening).rejects.toThrow('start it with the option sockets')
    }
  })

  test('of which a part is missing is told', async () => {
    await using place = await folder()
    await using server = await createServer({ sockets: place.path })
    await expect(openTunnel(3000, { server, listen: 'unix:missing/x.sock' })).rejects.toMatchObject({
      code: 'address-unavailable',
      message: expect.stringContaining(place.at('missing/x.sock')),
    })
  })

  test('makes a path that is too long with it told', async () => {
    await using place = await folder()
    await using server = await createServer({ sockets: place.path })
    const listen = `unix:${'x'.repeat(105)}`
    const most = process.platform === 'darwin' ? 103 : 107
    if (most < 105) return
    await expect(openTunnel(3000, { server, listen })).rejects.toMatchObject({
      code: 'path-not-allowed',
      message: expect.stringContaining(`where the system allows ${most}`),
    })
  })

  test.each(['', 3000, null, '/nowhere', 'package.json'])('is not %j', async (sockets) => {
    const starting = createServer({ sockets: sockets as string })
    await expect(starting).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(starting).rejects.toThrow(/^sockets must be a folder that exists, not /)
  })

  test('is left empty when the server closes, and when a client is gone', async () => {
    await using place = await folder()
    const server = await createServer({ sockets: place.path })
    const tunnel = await openTunnel(3000, { server, listen: 'unix:x.sock' })
    await tunnel.close()
    await vi.waitFor(() => expect(existsSync(place.at('x.sock'))).toBe(false))

    await using _other = await openTunnel(3000, { server, listen: 'unix:y.sock' })
    expect(existsSync(place.at('y.sock'))).toBe(true)
    await server.close()
    expect(existsSync(place.at('y.sock'))).toBe(false)
  })
})

describe.skipIf(process.platform === 'win32')('a tunnel with a server of its own', () => {
  test('may listen anywhere, also from the current folder', async () => {
    await using target = await echoTarget()
    await using place = await folder()
    const path = relative(process.cwd(), place.at('x.sock'))
    await using tunnel = await openTunnel(target.port, { listen: `unix:${path}` })

    expect(tunnel.path).toBe(place.at('x.sock'))
    expect(basename(dirname(place.at('x.sock')))).toBe(basename(place.path))
    expect((await ask(tunnel, 'hello')).toString()).toBe('hello')
  })

  test.each<[string, TunnelOptions & { target?: string }, RegExp]>([
    [
      'with a port',
      { listen: 'unix:/tmp/x.sock', port: 1 },
      /^port must be left out where listen is given, not 1$/,
    ],
    [
      'for udp',
      { listen: 'unix:/tmp/x.sock', target: 'udp:53' },
      /^listen must be left out for a udp target/,
    ],
    [
      'on a port',
      { listen: 'tcp:localhost:3000' },
      /^listen must be a unix socket .*, not "tcp:localhost:3000"$/,
    ],
    [
      'on a path alone',
      { listen: '/tmp/x.sock' },
      /^listen must be written 'unix:\/tmp\/x\.sock' where it is a unix socket, not "\/tmp\/x\.sock"$/,
    ],
    ['on a number', { listen: 3000 as unknown as string }, /^listen must be a unix socket .*, not 3000$/],
    ['on nothing', { listen: '' }, /^listen must be a unix socket .*, not ""$/],
    ['without a path', { listen: 'unix:' }, /^listen "unix:" has no path/],
    [
      'with too long a path',
      { listen: `unix:/${'x'.repeat(200)}` },
      /^listen "unix:.*" has a path of 201 bytes/,
    ],
  ])('does not listen %s', async (_, { target = 'localhost:3000', ...options }, sentence) => {
    const opening = openTunnel(target, options)
    await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(opening).rejects.toThrow(sentence)
  })
})
