import { once } from 'node:events'
import { chmod, writeFile } from 'node:fs/promises'
import http from 'node:http'
import type net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createServer } from 'pipe-tunnel'
import { describe, expect, type TestContext, test } from 'vitest'
import packageJson from '../package.json' with { type: 'json' }
import { flags } from '../src/cli/flags.js'
import { makeCertificate } from './helpers/certificate.js'
import {
  cli,
  type Ending,
  freePort,
  type Program,
  pipe,
  pipeInShell,
  pipeToEnd,
  runToEnd,
  start,
  temporaryFolder,
  withoutPrivileges,
} from './helpers/command.js'
import { echoTarget, httpTarget, readAll, type SampleTarget, silentTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

const SECRET = 'correct-horse-battery'

describe('pipe expose', () => {
  test('reaches a target through a server of its own', async () => {
    await using target = await helloTarget()
    await using client = pipe(['expose', String(target.port)])

    expect(await get(await urlOf(client))).toBe('hello /there')
  })

  test('reaches a target through a pipe server in another process', async () => {
    await using target = await helloTarget()
    await using server = pipe(['server', '--port', '0'])
    const address = await server.stdout.line(/^pipe:\/\/127\.0\.0\.1:\d+$/)
    await using client = pipe(['expose', target.address, '--to', address.replace('pipe://', '')], {
      env: { PIPE_SERVER: '127.0.0.1:1' },
    })
    await using other = pipe(['expose', target.address], { env: { PIPE_SERVER: address } })

    expect(await get(await urlOf(client))).toBe('hello /there')
    expect(await get(await urlOf(other))).toBe('hello /there')
    await server.stderr.line(/opened .*:\d+ for 127\.0\.0\.1:\d+/)
  })

  test('prints the URL alone on stdout, and a line for each request on stderr', async () => {
    await using target = await helloTarget()
    await using client = pipe(['expose', target.address])
    const url = await urlOf(client)

    await get(url)
    await get(url)

    await client.stderr.line(/GET \/there {2}200 {2}\d+ ms {2}12 B$/)
    await expect.poll(() => client.stderr.text.match(/GET /g)?.length, { timeout: 30_000 }).toBe(2)
    // Of the connection nothing more is told.
    expect(client.stderr.text).not.toContain(' out, ')
    expect(client.stderr.text).toContain(target.address)
    expect(client.stdout.text).toBe(`${url}\n`)
  })

  test('tells of a connection that is none of HTTP, and of what breaks off', async () => {
    await using target = await echoTarget()
    await using client = pipe(['expose', target.address])
    const address = addressOf(await urlOf(client))

    await ask(address, 'hello')
    await client.stderr.line(/127\.0\.0\.1:\d+ {2}5 B in, 5 B out, \d+ ms/)
    const visitor = await visit(address)
    visitor.write('GET /\u009b31m HTTP/1.1\r\n\r\n', 'latin1')
    await once(visitor, 'data')
    visitor.resetAndDestroy()
    // What a terminal would act on is not printed.
    await client.stderr.line(/GET \/ 31m {2}aborted {2}\d+ ms/)
  })

  test('opens several tunnels at once, one of them at the public port in front of its target', async () => {
    await using first = await helloTarget('first')
    await using second = await helloTarget('second')
    const port = await freePort()
    await using client = pipe(['expose', String(first.port), `${port}:localhost:${second.port}`])

    await expect.poll(() => client.stdout.text.split('\n').length, { timeout: 30_000 }).toBe(3)
    const [firstUrl, secondUrl] = client.stdout.text.split('\n') as [string, string]

    expect(await get(firstUrl)).toBe('first /there')
    expect(secondUrl).toBe(`http://127.0.0.1:${port}`)
    expect(await get(secondUrl)).toBe('second /there')
    // Which of them a visitor came to is told too.
    await client.stderr.line(new RegExp(`${first.address} +GET /there `))
    await client.stderr.line(new RegExp(`${second.address} +GET /there `))
  })

  test('says that only this machine can visit where it knows that', async () => {
    await using target = await helloTarget()
    await using server = pipe(['server', '--port', '0', '--host', '0.0.0.0', '--insecure'])
    const { port } = new URL(await server.stdout.line(/^pipe:/))
    await using alone = pipe(['expose', target.address])
    await using through = pipe(['expose', target.address, '--to', `localhost:${port}`])

    await alone.stderr.line(/^only this machine can visit; Ctrl-C closes$/)
    // Its public port is open to whoever reaches the machine, though the client has dialled localhost.
    await through.stderr.line(/^Ctrl-C closes$/)
  })

  test('names PIPE_SECRET where that is empty', async () => {
    const env = { PIPE_SECRET: '' }
    await using folder = await temporaryFolder()
    await writeFile(path.join(folder.path, 'pipe.config.json'), '{ "to": "127.0.0.1:1" }')
    const cwd = folder.path
    for (const args of [
      ['server', '--port', '0'],
      ['expose', '3000'],
      ['expose', '3000', '--to', '127.0.0.1:1'],
    ]) {
      expectSentence(await pipeToEnd(args, { env, cwd }), 2, /PIPE_SECRET is set but empty: /)
    }
  })

  test('asks for the public port of --port', async () => {
    await using target = await helloTarget()
    const port = await freePort()
    await using client = pipe(['expose', target.address, '--port', String(port)])

    const url = await urlOf(client)

    expect(url).toBe(`http://127.0.0.1:${port}`)
    expect(await get(url)).toBe('hello /there')
  })

  test('keeps the scheme of its target in the URL', async () => {
    await using target = await echoTarget()
    await using client = pipe(['expose', `tcp://localhost:${target.port}`])

    const { hostname, port } = new URL(await client.stdout.line(/^tcp:/))

    expect(await ask({ host: hostname, port: Number(port) }, 'ping')).toEqual(Buffer.from('ping'))
  })

  test('says nothing but the URL with --quiet', async () => {
    await using target = await helloTarget()
    await using client = pipe(['expose', target.address, '--quiet'])
    const url = await urlOf(client)
    await get(url)

    // A second visitor is through, so the first would have been told by now.
    await get(url)

    expect(client.stdout.text).toBe(`${url}\n`)
    expect(client.stderr.text).toBe('')
  })

  test('still tells with --quiet why it failed', async () => {
    const { code, stdout, stderr } = await pipeToEnd(['expose', '3000', '--quiet', '--to', '127.0.0.1:1'])

    expect(code).toBe(1)
    expect(stdout).toBe('')
    expect(stderr).toMatch(/^pipe: no server answers at 127\.0\.0\.1:1/)
  })

  test('turns a visitor away with a line while its target is down, and goes on', async () => {
    const port = await freePort()
    await using client = pipe(['expose', String(port)])
    const url = await urlOf(client)

    expect(await ending(await visit(addressOf(url)))).toBe('reset')

    await client.stderr.line(new RegExp(`127\\.0\\.0\\.1:\\d+ .*localhost:${port} .*ECONNREFUSED`))
    await using target = http.createServer((_, response) => response.end('late')).listen(port, '127.0.0.1')
    await once(target, 'listening')
    expect(await get(url)).toBe('late')
  })
})

describe('a network that is broken on purpose', () => {
  test('is asked for by options, and its seed is told', async () => {
    await using target = await helloTarget()
    const options = [
      '--latency',
      '200',
      '--jitter',
      '1.5',
      '--slice',
      '50:1',
      '--bandwidth',
      '1mb',
      '--seed',
      '7',
    ]
    await using client = pipe(['expose', target.address, ...options])
    const url = await urlOf(client)
    await client.stderr.line(/--seed 7 repeats it/)
    const start = performance.now()

    expect(await get(url)).toBe('hello /there')
    expect(performance.now() - start).toBeGreaterThan(350)
  })

  test('refuses visitors of pipe forward', async () => {
    await using target = await helloTarget()
    await using client = pipe(['forward', '0', target.address, '--refuse', '--json'])
    const { url, seed } = JSON.parse(await client.stdout.line(/"ready"/))

    expect(seed).toEqual(expect.any(Number))
    await expect(get(url)).rejects.toThrow()
    await client.stdout.line(/"broken-on-purpose"/)
  })

  test.each([
    [['--latency', 'long'], '--latency must be milliseconds from 0 to 2147483647, not "long"'],
    [['--slice', '1:2:3'], '--slice must be bytes such as 100, or with a gap such as 100:10, not "1:2:3"'],
    [['--drop-rate', '0.5'], '--drop-rate must be left out where the target is not udp, not 0.5'],
  ])('may not be %j', async (options, message) => {
    const { code, stderr } = await pipeToEnd(['expose', '3000', ...options])
    expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
  })
})

describe('pipe server', () => {
  test('prints its address alone on stdout, and its tunnels on stderr', async () => {
    await using target = await helloTarget()
    await using server = pipe(['server', '--port', '0'])
    const address = await server.stdout.line(/^pipe:\/\/127\.0\.0\.1:\d+$/)
    await using client = pipe(['expose', target.address, '--to', address])
    const { port } = addressOf(await urlOf(client))

    await server.stderr.line(new RegExp(` opened .*:${port} for 127\\.0\\.0\\.1:\\d+$`))
    client.signal('SIGKILL')

    await server.stderr.line(new RegExp(` closed .*:${port} for 127\\.0\\.0\\.1:\\d+: `))
    expect(server.stdout.text).toBe(`${address}\n`)
  })

  test('gives public ports of its range, and URLs with its public host', async () => {
    const port = await freePort()
    const range = ['--ports', `${port}-${port}`, '--public-host', 'tunnel.test']
    await using server = pipe(['server', '--port', '0', ...range])
    const named = await server.stdout.line(/^pipe:/)
    expect(named).toMatch(/^pipe:\/\/tunnel\.test:\d+$/)
    const address = named.replace('tunnel.test', '127.0.0.1')
    await using client = pipe(['expose', '3000', '--to', address])

    expect(await client.stdout.line(/^http:/)).toBe(`http://tunnel.test:${port}`)
    expectSentence(await pipeToEnd(['expose', '3000', '--to', address]), 1, new RegExp(`${port} is taken`))
  })
})

describe('pipe expose --json', () => {
  test('prints an object for ready, each request, each connection and close', async (context) => {
    needsSignals(context)
    await using target = await helloTarget()
    await using client = pipe(['expose', target.address, '--json'])
    const { url } = JSON.parse(await client.stdout.line(/"ready"/))
    await get(url)
    await client.stdout.line(/"connection"/)
    client.signal('SIGINT')

    const { code, stdout, stderr } = await client.ended()

    const about = { target: target.address, url }
    expect(objects(stdout)).toEqual([
      {
        event: 'ready',
        ...about,
        host: '127.0.0.1',
        port: Number(new URL(url).port),
        path: null,
        protocol: 'tcp',
        seed: null,
        inspector: null,
      },
      {
        event: 'request',
        ...about,
        path: '/there',
        id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        visitor: { address: '127.0.0.1', port: expect.any(Number) },
        method: 'GET',
        status: 200,
        bytesIn: 0,
        bytesOut: 12,
        duration: expect.any(Number),
        aborted: false,
      },
      {
        event: 'connection',
        ...about,
        id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        visitor: { address: '127.0.0.1', port: expect.any(Number) },
        bytesIn: expect.any(Number),
        bytesOut: expect.any(Number),
        duration: expect.any(Number),
        error: null,
      },
      { event: 'close', ...about, error: null },
    ])
    expect(code).toBe(0)
    expect(stderr).toBe('')
  })

  test('tells in connection why a visitor was turned away', async () => {
    const port = await freePort()
    await using client = pipe(['expose', String(port), '--json'])
    const { url } = JSON.parse(await client.stdout.line(/"ready"/))

    await ending(await visit(addressOf(url)))

    expect(JSON.parse(await client.stdout.line(/"connection"/))).toEqual({
      event: 'connection',
      target: `localhost:${port}`,
      url,
      id: expect.any(String),
      visitor: { address: '127.0.0.1', port: expect.any(Number) },
      bytesIn: 0,
      bytesOut: 0,
      duration: 0,
      error: { code: 'target-unreachable', message: expect.stringContaining(`localhost:${port}`) },
    })
  })

  test('tells in close why the link is lost', async () => {
    await using server = await createServer()
    await using client = pipe(['expose', '3000', '--json', '--no-reconnect', '--to', server.address])
    const { url } = JSON.parse(await client.stdout.line(/"ready"/))

    await server.close()

    const { code, stdout } = await client.ended()
    expect(code).toBe(3)
    expect(objects(stdout).slice(1)).toEqual([
      {
        event: 'close',
        target: 'localhost:3000',
        url,
        error: { code: 'server-closed', message: expect.any(String) },
      },
    ])
  })

  test('prints an error where nothing can be opened', async () => {
    const { code, stdout } = await pipeToEnd(['expose', '3000', '--json', '--to', '127.0.0.1:1'])

    expect(code).toBe(1)
    expect(objects(stdout)).toEqual([
      { event: 'error', code: 'server-unreachable', message: expect.stringContaining('127.0.0.1:1') },
    ])
  })

  test('prints an error for a mistake in the command line', async () => {
    const { code, stdout } = await pipeToEnd(['expose', 'nonsense', '--json'])

    expect(code).toBe(2)
    expect(objects(stdout)).toEqual([
      { event: 'error', code: 'invalid-option', message: expect.stringContaining('"nonsense"') },
    ])
  })
})

describe('the secret', () => {
  test.each<[string, (file: string) => { args: string[]; env: Record<string, string> }]>([
    ['--secret', () => ({ args: ['--secret', SECRET], env: {} })],
    ['--secret-file', (file) => ({ args: ['--secret-file', file], env: {} })],
    ['PIPE_SECRET', () => ({ args: [], env: { PIPE_SECRET: SECRET } })],
    [
      '--secret before PIPE_SECRET',
      () => ({ args: ['--secret', SECRET], env: { PIPE_SECRET: 'another-one' } }),
    ],
    [
      '--secret-file before PIPE_SECRET',
      (file) => ({ args: ['--secret-file', file], env: { PIPE_SECRET: 'another-one' } }),
    ],
  ])('comes from %s, for server and client, and is never shown', async (_, give) => {
    await using folder = await temporaryFolder()
    const file = path.join(folder.path, 'secret')
    await writeFile(file, `${SECRET}\n`)
    const { args, env } = give(file)
    await using target = await helloTarget()
    await using server = pipe(['server', '--port', '0', ...args], { env })
    const address = await server.stdout.line(/^pipe:/)
    await using client = pipe(['expose', target.address, '--to', address, ...args], { env })
    await using stranger = pipe(['expose', target.address, '--to', address])

    expect(await get(await urlOf(client))).toBe('hello /there')
    expect((await stranger.ended()).stderr).toMatch(/^pipe: the server asks for a secret/)
    await server.stderr.line(/refused/)
    for (const { stdout, stderr } of [server, client]) {
      expect(stdout.text + stderr.text).not.toContain(SECRET)
    }
  })

  test('comes from the address of the server too', async () => {
    await using target = await helloTarget()
    await using server = await createServer({ secret: SECRET })
    const address = server.address.replace('//', `//${SECRET}@`)
    await using client = pipe(['expose', target.address], { env: { PIPE_SERVER: address } })

    expect(await get(await urlOf(client))).toBe('hello /there')
    expect(client.stderr.text).not.toContain(SECRET)
  })
})

describe('encryption', () => {
  test('is by a certificate where server and client are given one', async () => {
    await using folder = await temporaryFolder()
    const files = { cert: path.join(folder.path, 'cert.pem'), key: path.join(folder.path, 'key.pem') }
    const { cert, key } = makeCertificate(['localhost'])
    await Promise.all([writeFile(files.cert, cert), writeFile(files.key, key)])
    await using target = await helloTarget()
    await using server = pipe(['server', '--port', '0', '--tls-cert', files.cert, '--tls-key', files.key])
    const to = (await server.stdout.line(/^pipe:/)).replace('127.0.0.1', 'localhost')
    const words = ['expose', target.address, '--to', to]
    await using client = pipe([...words, '--ca', files.cert])

    expect(await get(await urlOf(client))).toBe('hello /there')
    expect(server.stderr.text).toContain('encrypts with its certificate')
    expectSentence(await pipeToEnd([...words, '--tls']), 1, /certificate is not trusted .*--ca/)
    expectSentence(await pipeToEnd(words), 1, /speaks TLS .*--tls/)
  })

  test('is by the secret, and off with --no-tls on both sides', async () => {
    await using target = await helloTarget()
    const secret = ['--secret', SECRET]
    await using server = pipe(['server', '--port', '0', '--no-tls', ...secret])
    const words = ['expose', target.address, '--to', await server.stdout.line(/^pipe:/), ...secret]
    await using client = pipe([...words, '--no-tls'])

    expect(await get(await urlOf(client))).toBe('hello /there')
    await server.stderr.line(/does not encrypt/)
    expectSentence(await pipeToEnd(words), 1, /does not speak TLS/)
  })
})

describe('the end', () => {
  test.for(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    '%s closes pipe expose with exit code 0',
    async (signal, context) => {
      needsSignals(context)
      await using target = await helloTarget()
      await using client = pipe(['expose', target.address])
      const url = await urlOf(client)

      client.signal(signal)

      const { code, stdout } = await client.ended()
      expect(code).toBe(0)
      expect(stdout).toBe(`${url}\n`)
      await expect(get(url)).rejects.toThrow()
    },
  )

  test.for(['SIGINT', 'SIGTERM'] as const)(
    '%s closes pipe server with exit code 0',
    async (signal, context) => {
      needsSignals(context)
      await using server = pipe(['server', '--port', '0'])
      const address = await server.stdout.line(/^pipe:/)

      server.signal(signal)

      const { code, stdout } = await server.ended()
      expect(code).toBe(0)
      expect(stdout).toBe(`${address}\n`)
    },
  )

  test.for(['SIGINT', 'SIGTERM'] as const)(
    '%s lets a visitor inside finish, and no new one in',
    async (signal, context) => {
      needsSignals(context)
      await using target = await echoTarget()
      await using client = pipe(['expose', `tcp://${target.address}`])
      const address = addressOf(await client.stdout.line(/^tcp:/))
      const visitor = await visit(address)
      await converse(visitor)

      client.signal(signal)

      await client.stderr.line(/for 1 inside/)
      await expect
        .poll(() => visit(address).then(ending, () => 'refused'), { timeout: 30_000 })
        .toBe('refused')
      await converse(visitor)
      visitor.end()
      expect(await ending(visitor)).toBe('end')
      expect((await client.ended()).code).toBe(0)
    },
  )

  test('SIGTERM lets a visitor inside pipe server finish', async (context) => {
    needsSignals(context)
    await using target = await echoTarget()
    await using server = pipe(['server', '--port', '0'])
    const address = await server.stdout.line(/^pipe:/)
    await using client = pipe(['expose', `tcp://${target.address}`, '--no-reconnect', '--to', address])
    const visitor = await visit(addressOf(await client.stdout.line(/^tcp:/)))
    await converse(visitor)

    server.signal('SIGTERM')

    await client.stderr.line(/is gone/)
    await converse(visitor)
    visitor.end()
    expect(await ending(visitor)).toBe('end')
    expect((await server.ended()).code).toBe(0)
    expect((await client.ended()).code).toBe(3)
  })

  test('a second signal cuts at once who is inside', async (context) => {
    needsSignals(context)
    await using target = await silentTarget()
    await using client = pipe(['expose', `tcp://${target.address}`])
    const visitor = await visit(addressOf(await client.stdout.line(/^tcp:/)))
    await expect.poll(() => target.sockets.size, { timeout: 30_000 }).toBe(1)
    client.signal('SIGINT')
    await client.stderr.line(/for 1 inside/)

    const cut = performance.now()
    client.signal('SIGINT')

    expect(await ending(visitor)).toBe('reset')
    expect((await client.ended()).code).toBe(0)
    // Far below the time that visitors have to finish.
    expect(performance.now() - cut).toBeLessThan(4_000)
  })

  test('a visitor that never finishes does not hold up the end', async (context) => {
    needsSignals(context)
    await using target = await silentTarget()
    await using client = pipe(['expose', `tcp://${target.address}`])
    const visitor = await visit(addressOf(await client.stdout.line(/^tcp:/)))
    await expect.poll(() => target.sockets.size, { timeout: 30_000 }).toBe(1)

    client.signal('SIGTERM')

    expect(await ending(visitor)).toBe('reset')
    expect((await client.ended()).code).toBe(0)
  })

  test('a signal before the tunnel is open ends pipe expose without a URL', async (context) => {
    needsSignals(context)
    await using server = await silentTarget()
    await using client = pipe(['expose', '3000', '--to', server.address])
    await expect.poll(() => server.sockets.size, { timeout: 30_000 }).toBe(1)

    client.signal('SIGINT')

    const { code, stdout, stderr } = await client.ended()
    expect(code).toBe(0)
    expect(stdout).toBe('')
    expect(stderr).not.toMatch(/\bat .*:\d+:\d+/)
  })

  test('a killed server ends pipe expose --no-reconnect with exit code 3 and a sentence', async () => {
    await using server = pipe(['server', '--port', '0'])
    const address = await server.stdout.line(/^pipe:/)
    await using client = pipe(['expose', '3000', '--no-reconnect', '--to', address])
    const url = await urlOf(client)

    server.signal('SIGKILL')

    const { code, stdout, stderr } = await client.ended()
    expect(code).toBe(3)
    expect(stdout).toBe(`${url}\n`)
    expect(stderr).toMatch(/^pipe: .*is gone: the server ended the control connection/m)
  })

  test('a closed server ends pipe expose --no-reconnect with exit code 3 and a sentence', async (context) => {
    needsSignals(context)
    await using server = pipe(['server', '--port', '0'])
    const address = await server.stdout.line(/^pipe:/)
    await using client = pipe(['expose', '3000', '--no-reconnect', '--to', address])
    await urlOf(client)

    server.signal('SIGINT')

    expect((await server.ended()).code).toBe(0)
    const { code, stderr } = await client.ended()
    expect(code).toBe(3)
    expect(stderr).toMatch(/^pipe: .*is gone: the server was closed/m)
  })

  test('a killed server has pipe expose back once it is started again, and both tell of it', async () => {
    await using target = await helloTarget()
    await using first = pipe(['server', '--port', '0'])
    const address = await first.stdout.line(/^pipe:/)
    await using client = pipe(['expose', target.address, '--to', address])
    const url = await urlOf(client)

    first.signal('SIGKILL')
    await client.stderr.line(/link lost, reconnecting: the server ended the control connection/)
    await using second = pipe(['server', '--port', new URL(address).port])
    await client.stderr.line(/link is back after/)

    expect(await second.stderr.line(/opened/)).toContain(new URL(url).host)
    expect(await get(url)).toBe('hello /there')
  })

  test('a reader that leaves early stops neither text nor JSON', async (context) => {
    needsSignals(context)
    await using target = await helloTarget()
    await using text = pipe(['expose', target.address])
    await using json = pipe(['expose', target.address, '--json'])
    const textUrl = await urlOf(text)
    const { url: jsonUrl } = JSON.parse(await json.stdout.line(/"ready"/))

    for (const client of [text, json]) client.stdout.close()
    for (const url of [textUrl, jsonUrl, textUrl, jsonUrl]) expect(await get(url)).toBe('hello /there')

    for (const client of [text, json]) {
      client.signal('SIGINT')
      const { code, stderr } = await client.ended()
      expect(stderr).not.toContain('EPIPE')
      expect(code).toBe(0)
    }
  })

  test('somebody who stops reading stderr does not stop it', async (context) => {
    needsSignals(context)
    await using target = await helloTarget()
    await using client = pipe(['expose', target.address])
    const url = await urlOf(client)
    await client.stderr.line(/localhost/)

    client.stderr.close()
    for (let i = 0; i < 3; i++) expect(await get(url)).toBe('hello /there')

    client.signal('SIGINT')
    expect((await client.ended()).code).toBe(0)
  })
})

describe('a mistake gets a sentence and exit code', () => {
  test.each<[string, string[], RegExp]>([
    ['a target that is no port', ['expose', 'nonsense'], /target .*"nonsense"/],
    ['a port out of range', ['expose', '70000'], /target .*"70000"/],
    ['a public port that is no number', ['expose', '3000', '--port', 'abc'], /port .*0 to 65535, not "abc"/],
    ['a public port out of range', ['expose', '3000', '--port', '99999'], /port .*0 to 65535, not 99999/],
    ['a public port out of range in front', ['expose', '99999:3000'], /port .*0 to 65535, not 99999/],
    ['--port with two targets', ['expose', '3000', '4000', '--port', '5000'], /--port .*one target/],
    ['an unknown option', ['expose', '3000', '--prot', '80'], /unknown option '--prot'/],
    [
      'an option of a tunnel, which the file has',
      ['up', '--inspect'],
      /^pipe: unknown option '--inspect': the file says it of each tunnel, as inspect beside its target\n/,
    ],
    ['a condition of a tunnel', ['up', '--latency=20'], /: .* as conditions\.latency beside its target\n/],
    ['waiting for a tunnel of the file', ['up', '--wait', '5'], /: .* as waitForTarget beside its target\n/],
    ['an option that no command has', ['up', '--inspec'], /^pipe: unknown option '--inspec'\n/],
    ['an option without its value', ['expose', '3000', '--to'], /--to <server>.* missing/],
    ['an unknown command', ['exposed', '3000'], /unknown command 'exposed'/],
    [
      'a target without a command',
      ['3000'],
      /^pipe: unknown command '3000': did you mean pipe expose 3000\?\n$/,
    ],
    [
      'the command of another tunnel',
      ['http', '8080'],
      /^pipe: unknown command 'http': did you mean pipe expose 8080\?\n$/,
    ],
    ['another one', ['tcp', '22'], /: did you mean pipe expose tcp:\/\/localhost:22\?\n$/],
    [
      'the option of another tunnel',
      ['expose', '3000', '--subdomain', 'shop'],
      /^pipe: unknown option '--subdomain': did you mean --hostname\?\n\(such as: pipe expose 3000; /,
    ],
    [
      'a target that --allow took',
      ['expose', '--allow', '::1', '3000'],
      /'target'\n.*targets before options and a command behind --/,
    ],
    ['no target', ['expose'], /^pipe: missing required argument 'target'\n\(such as: pipe expose 3000; /],
    [
      'a target that --wait took',
      ['expose', '--wait', '3000'],
      /'target': 3000 was taken as the seconds of --wait, so write the target first\n/,
    ],
    ['no time to wait', ['expose', '3000', '--wait', '0'], /^pipe: --wait must be seconds, .* not "0"\n$/],
    [
      'a command without --',
      ['expose', '3000', 'npm', 'run', 'test:e2e'],
      /"npm" has no port: .* a command: pipe expose 3000 -- npm run test:e2e\n/,
    ],
    ['a command without --, with an option', ['expose', '3000', 'npm', '--watch'], /a command behind --/],
    [
      'a server address of another kind',
      ['expose', '3000', '--to', 'http://127.0.0.1'],
      /server .*pipe:\/\//,
    ],
    [
      'a short secret',
      ['expose', '3000', '--to', '127.0.0.1:1', '--secret', 'short'],
      /secret .*8 characters/,
    ],
    ['an empty secret', ['server', '--secret', ''], /secret .*8 characters/],
    ['a secret file that is not there', ['expose', '3000', '--secret-file', 'no-such-file'], /no-such-file/],
    ['a secret file that is a folder', ['expose', '3000', '--secret-file', tmpdir()], /secret/],
    ['a certificate without its key', ['server', '--tls-cert', 'x'], /--tls-cert and --tls-key/],
    [
      'a certificate file that is not there',
      ['server', '--tls-cert', 'no-such-file', '--tls-key', 'x'],
      /no-such-file/,
    ],
    [
      'a certificate file that has none',
      ['server', '--tls-cert', 'package.json', '--tls-key', 'package.json'],
      /tls must be a private key and its certificate/,
    ],
    ['a certificate and no TLS', ['expose', '3000', '--ca', 'x', '--no-tls'], /--no-tls .*--ca/],
    ['a secret given twice', ['server', '--secret', SECRET, '--secret-file', 'x'], /--secret-file/],
    ['a server port that is no number', ['server', '--port', '80a'], /port .*0 to 65535, not "80a"/],
    ['a range of ports the wrong way round', ['server', '--ports', '20100-20000'], /ports .*"20100-20000"/],
    ['a host with a port', ['server', '--public-host', 'tunnel.example:80/'], /host/i],
    [
      'an address for all without a secret',
      ['server', '--host', '0.0.0.0'],
      /0\.0\.0\.0 .*set a secret, or --insecure if/,
    ],
    ['a name of a host', ['server', '--public-host', 'a/b'], /^pipe: --public-host must be/],
    ['a folder that is none', ['server', '--sockets', 'no-such-folder'], /^pipe: --sockets must be/],
    ['a host of a request', ['expose', '3000', '--host-header', 'a/b'], /^pipe: --host-header must be/],
    ['a PROXY header', ['expose', '3000', '--proxy-protocol', '3'], /^pipe: --proxy-protocol must be/],
    ['flows of another target', ['expose', '3000', '--max-flows', '2'], /^pipe: --max-flows must be/],
    ['a speed', ['expose', '3000', '--limit', 'fast'], /^pipe: --limit must be/],
    ['a size of slices', ['expose', '3000', '--slice', '0'], /^pipe: --slice must be/],
    ['a range of addresses', ['expose', '3000', '--allow', 'x'], /^pipe: --allow\[0] must be/],
    ['waiting for udp', ['expose', 'udp://localhost:53', '--wait'], /^pipe: --wait must be left out/m],
  ])('2: %s', async (_, args, sentence) => {
    expectSentence(await pipeToEnd(args), 2, sentence)
  })

  test('2: a secret file that may not be read', async ({ skip }) => {
    skip(process.platform === 'win32', 'Windows has no file modes')
    const [command = process.execPath, ...words] = [...withoutPrivileges(skip), process.execPath]
    await using folder = await temporaryFolder()
    const file = path.join(folder.path, 'secret')
    await writeFile(file, SECRET)
    await chmod(file, 0)

    await using program = start(command, [...words, cli, 'expose', '3000', '--secret-file', file])
    expectSentence(await program.ended(), 2, /EACCES/)
  })

  test('2: no command, with the list of commands', async () => {
    const { code, stdout, stderr } = await pipeToEnd([])

    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(stderr).toMatch(/expose[\s\S]*server/)
  })

  test('1: a server that does not answer', async () => {
    const ending = await pipeToEnd(['expose', '3000', '--to', '127.0.0.1:1'])

    expectSentence(ending, 1, /no server answers at 127\.0\.0\.1:1/)
  })

  test('1: a server that is something else', async () => {
    await using web = await helloTarget()

    expectSentence(
      await pipeToEnd(['expose', '3000', '--to', web.address]),
      1,
      /something else|pipe-tunnel server/,
    )
  })

  test('1: more than the server takes on', async () => {
    await using server = await createServer({ limits: { tunnels: 1 } })

    const ending = await pipeToEnd(['expose', '3000', '3001', '--to', server.address])

    expectSentence(ending, 1, /raise limits\.tunnels of createServer\n/)
  })

  test('1: a server that shows a certificate', async () => {
    await using server = await createServer({ tls: makeCertificate(['127.0.0.1']) })

    const args = ['expose', '3000', '--to', server.address]

    expectSentence(await pipeToEnd(args), 1, /shows a certificate: connect with --tls\n/)
    expectSentence(await pipeToEnd([...args, '--tls']), 1, /not trusted .*: give .* as --ca\n/)
  })

  test('1: a wrong secret, and none', async () => {
    await using server = await createServer({ secret: SECRET })
    const args = ['expose', '3000', '--to', server.address]

    expectSentence(
      await pipeToEnd([...args, '--secret', 'another-one']),
      1,
      /the secret is not the one that the server holds: give the one/,
    )
    expectSentence(await pipeToEnd(args), 1, /asks for a secret.*PIPE_SECRET.*--secret-file/)
  })

  test('1: a secret for a server that has none', async () => {
    await using server = await createServer()

    const ending = await pipeToEnd(['expose', '3000', '--to', server.address, '--secret', SECRET])

    expectSentence(ending, 1, /is this the port of a pipe-tunnel server\?/)
    expectSentence(ending, 1, /the server does not speak TLS.*Start it with the secret/)
  })

  test('1: a public port that is taken', async () => {
    await using server = await createServer()
    await using taken = await echoTarget()

    const ending = await pipeToEnd(['expose', '3000', '--to', server.address, '--port', String(taken.port)])

    expectSentence(ending, 1, new RegExp(`${taken.port} is taken`))
  })

  test('1: a public port that the server does not allow', async () => {
    await using server = await createServer({ ports: '20000-20100' })

    const ending = await pipeToEnd(['expose', '3000', '--to', server.address, '--port', '30000'])

    expectSentence(ending, 1, /30000 .*20000 to 20100/)
  })

  test('1: a server port that is taken', async () => {
    await using taken = await echoTarget()

    expectSentence(
      await pipeToEnd(['server', '--port', String(taken.port)]),
      1,
      new RegExp(`${taken.port} is taken`),
    )
  })

  test('1: one of several tunnels that can not be opened, and then none is', async () => {
    await using taken = await echoTarget()

    const ending = await pipeToEnd(['expose', '3000', `${taken.port}:3000`])

    expectSentence(ending, 1, new RegExp(`${taken.port} is taken`))
  })
})

describe('help', () => {
  test('--version prints the version of the package', async () => {
    const { code, stdout } = await pipeToEnd(['--version'])

    expect(stdout).toBe(`${packageJson.version}\n`)
    expect(code).toBe(0)
  })

  test('has each flag that errors name', async () => {
    const commands = ['expose', 'forward', 'server']
    const pages = await Promise.all(commands.map((command) => pipeToEnd([command, '--help'])))
    const shown = pages.flatMap(({ stdout }) => stdout.match(/--[\w-]+/g))

    expect(Object.values(flags).filter((flag) => !shown.includes(flag))).toEqual([])
  })

  test.each([
    [['--help'], ['expose', 'server', 'pipe expose 3000 -- npm test']],
    [
      ['expose', '--help'],
      ['--to', '--port', '--secret', '--secret-file', '--json', '--quiet'],
    ],
    [
      ['server', '--help'],
      ['--host', '--port', '--ports', '--secret', '--secret-file', '--public-host', '--insecure'],
    ],
  ])('%j names all there is, on stdout', async (args, words) => {
    const { code, stdout, stderr } = await pipeToEnd(args)

    for (const word of words) expect(stdout).toContain(word)
    expect(stderr).toBe('')
    expect(code).toBe(0)
  })
})

describe('on a terminal', () => {
  test('the text is coloured, the URL is not, and Ctrl-C closes', async (context) => {
    await needsTerminal(context)
    await using client = onTerminal('expose 3000')
    const url = await urlOf(client)
    expect(await client.stdout.line(/localhost:3000/)).toContain('\u001b[2m')

    client.type('\u0003')

    const { code, stdout } = await client.ended()
    expect(stdout).toContain(`${url}\r\n`)
    expect(code).toBe(0)
  })

  test('NO_COLOR is obeyed', async (context) => {
    await needsTerminal(context)
    await using client = onTerminal('expose 3000', { NO_COLOR: '1' })
    await urlOf(client)
    await client.stdout.line(/localhost:3000/)

    expect(client.stdout.text).not.toContain('\u001b')
  })

  test('nothing is coloured where it goes elsewhere', async () => {
    await using client = pipe(['expose', '3000'], { env: { TERM: 'xterm-256color' } })
    await urlOf(client)
    await client.stderr.line(/localhost:3000/)

    expect(client.stdout.text + client.stderr.text).not.toContain('\u001b')
  })
})

/** A web server that says a word and the path. */
function helloTarget(word = 'hello'): Promise<SampleTarget> {
  return httpTarget((request, response) => response.end(`${word} ${request.url}`))
}

/** The body of an answer, over a connection that is the visitor's own and closed behind it. */
async function get(url: string): Promise<string> {
  const request = http.get(`${url}/there`, { agent: false })
  const [response] = await once(request, 'response')
  return String(await readAll(response))
}

/** Talks with an echo, for longer than who is cut off without grace has left. */
async function converse(visitor: net.Socket): Promise<void> {
  for (let i = 0; i < 500; i++) {
    visitor.write('?')
    const [answer] = await once(visitor, 'data')
    expect(`${answer}`).toBe('?')
  }
}

/** The public URL, as soon as `pipe expose` has printed it. */
function urlOf(client: Program): Promise<string> {
  return client.stdout.line(/^http:\/\/127\.0\.0\.1:\d+$/)
}

function addressOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}

/** What `--json` printed. Every line is an object. */
function objects(stdout: string): unknown[] {
  expect(stdout).toMatch(/\n$/)
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
}

/** One sentence on stderr, perhaps with a hint behind it, and nothing else. */
function expectSentence({ code, stdout, stderr }: Ending, wanted: number, sentence: RegExp): void {
  expect(stderr).toMatch(sentence)
  expect(stderr).toMatch(/^pipe: [^\n]+\n(\([^\n]+\)\n)*$/)
  expect(stderr).not.toMatch(/Error:|undefined|NaN|\[object/)
  expect(stdout).toBe('')
  expect(code).toBe(wanted)
}

/** Runs `pipe` on a terminal of its own, where all output is one. */
function onTerminal(args: string, env: Record<string, string> = {}): Program {
  // `exec`: a shell that stayed would end by Ctrl-C itself, with a code of its own.
  return start('script', ['-qec', `exec ${pipeInShell} ${args}`, '/dev/null'], {
    env: { TERM: 'xterm-256color', ...env },
  })
}

async function needsTerminal({ skip }: TestContext): Promise<void> {
  const { stdout } = await runToEnd('script', ['--version']).catch(() => ({ stdout: '' }))
  skip(!stdout.includes('util-linux'), 'needs script of util-linux to make a terminal')
}

function needsSignals({ skip }: TestContext): void {
  skip(process.platform === 'win32', 'Windows has no signals that a program can handle')
}
