/** What stands where Caddy's admin API should be, or is that API and does not do as it should. */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { text } from 'node:stream/consumers'
import { createServer, type Server, type ServerOptions } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { pipeToEnd } from './helpers/command.js'
import { echoTarget, httpTarget, type SampleTarget } from './helpers/targets.js'

const domain = 'example.test'

describe('a server is told', () => {
  test.each<[string, RequestListener, string, RegExp]>([
    [
      'that no Caddy answers where something speaks another protocol',
      ({ socket }) =>
        void socket.write(
          'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n',
        ),
      'caddy-unreachable',
      /^no Caddy answers at \S+ \(an upgrade that nobody has asked for\): is it running/,
    ],
    [
      'what is too long for a configuration',
      (_request, response) => void response.end('x'.repeat(17_000_000)),
      'caddy-failed',
      /^what answers at \S+ says more than 16777216 characters: is that the admin API of Caddy\?$/,
    ],
    [
      'that it may not ask',
      (_request, response) => void response.writeHead(403).end('{"error":"host not allowed: caddy:2019"}'),
      'caddy-failed',
      /^what answers at \S+ does not tell its configuration \(403, host not allowed: caddy:2019\): is that/,
    ],
    [
      'that something leads elsewhere',
      (_request, response) => void response.writeHead(301, { location: '/' }).end(),
      'caddy-failed',
      /^what answers at \S+ does not tell its configuration \(301\): is that/,
    ],
    [
      'that a configuration is not one of Caddy',
      (_request, response) => void response.end('{"apps":{"http":{"servers":{"a":{"listen":443}}}}}'),
      'caddy-failed',
      /^the configuration at \S+ is not as Caddy has it \(/,
    ],
  ])('%s', async (_, answer, code, message) => {
    await using admin = await httpTarget(answer)

    await expect(start(admin)).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
  })
})

test('a configuration may have null in place of what is left out', async () => {
  const route = { match: [{ host: null }, { host: ['www.example.test'] }], handle: null, terminal: null }
  const server = {
    listen: [':443'],
    routes: [{ match: null, handle: [{ handler: 'subroute', routes: null }] }, route],
    tls_connection_policies: null,
  }
  const servers = { first: { listen: null, routes: null }, second: server }
  const policies = [{ subjects: null, issuers: null, on_demand: null }]
  const before = {
    apps: { http: { https_port: null, servers }, tls: { automation: { policies } } },
  }
  const caddy = { config: structuredClone(before) as unknown }
  await using admin = await adminOf(caddy)
  const tunnels = await start(admin)

  expect(JSON.stringify(caddy.config)).toContain('*.example.test')
  await tunnels.close()
  expect(caddy.config).toEqual(before)
})

test('what a process has left behind is replaced, though another answers there in no HTTP of ours', async () => {
  await using other = await httpTarget(
    ({ socket }) =>
      void socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n'),
  )
  const ask = `http://127.0.0.1:${other.port}/pipe-tunnel/${domain}`
  const caddy = { config: { apps: { tls: { automation: { on_demand: { ask } } } } } as unknown }
  await using admin = await adminOf(caddy)
  await using _server = await start(admin)

  expect(JSON.stringify(caddy.config)).not.toContain(ask)
})

describe('one that can not listen', () => {
  test('leaves nothing in the configuration, also where the process ends then', async () => {
    await using taken = await echoTarget()
    const caddy = { config: { logging: {} } as unknown }
    await using admin = await adminOf(caddy)
    const args = [
      'server',
      '--port',
      `${taken.port}`,
      '--domain',
      domain,
      '--caddy',
      `http://${admin.address}`,
    ]

    expect(await pipeToEnd(args)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^pipe: \S+ is taken by another program or tunnel: .*\n$/),
    })
    expect(caddy.config).toEqual({ logging: {} })
  })

  test('says why also where Caddy does not take that back', async () => {
    await using taken = await echoTarget()
    const caddy = { config: {} as unknown }
    await using admin = await adminOf(caddy, (_request, response) => {
      const isChanged = JSON.stringify(caddy.config) !== '{}'
      if (isChanged) response.writeHead(500).end('{"error":"not now"}')
      return isChanged
    })

    await expect(start(admin, { port: taken.port })).rejects.toMatchObject({ code: 'port-taken' })
  })
})

test('a server says that Caddy kept its configuration, and closes', async () => {
  const caddy = { config: {} as unknown }
  let isDeep = false
  await using admin = await adminOf(caddy, (_request, response) => {
    if (isDeep) response.end(`${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`)
    return isDeep
  })
  const server = await start(admin)
  const lost: string[] = []
  server.on('caddyLost', ({ code }) => lost.push(code))
  isDeep = true
  await server.close()

  expect(lost).toEqual(['caddy-failed'])
})

function start(admin: SampleTarget, options: ServerOptions = {}): Promise<Server> {
  return createServer({ ...options, http: { port: 0, domain, caddy: `http://${admin.address}` } })
}

/** An admin API that has a configuration, but for requests that are answered otherwise. */
function adminOf(
  caddy: { config: unknown },
  isAnswered: (request: IncomingMessage, response: ServerResponse) => boolean = () => false,
): Promise<SampleTarget> {
  return httpTarget(async (request, response) => {
    const body = await text(request)
    if (isAnswered(request, response)) return
    if (request.method === 'GET') {
      response.end(JSON.stringify(caddy.config))
      return
    }
    caddy.config = JSON.parse(body)
    response.end()
  })
}
