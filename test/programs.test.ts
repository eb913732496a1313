/** Real programs on both ends of a tunnel: what they send each other arrives whole. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import type http from 'node:http'
import type { Readable } from 'node:stream'
import { pEvent } from 'p-event'
import { createServer, openTunnel } from 'pipe-tunnel'
import { expect, test, vi } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import {
  goPackages,
  needs,
  packages,
  pseudorandomFile,
  run,
  sha256,
  start,
  startNginx,
  startPostgres,
  startRedis,
  temporaryFolder,
} from './helpers/programs.js'
import { httpTarget, tcpTarget } from './helpers/targets.js'
import { ask } from './helpers/visitor.js'

const MiB = 1_048_576

test('curl gets a file of 1 GiB from nginx with the same SHA-256', { timeout: 180_000 }, async (context) => {
  needs(context, 'curl', 'nginx')
  await using nginx = await startNginx()
  const hash = await pseudorandomFile(nginx.folder.file('large'), 1_024 * MiB)
  await using tunnel = await openTunnel(nginx.port)

  await using curl = start('curl', [...quiet, `${tunnel.url}/large`], { timeout: 120_000 })

  expect(await sha256(curl.stdout)).toBe(hash)
  await curl.exited
})

test('curl puts a file of 256 MiB to nginx with the same SHA-256', async (context) => {
  needs(context, 'curl', 'nginx')
  await using nginx = await startNginx()
  await using folder = await temporaryFolder()
  const hash = await pseudorandomFile(folder.file('large'), 256 * MiB)
  await using server = await createServer({ secret: 'only for this test' })
  await using tunnel = await openTunnel(nginx.port, { server })

  await run('curl', [...quiet, '--upload-file', folder.file('large'), `${tunnel.url}/uploaded`])

  expect(await sha256(nginx.folder.file('uploaded'))).toBe(hash)
})

test('200 downloads at once by curl all get their own file', async (context) => {
  needs(context, 'curl', 'nginx')
  await using nginx = await startNginx()
  const hashes: string[] = []
  for (let i = 1; i <= 200; i++) {
    hashes.push(await pseudorandomFile(nginx.folder.file(`${i}`), MiB / 2, i))
  }
  await using folder = await temporaryFolder()
  await using server = await createServer()
  await using tunnel = await openTunnel(nginx.port, { server })
  let visitors = 0
  tunnel.on('connection', () => visitors++)

  await run('curl', [
    ...quiet,
    ...['--parallel', '--parallel-immediate', '--parallel-max', '200'],
    ...[`${tunnel.url}/[1-200]`, '--output', folder.file('#1')],
  ])

  const got = await Promise.all(hashes.map((_, i) => sha256(folder.file(`${i + 1}`))))
  expect(got).toEqual(hashes)
  expect(visitors).toBeGreaterThan(100)
})

test('curl asks three times on one connection', async (context) => {
  needs(context, 'curl', 'nginx')
  await using nginx = await startNginx()
  await writeFile(nginx.folder.file('page'), 'page ')
  await using tunnel = await openTunnel(nginx.port)
  let visitors = 0
  tunnel.on('connection', () => visitors++)

  const url = `${tunnel.url}/page`
  const { stdout } = await run('curl', [...quiet, url, url, url])

  expect(`${stdout}`).toBe('page page page ')
  expect(visitors).toBe(1)
})

test('nginx answers 1,000 requests that arrive in one piece on one connection', async (context) => {
  needs(context, 'nginx')
  await using nginx = await startNginx()
  await writeFile(nginx.folder.file('page'), 'here I am')
  await using tunnel = await openTunnel(nginx.port)

  const request = 'GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n'
  const replies = await ask(
    tunnel,
    `${request.repeat(999)}${request.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')}`,
  )

  expect(`${replies}`.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(1_000)
  expect(`${replies}`.match(/here I am/g)).toHaveLength(1_000)
})

test('ab keeps 50 connections busy without one failed request', async (context) => {
  needs(context, 'ab', 'nginx')
  await using nginx = await startNginx()
  await pseudorandomFile(nginx.folder.file('page'), 10_000)
  await using tunnel = await openTunnel(nginx.port)

  const { stdout } = await run('ab', ['-q', '-k', '-c', '50', '-n', '5000', `${tunnel.url}/page`])

  expect(`${stdout}`).toMatch(/Complete requests: +5000\n/)
  expect(`${stdout}`).toMatch(/Failed requests: +0\n/)
  expect(`${stdout}`).toMatch(/HTML transferred: +50000000 bytes\n/)
  expect(`${stdout}`).not.toMatch(/Non-2xx responses/)
})

test('curl with HTTP/1.0 gets a reply that only the end of the connection ends', async (context) => {
  needs(context, 'curl')
  const reply = randomBytes(5 * MiB)
  await using target = await httpTarget((_, response) => {
    response.write(reply.subarray(0, 1))
    response.end(reply.subarray(1))
  })
  await using tunnel = await openTunnel(target.port)

  const { stdout, stderr } = await run('curl', ['--silent', '--verbose', '--http1.0', tunnel.url])

  expect(stdout.equals(reply)).toBe(true)
  expect(stderr).not.toMatch(/content-length|transfer-encoding/i)
})

test('curl uploads once the target says 100 Continue', async (context) => {
  needs(context, 'curl')
  await using folder = await temporaryFolder()
  const hash = await pseudorandomFile(folder.file('body'), 20 * MiB)
  await using target = await httpTarget(() => {})
  target.server.on('checkContinue', async (request: http.IncomingMessage, response: http.ServerResponse) => {
    response.writeContinue()
    response.end(await sha256(request))
  })
  await using tunnel = await openTunnel(target.port)

  const { stdout, stderr } = await run('curl', [
    ...['--silent', '--show-error', '--verbose', '--header', 'Expect: 100-continue'],
    // Longer than curl may run: without a 100 it does not go on by itself.
    ...['--expect100-timeout', '600', '--upload-file', folder.file('body'), tunnel.url],
  ])

  expect(stderr).toMatch(/^< HTTP\/1\.1 100 Continue/m)
  expect(`${stdout}`).toBe(hash)
})

test('curl does not upload where the target refuses before the body', async (context) => {
  needs(context, 'curl')
  await using folder = await temporaryFolder()
  await pseudorandomFile(folder.file('body'), 20 * MiB)
  await using target = await httpTarget(() => {})
  target.server.on('checkContinue', (_: http.IncomingMessage, response: http.ServerResponse) => {
    response.writeHead(413, { connection: 'close' }).end('too large')
  })
  await using tunnel = await openTunnel(target.port)

  const { stdout } = await run('curl', [
    ...['--silent', '--header', 'Expect: 100-continue', '--expect100-timeout', '600'],
    ...['--write-out', ' %{http_code} %{size_upload}', '--upload-file', folder.file('body'), tunnel.url],
  ])

  expect(`${stdout}`).toBe('too large 413 0')
})

test('curl hears a target that refuses the upload before it has come', async (context) => {
  needs(context, 'curl')
  await using folder = await temporaryFolder()
  await pseudorandomFile(folder.file('body'), 20 * MiB)
  // It closes with most of the upload unread, which the kernel makes a reset behind the answer.
  await using target = await httpTarget((_, response) => {
    response.writeHead(413, { connection: 'close' }).end('too large')
  })
  await using tunnel = await openTunnel(target.port)

  const upload = async () => {
    const { stdout } = await run('curl', [
      ...['--silent', '--header', 'Expect:', '--write-out', ' %{http_code}'],
      ...['--upload-file', folder.file('body'), tunnel.url],
    ])
    return `${stdout}`
  }
  const heard: string[] = []
  // curl gives up at a write that fails before it looks for an answer (status 55), with no tunnel in between either: 2 of 400 times.
  for (let i = 0; i < 10; i++) heard.push(await upload().catch((error) => `${error}`))
  const withAnswer = heard.filter((one) => one === 'too large 413')
  expect(withAnswer.length, heard.join('\n')).toBeGreaterThanOrEqual(8)
  expect(heard.filter((one) => one !== 'too large 413' && !one.includes('status 55'))).toEqual([])
})

test('curl shows each server-sent event before the next one is sent', async (context) => {
  needs(context, 'curl')
  await using target = await httpTarget((_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    events = response
  })
  let events: http.ServerResponse | undefined
  await using tunnel = await openTunnel(target.port)
  await using curl = start('curl', [...quiet, '--no-buffer', `${tunnel.url}/events`])
  let heard = ''
  curl.stdout.on('data', (chunk) => {
    heard += chunk
  })

  await vi.waitFor(() => expect(events).toBeDefined(), { timeout: 20_000 })
  let sent = ''
  for (let i = 1; i <= 100; i++) {
    const event = `id: ${i}\ndata: number ${i}\n\n`
    sent += event
    const shown = pEvent(curl.stdout, 'data', { timeout: 20_000, filter: () => heard === sent })
    events?.write(event)
    await shown
  }
  events?.end()
  await curl.exited
  expect(heard).toBe(sent)
})

test('WebSocket messages of every kind and size pass both ways', async () => {
  await using target = await httpTarget(() => {})
  const sockets = new WebSocketServer({ server: target.server as http.Server, perMessageDeflate: true })
  sockets.on('connection', (socket) => {
    socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }))
  })
  await using tunnel = await openTunnel(target.port)
  const socket = new WebSocket(tunnel.url.replace('http', 'ws'))
  await once(socket, 'open')

  const replies: { bytes: Buffer; isBinary: boolean }[] = []
  socket.on('message', (data: Buffer, isBinary) => replies.push({ bytes: data, isBinary }))
  const messages = [
    { bytes: Buffer.from('text, also in Ελληνικά'), isBinary: false },
    { bytes: Buffer.alloc(0), isBinary: true },
    { bytes: randomBytes(1), isBinary: true },
    // On both sides of where the length takes another form (RFC 6455, 5.2).
    ...[125, 126, 65_535, 65_536].map((size) => ({ bytes: randomBytes(size), isBinary: true })),
    ...Array.from({ length: 20 }, () => ({ bytes: randomBytes(MiB), isBinary: true })),
    { bytes: Buffer.alloc(MiB, 'text '), isBinary: false },
  ]
  for (const { bytes, isBinary } of messages) socket.send(bytes, { binary: isBinary })

  await vi.waitFor(() => expect(replies).toHaveLength(messages.length), { timeout: 30_000 })
  for (const [i, { bytes, isBinary }] of messages.entries()) {
    expect(replies[i]?.isBinary).toBe(isBinary)
    expect(replies[i]?.bytes.equals(bytes)).toBe(true)
  }
  socket.terminate()
})

test('WebSocket pings are answered and close codes arrive, from either side', async () => {
  await using target = await httpTarget(() => {})
  const sockets = new WebSocketServer({ server: target.server as http.Server })
  await using tunnel = await openTunnel(target.port)
  const open = async () => {
    const accepted = pEvent<'connection', WebSocket>(sockets, 'connection')
    const visitor = new WebSocket(tunnel.url.replace('http', 'ws'))
    await once(visitor, 'open')
    return { visitor, inside: await accepted }
  }

  const { visitor, inside } = await open()
  visitor.ping('from the visitor')
  expect(await once(inside, 'ping')).toEqual([Buffer.from('from the visitor')])
  expect(await once(visitor, 'pong')).toEqual([Buffer.from('from the visitor')])
  inside.ping('from the target')
  expect(await once(visitor, 'ping')).toEqual([Buffer.from('from the target')])
  expect(await once(inside, 'pong')).toEqual([Buffer.from('from the target')])

  visitor.close(4_001, 'the visitor goes')
  expect(await once(inside, 'close')).toEqual([4_001, Buffer.from('the visitor goes')])

  const second = await open()
  second.inside.close(4_002, 'the target goes')
  expect(await once(second.visitor, 'close')).toEqual([4_002, Buffer.from('the target goes')])
})

test('git clones a repository over http and pushes to it', async (context) => {
  needs(context, 'git')
  await using folder = await temporaryFolder()
  const git = (args: string[], cwd = folder.path) =>
    run('git', args, { cwd, env: gitEnvironment(folder.path) })
  await git(['init', '--quiet', '--bare', '--initial-branch', 'main', 'origin.git'])
  await git(['config', 'http.receivepack', 'true'], folder.file('origin.git'))
  await git(['init', '--quiet', '--initial-branch', 'main', 'first'])
  const hash = await pseudorandomFile(folder.file('first/large'), 20 * MiB)
  await mkdir(folder.file('first/many'))
  for (let i = 0; i < 200; i++) await writeFile(folder.file(`first/many/${i}`), `file ${i}\n`)
  await git(['add', '.'], folder.file('first'))
  await git(['commit', '--quiet', '--message', 'first'], folder.file('first'))
  await git(['push', '--quiet', folder.file('origin.git'), 'main'], folder.file('first'))
  await using target = await gitTarget(folder.path)
  await using tunnel = await openTunnel(target.port)

  await git(['clone', '--quiet', `${tunnel.url}/origin.git`, 'second'])

  const second = folder.file('second')
  expect(await sha256(folder.file('second/large'))).toBe(hash)
  await git(['fsck', '--strict'], second)
  expect((await git(['status', '--porcelain'], second)).stdout).toHaveLength(0)

  await pseudorandomFile(folder.file('second/another'), 20 * MiB, 2)
  await git(['add', '.'], second)
  await git(['commit', '--quiet', '--message', 'second'], second)
  await git(['push', '--quiet', 'origin', 'main'], second)

  const pushed = await git(['rev-parse', 'main'], folder.file('origin.git'))
  expect(pushed.stdout).toEqual((await git(['rev-parse', 'HEAD'], second)).stdout)
  await git(['fsck', '--strict'], folder.file('origin.git'))
})

test('nc sends lines and an EOF, and only then hears them sorted', async (context) => {
  needs(context, 'nc.openbsd', 'sort')
  const lines = Array.from({ length: 100_000 }, (_, i) => `${(i * 7_919) % 100_000}`.padStart(5, '0'))
  await using target = await tcpTarget((socket) => {
    const sort = start('sort', [])
    socket.pipe(sort.stdin)
    sort.stdout.pipe(socket)
  })
  await using server = await createServer()
  await using tunnel = await openTunnel(target.address, { server })

  const { stdout } = await run('nc.openbsd', ['-N', tunnel.host, `${tunnel.port}`], {
    input: `${lines.join('\n')}\n`,
  })

  expect(`${stdout}`).toBe(`${lines.sort().join('\n')}\n`)
})

test('redis-cli writes and reads, and loads 100,000 keys in bulk', async (context) => {
  needs(context, 'redis-cli', 'redis-server')
  await using redis = await startRedis()
  await using server = await createServer()
  await using tunnel = await openTunnel(redis.port, { server })
  const cli = (args: string[], input?: Buffer | string) =>
    run('redis-cli', ['-h', tunnel.host, '-p', `${tunnel.port}`, ...args], { input })
  const value = randomBytes(5 * MiB).toString('hex')

  expect(`${(await cli(['-x', 'SET', 'large'], value)).stdout}`).toBe('OK\n')
  expect(`${(await cli(['--raw', 'GET', 'large'])).stdout}` === `${value}\n`).toBe(true)

  const commands = Array.from({ length: 100_000 }, (_, i) => `SET key:${i} value:${i}\r\n`).join('')
  expect(`${(await cli(['--pipe'], commands)).stdout}`).toContain('errors: 0, replies: 100000')
  expect(`${(await cli(['DBSIZE'])).stdout}`).toBe('100001\n')
})

test('redis-benchmark runs 50 clients without an error', async (context) => {
  needs(context, 'redis-benchmark', 'redis-cli', 'redis-server')
  await using redis = await startRedis()
  await using tunnel = await openTunnel(redis.port)

  const args = ['-h', tunnel.host, '-p', `${tunnel.port}`, '-n', '20000', '-c', '50', '-t', 'incr', '--csv']
  const { stdout } = await run('redis-benchmark', args)

  expect(`${stdout}`).toMatch(/^"INCR","\d/m)
  const counter = await run('redis-cli', ['-p', `${redis.port}`, '--raw', 'GET', 'counter:__rand_int__'])
  expect(`${counter.stdout}`).toBe('20000\n')
})

test('psql copies 100,000 rows in and out, and hears notices', async (context) => {
  needs(context, 'initdb', 'postgres', 'psql')
  await using postgres = await startPostgres()
  await using server = await createServer()
  await using tunnel = await openTunnel(postgres.port, { server })
  const psql = (command: string, input?: string) =>
    run('psql', [...psqlArgs(tunnel), '-c', command], { input })
  const rows = Array.from({ length: 100_000 }, (_, i) => `${i}\tname of ${i}\n`).join('')

  await psql('CREATE TABLE people (id integer PRIMARY KEY, name text)')
  await psql('\\copy people FROM STDIN', rows)
  const { stdout } = await psql('\\copy (SELECT * FROM people ORDER BY id) TO STDOUT')
  const { stderr } = await psql("DO $$ BEGIN RAISE NOTICE 'heard %', (SELECT count(*) FROM people); END $$")

  expect(`${stdout}` === rows).toBe(true)
  expect(stderr).toContain('NOTICE:  heard 100000')
})

test('psql cancels a query, which it does by a connection of its own', async (context) => {
  needs(context, 'initdb', 'postgres', 'psql')
  await using postgres = await startPostgres()
  await using tunnel = await openTunnel(postgres.port)
  await using sleeper = start('psql', [...psqlArgs(tunnel), '-c', 'SELECT pg_sleep(600)'])
  const active = async () => {
    const query =
      "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"
    const { stdout } = await run('psql', [
      ...psqlArgs({ host: '127.0.0.1', port: postgres.port }),
      '-c',
      query,
    ])
    return `${stdout}`
  }
  await expect.poll(active, { timeout: 20_000, interval: 100 }).toBe('1\n')

  sleeper.process.kill('SIGINT')

  await expect(sleeper.exited).rejects.toThrow('canceling statement due to user request')
})

test('the packages of these programs are listed for apt', async () => {
  const list = await readFile(new URL('apt-packages.txt', import.meta.url), 'utf8')

  const all = [...Object.values(packages), ...Object.values(goPackages)]
  expect(list.trim().split('\n')).toEqual([...new Set(all)].sort())
})

/** No progress bar; fails where the server answers with an error. */
const quiet = ['--silent', '--show-error', '--fail']

/** No settings file, unaligned tuples only, a stop at the first error. */
function psqlArgs({ host, port }: { host: string; port: number }): string[] {
  return [
    '-X',
    '-A',
    '-t',
    '-v',
    'ON_ERROR_STOP=1',
    '-U',
    'postgres',
    '-h',
    host,
    '-p',
    `${port}`,
    'postgres',
  ]
}

/** Nothing of whoever runs the tests, and no question that nobody answers. */
function gitEnvironment(home: string): NodeJS.ProcessEnv {
  const [name, email] = ['Somebody', 'somebody@example.com']
  return {
    PATH: process.env.PATH,
    HOME: home,
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_TERMINAL_PROMPT: '0',
    GIT_AUTHOR_NAME: name,
    GIT_AUTHOR_EMAIL: email,
    GIT_COMMITTER_NAME: name,
    GIT_COMMITTER_EMAIL: email,
  }
}

/** The repositories of a folder, served by git's own CGI program. */
function gitTarget(folder: string) {
  return httpTarget((request, response) => {
    const { pathname, search } = new URL(request.url ?? '', 'http://localhost')
    const { headers, method } = request
    const backend = start('git', ['http-backend'], {
      env: {
        ...gitEnvironment(folder),
        GIT_PROJECT_ROOT: folder,
        GIT_HTTP_EXPORT_ALL: '1',
        GIT_PROTOCOL: `${headers['git-protocol'] ?? ''}`,
        REQUEST_METHOD: method,
        PATH_INFO: pathname,
        QUERY_STRING: search.slice(1),
        CONTENT_TYPE: headers['content-type'] ?? '',
        HTTP_CONTENT_ENCODING: headers['content-encoding'] ?? '',
        ...(headers['content-length'] && { CONTENT_LENGTH: headers['content-length'] }),
      },
    })
    request.pipe(backend.stdin)
    answerWith(backend.stdout, response)
  })
}

/** Turns a CGI program's output, header lines and a body (RFC 3875, 6), into a response. */
async function answerWith(output: Readable, response: http.ServerResponse): Promise<void> {
  let head = Buffer.alloc(0)
  for await (const chunk of output) {
    let body = chunk
    if (!response.headersSent) {
      head = Buffer.concat([head, chunk])
      const end = head.indexOf('\r\n\r\n')
      if (end < 0) continue
      const lines = `${head.subarray(0, end)}`.split('\r\n').map((line) => line.split(': ', 2))
      const { Status = '200', ...headers } = Object.fromEntries(lines)
      response.writeHead(Number.parseInt(Status, 10), headers)
      body = head.subarray(end + 4)
    }
    if (!response.write(body)) await once(response, 'drain')
  }
  response.end()
}
