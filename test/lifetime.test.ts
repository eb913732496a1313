/** What a process is left with: nothing that keeps it alive, nothing that leaks. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { openTunnel, TunnelError } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { withoutPrivileges } from './helpers/command.js'

const built = fileURLToPath(new URL('../dist/index.js', import.meta.url))

/** Runs a module with the built package at hand; it has to end by itself. */
async function run(body: string, before: string[] = []) {
  const script = `import { createServer, openTunnel } from ${JSON.stringify(built)}\n${body}`
  const options = { timeout: 30_000, killSignal: 'SIGKILL' as const }
  const [command = '', ...args] = [...before, process.execPath, '--input-type=module', '--eval', script]
  return promisify(execFile)(command, args, options)
}

describe('after close', () => {
  test('the process holds what it held before', async () => {
    // In a process of its own: a test runner has timers and pipes that come and go.
    const { stdout } = await run(`
      import net from 'node:net'
      import { once } from 'node:events'
      const target = net.createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(0, '127.0.0.1')
      await once(target, 'listening')
      // A handle that is closed goes in the next turns of the event loop.
      const turn = () => new Promise((resolve) => setImmediate(resolve))
      const resources = async () => {
        for (let i = 0; i < 5; i++) await turn()
        return process.getActiveResourcesInfo().filter((name) => name !== 'Immediate').sort().join()
      }
      const connections = () => new Promise((resolve) => target.getConnections((_, count) => resolve(count)))
      process.stdout.write('')
      process.stderr.write('')
      const before = await resources()

      const server = await createServer({ secret: 'correct horse battery staple' })
      const tunnel = await openTunnel(target.address().port, { server })
      const visitors = Array.from({ length: 20 }, () => net.connect(tunnel.port, tunnel.host))
      for (const visitor of visitors) visitor.on('error', () => {}).write('hello')
      await Promise.all(visitors.map((visitor) => once(visitor, 'data')))
      const open = await resources()
      await tunnel.close()
      await server.close()
      await Promise.all(visitors.map((visitor) => visitor.closed || once(visitor, 'close')))
      while (await connections()) await turn()

      console.log(JSON.stringify({ before, open, after: await resources() }))
      target.close()
    `)
    const { before, open, after } = JSON.parse(stdout)
    expect(open).not.toBe(before)
    expect(after).toBe(before)
  })

  test('a script ends by itself', async () => {
    const { stdout } = await run(`
      const tunnel = await openTunnel(3000)
      await tunnel.close()
      console.log('closed')
    `)
    expect(stdout).toBe('closed\n')
  })

  test('of a server whose clients are still there, a script ends by itself', async () => {
    const { stdout } = await run(`
      const server = await createServer()
      const tunnel = await openTunnel(3000, { server })
      await server.close()
      console.log((await tunnel.closed).code)
    `)
    expect(stdout).toBe('server-closed\n')
  })
})

describe('a script that ends', () => {
  test('waits for a close all the same, with unref', async () => {
    const { stdout } = await run(`
      const tunnel = await openTunnel(3000, { unref: true })
      await tunnel.close()
      console.log('closed')
    `)
    expect(stdout).toBe('closed\n')
  })

  test('is not kept by a visitor inside, with unref, on either loopback family', async () => {
    const { stdout } = await run(`
      import net from 'node:net'
      import { once } from 'node:events'
      const target = net.createServer().listen(0, process.argv[1] ?? '::1').on('error', () => process.exit(0)).unref()
      await once(target, 'listening')
      target.on('connection', (socket) => socket.unref())
      const tunnel = await openTunnel('localhost:' + target.address().port, { unref: true })
      const connected = once(tunnel, 'connection')
      net.connect(tunnel.port, tunnel.host).unref()
      const timer = setTimeout(() => {}, 20_000)
      await connected
      clearTimeout(timer)
      console.log('inside')
    `)
    expect(stdout).toMatch(/^(inside\n)?$/)
  })

  test('is not kept by a tunnel and a server with unref', async () => {
    const { stdout } = await run(`
      const server = await createServer({ unref: true })
      const [one, two] = [await openTunnel(3000, { unref: true }), await openTunnel(3000, { server, unref: true })]
      console.log('open')
    `)
    expect(stdout).toBe('open\n')
  })

  test('is kept by a tunnel without', async () => {
    const running = run(`
      const tunnel = await openTunnel(3000)
      setTimeout(() => { console.log('still open'); tunnel.close() }, 300).unref()
    `)
    expect((await running).stdout).toBe('still open\n')
  })

  test('by a failed opening ends with its error alone', async () => {
    const { stdout, stderr } = await run(`
      await openTunnel(3000, { server: '127.0.0.1:1' }).catch((error) => console.log(error.code))
      await createServer({ port: -1 }).catch((error) => console.log(error.code))
    `)
    expect(stdout).toBe('server-unreachable\ninvalid-option\n')
    expect(stderr).toBe('')
  })
})

describe('a listener that throws', () => {
  test('surfaces as an uncaught exception, and the tunnel goes on', async () => {
    const { stdout } = await run(`
      import net from 'node:net'
      process.on('uncaughtException', (error) => console.log('uncaught', error.message))
      const target = net.createServer((socket) => socket.end('served')).listen(0, '127.0.0.1')
      await new Promise((resolve) => target.once('listening', resolve))
      const tunnel = await openTunnel(target.address().port)
      tunnel.on('connection', () => { throw new Error('of the listener') })
      const visitor = net.connect(tunnel.port, tunnel.host)
      visitor.on('data', (chunk) => console.log(String(chunk)))
      await new Promise((resolve) => visitor.once('close', resolve))
      await tunnel.close()
      target.close()
    `)
    expect(stdout.split('\n').sort()).toEqual(['', 'served', 'uncaught of the listener'])
  })
})

test('a port of the range that the system reserves is passed over', async ({ skip }) => {
  const words = withoutPrivileges(skip)
  const { stdout } = await run(
    `
      const reserved = await createServer({ port: 1 }).then(() => 'no', (error) => error.cause?.code)
      const server = await createServer({ ports: '1000-1100', unref: true })
      const ports = []
      for (let i = 0; i < 20; i++) ports.push((await openTunnel(3000, { server, unref: true })).port)
      console.log(JSON.stringify({ reserved, lowest: Math.min(...ports) }))
    `,
    words,
  )
  const { reserved, lowest } = JSON.parse(stdout)
  skip(reserved !== 'EACCES', 'this system reserves no ports')
  expect(lowest).toBeGreaterThan(1_023)
})

test('one signal may end any number of waits, and Node has nothing to warn of', async () => {
  const { stdout, stderr } = await run(`
    import net from 'node:net'
    import { once } from 'node:events'
    const { signal } = new AbortController()
    const target = net.createServer((socket) => socket.on('error', () => {}).resume()).listen(0, '127.0.0.1')
    await once(target, 'listening')
    const server = await createServer({ signal })
    const options = { server, signal }
    const tunnels = await Promise.all(Array.from({ length: 15 }, () => openTunnel(target.address().port, options)))
    const inside = tunnels.map((tunnel) => once(tunnel, 'connection'))
    const visitors = tunnels.map(({ port }) => net.connect(port, '127.0.0.1').on('error', () => {}))
    await Promise.all(inside)
    const cut = new AbortController()
    const closed = tunnels.map((tunnel) => tunnel.close({ grace: 60_000, signal: cut.signal }))
    for (const visitor of visitors) visitor.destroy()
    await Promise.all(closed)
    await server.close()
    target.close()
    console.log('closed')
  `)

  expect(stdout).toBe('closed\n')
  expect(stderr).toBe('')
})

test('an error is one of ours, with code, cause and a name', async () => {
  const error = await openTunnel(3000, { server: '127.0.0.1:1' }).catch((error: unknown) => error)

  expect(error).toBeInstanceOf(TunnelError)
  expect(error).toBeInstanceOf(Error)
  expect(error).toMatchObject({
    name: 'TunnelError',
    code: 'server-unreachable',
    cause: { code: 'ECONNREFUSED' },
  })
})
