/** HTTP tunnels of the command. */
import { describe, expect, test } from 'vitest'
import { pipe, pipeToEnd } from './helpers/command.js'
import { request, serveHttp, textOf } from './helpers/http.js'

/** What answers at the URL, whatever the name server says of its name. */
async function get(url: string, headers: Record<string, string> = {}): Promise<string> {
  const { host, port } = new URL(url)
  return textOf(await request('http://127.0.0.1', { port, headers: { Host: host, ...headers } }))
}

describe('pipe expose --hostname', () => {
  test('prints a URL that works, at a server with --http-port', async () => {
    await using target = await serveHttp((_request, response) => response.end('served'))
    await using server = pipe(['server', '--port', '0', '--http-port', '0', '--domain', 'tunnels.localhost'])
    const address = await server.stdout.line(/^pipe:/)
    expect(await server.stderr.line(/HTTP tunnels/)).toMatch(/on port \d+, with names in tunnels\.localhost;/)
    await using named = pipe(['expose', `${target.port}`, '--hostname', 'shop', '--to', address])
    await using random = pipe(['expose', `${target.port}`, '--to', address, '--hostname'])

    const url = await named.stdout.line(/^http/)
    expect(url).toMatch(/^http:\/\/shop\.tunnels\.localhost:\d+$/)
    expect(await get(url)).toBe('served')
    expect(await get(await random.stdout.line(/^http/))).toBe('served')
    await server.stderr.line(/opened tunnel \w+ at http:\/\/shop\.tunnels\.localhost:\d+ for /)
  })

  test('asks for what --basic-auth says', async () => {
    await using target = await serveHttp((_request, response) => response.end('served'))
    await using program = pipe([
      'expose',
      `${target.port}`,
      '--hostname',
      'shop',
      '--basic-auth',
      'user:pass',
    ])
    const url = await program.stdout.line(/^http/)

    expect(await get(url)).toMatch(/^401 Unauthorized/)
    expect(await get(url, { Authorization: `Basic ${btoa('user:pass')}` })).toBe('served')
  })

  test.each([
    [
      ['expose', '3000', '4000', '--hostname', 'shop'],
      /--hostname shop is one name for 2 targets: write --hostname alone, or use pipe up/,
    ],
    [
      ['expose', '3000', '--hostname', 'My_Shop'],
      /^pipe: --hostname must be 1 to 63 of .*, not "My_Shop"\n$/,
    ],
    [
      ['expose', '3000', '--hostname', 'shop', '--port', '5'],
      /^pipe: --hostname leaves no room for --port: leave one of them out\n$/,
    ],
    [
      ['expose', '8080:3000', '--hostname'],
      /--hostname leaves no room for a public port, which 8080:3000 names/,
    ],
    [['expose', '3000', '--hostname', '--listen', 'unix:/tmp/x'], /--hostname leaves no room for --listen/],
    [['expose', '3000', '--basic-auth', 'user:pass'], /--basic-auth is for tunnels with a hostname/],
    [['server', '--domain', 'example.com'], /--domain must be left out where there is no --http-port/],
    [['server', '--http-port', 'many'], /--http-port must be a whole number/],
  ])('says what is wrong with %j', async (args, complaint) => {
    const { code, stderr } = await pipeToEnd(args)
    expect(code).toBe(2)
    expect(stderr).toMatch(complaint)
  })
})
