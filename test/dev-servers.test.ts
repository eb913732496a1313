/** Dev servers that answer for hosts they know alone, as their users expose them. */
import { on, once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import { expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { freePort, type Program, pipe, start, temporaryFolder } from './helpers/command.js'
import { httpTarget, readAll } from './helpers/targets.js'

/** The name under which somebody visits, from wherever the tunnel ends. */
const PUBLIC = 'tunnel.example.com'

test('Vite serves its page and updates it, with --host-header rewrite alone', async () => {
  await using app = await viteApp()
  const { port } = app
  await using dev = start(process.execPath, [vite, '--port', String(port), '--strictPort'], { cwd: app.path })
  await dev.stdout.line(/ready in/)
  await using plain = pipe(['expose', String(port)])
  const url = await urlOf(plain)
  // What this is about: Vite does not know the host.
  expect(await visit(url, '/')).toMatchObject({ status: 403 })
  await using rewriting = pipe(['expose', String(port), '--host-header', 'rewrite'])
  const better = await urlOf(rewriting)

  expect(await visit(better, '/')).toMatchObject({ status: 200, body: expect.stringContaining('/main.js') })
  expect(await visit(better, '/main.js')).toMatchObject({
    status: 200,
    body: expect.stringContaining('first'),
  })
  const client = await visit(better, '/@vite/client')
  const [, token] = /wsToken = "([\w-]+)"/.exec(client.body) ?? []
  const socket = new WebSocket(`${better.replace('http', 'ws')}/?token=${token}`, 'vite-hmr', {
    headers: { host: PUBLIC },
    origin: `http://${PUBLIC}`,
  })
  const messages = messagesOf(socket)
  expect((await messages.next()).value).toEqual({ type: 'connected' })

  await writeFile(path.join(app.path, 'main.js'), main('second'))

  expect((await messages.next()).value).toMatchObject({ type: 'update', updates: [{ path: '/main.js' }] })
  expect((await visit(better, '/main.js?t=1')).body).toContain('second')
  socket.terminate()
}, 120_000)

test('a server that checks the host and the origin serves both, and no other site', async () => {
  await using target = await httpTarget((request, response) => {
    const { host, origin = `http://${host}` } = request.headers
    const isKnown = host === target.address && origin === `http://${target.address}`
    response.writeHead(isKnown ? 200 : 403).end()
  })
  await using program = pipe(['expose', target.address, '--host-header', 'rewrite'])
  const url = await urlOf(program)

  expect(await visit(url, '/')).toMatchObject({ status: 200 })
  expect(await visit(url, '/', { origin: `https://${PUBLIC}` })).toMatchObject({ status: 200 })
  expect(await visit(url, '/', { origin: 'https://evil.example.com' })).toMatchObject({ status: 403 })
})

const require = createRequire(import.meta.url)
/** The one that vitest brings. */
const vite = path.join(
  path.dirname(createRequire(require.resolve('vitest')).resolve('vite/package.json')),
  'bin',
  'vite.js',
)

const main = (word: string) => `document.title = '${word}'\nimport.meta.hot.accept()\n`

/** A page of Vite's in a folder of its own, and a port to serve it at. */
async function viteApp(): Promise<{ path: string; port: number } & AsyncDisposable> {
  const folder = await temporaryFolder()
  await writeFile(path.join(folder.path, 'index.html'), '<script type="module" src="/main.js"></script>')
  await writeFile(path.join(folder.path, 'main.js'), main('first'))
  return Object.assign(folder, { port: await freePort() })
}

function urlOf(program: Program): Promise<string> {
  return program.stdout.line(/^http:/)
}

/** An answer to a visitor that knows the server by its public name. */
async function visit(url: string, where: string, headers = {}): Promise<{ status: number; body: string }> {
  const request = http.get(`${url}${where}`, { agent: false, headers: { host: PUBLIC, ...headers } })
  const [response] = await once(request, 'response')
  return { status: response.statusCode, body: String(await readAll(response)) }
}

/** The messages of a WebSocket, in their order. */
async function* messagesOf(socket: WebSocket): AsyncGenerator<unknown> {
  for await (const [message] of on(socket, 'message', { close: ['close'] })) yield JSON.parse(String(message))
}
