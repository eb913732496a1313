/**
 * Tunnels over a network that is cut and made bad. Server and client are processes on hosts of their own; visitors come from the
 * server's host, and the target is on the client's.
 */
import { execFile } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { ServerOptions } from 'pipe-tunnel'
import { expect, type TestContext, test } from 'vitest'
import { createNetwork, type Network, needsNetwork } from './helpers/network.js'
import { needs } from './helpers/programs.js'
import {
  nextNoted,
  noted,
  type RemoteServer,
  type RemoteTunnel,
  type World as RemoteWorld,
  startRemoteServer,
  startRemoteTunnel,
} from './helpers/remote.js'

/** Heartbeats that notice a cut soon, yet do not take a slow machine for one. */
const heartbeats = { heartbeatInterval: 300, heartbeatTimeout: 3_000 }
/** Milliseconds that a process of a slow machine may take over what it does at once. */
const SLACK = 5_000
/** On a host that nobody else uses, any will do. */
const TARGET_PORT = 3_000
/** With one, all that goes over the cable is encrypted. */
const SECRET = 'correct horse battery staple'

test('a tunnel comes back after 20 s without a network, and a transfer goes on', async (context) => {
  await using world = await startWorld(context)
  const { network, server, client } = world
  const transfer = download(world, 40_000_000)
  await expect.poll(() => bytesOut(world), { timeout: 30_000 }).toBeGreaterThan(4_000_000)

  await network.cut()
  const cut = Date.now()
  const early = ask(world, 'just after the cut')
  early.catch(() => {})
  const losses = await Promise.all([nextNoted(server, 'disconnect'), nextNoted(client, 'disconnect')])
  for (const { at } of losses) expect(at - cut).toBeLessThan(15_000 + SLACK)
  const late = ask(world, 'while it is lost')
  await elapsed(cut, 20_000)
  await network.mend()
  const mended = Date.now()

  const { at } = await nextNoted(client, 'reconnect')
  expect(at - mended).toBeLessThan(5_000 + SLACK)
  expect(await late).toBe('while it is lost')
  expect(await early).toBe('just after the cut')
  expect(await transfer).toBe(hashOf(40_000_000))
  expect(await noted(server, 'reject')).toEqual([])
  expect(await client.run(({ tunnel }) => tunnel.url)).toBe(client.url)
}, 120_000)

test('both sides notice a cut within heartbeatTimeout, and uploads go on after it', async (context) => {
  await using world = await startWorld(context, heartbeats)
  const { network, server, client } = world
  const transfer = upload(world, 40_000_000)
  await expect.poll(() => bytesIn(world), { timeout: 30_000 }).toBeGreaterThan(4_000_000)

  await network.cut()
  const cut = Date.now()
  for (const remote of [server, client]) {
    const { at } = await nextNoted(remote, 'disconnect')
    expect(at - cut).toBeLessThan(heartbeats.heartbeatTimeout + SLACK)
  }
  await network.mend()
  await nextNoted(client, 'reconnect')
  expect(await ask(world, 'after it')).toBe('after it')
  expect(await transfer).toBe(hashOf(40_000_000))
  expect(await noted(server, 'closed')).toEqual([])
})

test('a client that gets another address has its tunnel again', async (context) => {
  await using world = await startWorld(context, heartbeats)
  const { network, server, client } = world
  await ask(world, 'idle', 'stay')

  await network.moveClient()
  await nextNoted(server, 'disconnect')
  await nextNoted(client, 'reconnect')
  expect(await ask(world, 'from elsewhere')).toBe('from elsewhere')
  expect(await noted(server, 'closed')).toEqual([])
})

test('a client that never comes back leaves nothing at the server', async (context) => {
  needs(context, 'ss')
  await using world = await startWorld(context, { ...heartbeats, resumeTimeout: 3_000 })
  const { network, server, client } = world
  const transfers = [download(world, 400_000_000), upload(world, 400_000_000)]
  const failures = Promise.allSettled(transfers)
  await ask(world, 'idle', 'stay')
  await mutter(world)
  await expect.poll(() => bytesOut(world), { timeout: 30_000 }).toBeGreaterThan(1_000_000)
  await expect.poll(() => bytesIn(world), { timeout: 30_000 }).toBeGreaterThan(1_000_000)

  await network.cut()
  await nextNoted(server, 'closed')
  expect((await failures).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  await expect.poll(() => server.run(({ server }) => server.connections), { timeout: 30_000 }).toBe(0)
  await expect.poll(() => client.run(({ tunnel }) => tunnel.connections), { timeout: 30_000 }).toBe(0)
  // Those that were cut towards the client wait in the kernel for an answer, and belong to nobody.
  const owned = async () => {
    const lines = await sockets(network, '-tnpH')
    return lines.filter((line) => line.includes(`pid=${server.pid},`))
  }
  await expect.poll(owned, { timeout: 30_000 }).toEqual([])
  expect(client.isRunning()).toBe(true)
}, 120_000)

test('the kernel watches over every connection that stays', async (context) => {
  needs(context, 'ss')
  await using world = await startWorld(context)
  const { network, server, client } = world
  await ask(world, 'idle', 'stay')
  const watchedAt = async ({ port }: { port: number }) => {
    const lines = await sockets(network, '-tnopH')
    const own = lines.filter((line) => line.includes(`pid=${server.pid},`))
    const there = own.filter((line) => line.split(/\s+/)[3]?.endsWith(`:${port}`))
    return there.filter((line) => /timer:\(keepalive,/.test(line)).length
  }

  // The data stream, and the visitor. The control connection has heartbeats.
  await expect.poll(() => watchedAt(server), { timeout: 30_000 }).toBe(1)
  await expect.poll(() => watchedAt(client), { timeout: 30_000 }).toBe(1)
})

test('requests and a transfer arrive whole over 100 ms of latency and a loss of 5 %', async (context) => {
  // With packets of 1,500 bytes, TCP would make so little of such a line that the transfer took minutes.
  await using world = await startWorld(context, {}, { mtu: 9_000 })
  const { network, server, client } = world
  await network.setConditions({ delay: 50, loss: 5 })
  const transfer = download(world, 10_000_000)
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, number) => ask(world, `request ${number}`)),
  )

  expect(answers).toEqual(Array.from({ length: 50 }, (_, number) => `request ${number}`))
  expect(await transfer).toBe(hashOf(10_000_000))
  expect(await noted(client, 'disconnect')).toEqual([])
  expect(await noted(server, 'reject')).toEqual([])
}, 120_000)

interface World extends AsyncDisposable {
  network: Network
  server: RemoteServer
  client: RemoteTunnel
}

/** A server, a client with a tunnel, and a target, on two hosts. */
async function startWorld(
  context: TestContext,
  options: ServerOptions = {},
  shape?: { mtu: number },
): Promise<World> {
  await needsNetwork(context)
  const opened: AsyncDisposable[] = []
  const own = <T extends AsyncDisposable>(one: T) => {
    opened.unshift(one)
    return one
  }
  const dispose = async () => {
    for (const one of opened) await one[Symbol.asyncDispose]()
  }
  try {
    const network = own(await createNetwork(shape))
    const at = { ...options, host: network.server.address, secret: SECRET }
    const server = own(await startRemoteServer(at, network.server))
    const target = `tcp://127.0.0.1:${TARGET_PORT}`
    const client = own(
      await startRemoteTunnel(target, { server: server.address, secret: SECRET }, network.client),
    )
    await client.run(startTarget, TARGET_PORT)
    return { network, server, client, [Symbol.asyncDispose]: dispose }
  } catch (error) {
    await dispose()
    throw error
  }
}

/** What a transfer carries: bytes that nothing can compress or guess, and always the same. */
function hashOf(size: number): string {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16))
  return createHash('sha256')
    .update(cipher.update(Buffer.alloc(size)))
    .digest('hex')
}

/**
 * A target that does what the first line asks for: to echo what follows, to send so many bytes, or to take so many and to
 * answer with their hash.
 */
async function startTarget({ net, crypto, once, stream }: RemoteWorld, port: number): Promise<void> {
  const target = net.createServer({ allowHalfOpen: true }, async (socket) => {
    socket.on('error', () => {})
    const [first] = await once(socket, 'data')
    socket.pause()
    const [line = ''] = String(first).split('\n', 1)
    const rest = first.subarray(line.length + 1)
    const [what, size] = line.split(' ')
    if (what === 'echo') {
      socket.write(rest)
      socket.pipe(socket)
    } else if (what === 'send') {
      const cipher = crypto.createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16))
      stream.pipeline(zeros(Number(size)), cipher, socket, () => {})
    } else {
      const hash = crypto.createHash('sha256').update(rest)
      socket
        .on('data', (chunk) => hash.update(chunk))
        .on('end', () => socket.end(hash.digest('hex')))
        .resume()
    }
  })
  target.listen(port, '127.0.0.1')
  await once(target, 'listening')

  function* chunks(size: number) {
    for (let left = size; left > 0; left -= 65_536) yield Buffer.alloc(Math.min(left, 65_536))
  }
  function zeros(size: number) {
    return stream.Readable.from(chunks(size))
  }
}

/** A visitor that says something; resolves with the answer. One that is to stay does not leave. */
function ask({ server, client }: World, text: string, stay?: 'stay'): Promise<string> {
  return server.run(
    async ({ net, once }, { host, port, text, stay }) => {
      const socket = net.connect(port, host).on('error', () => {})
      socket.write(`echo\n${text}`)
      const [answer] = await once(socket, 'data')
      if (!stay) socket.destroy()
      return String(answer)
    },
    { host: client.host, port: client.port, text, stay },
  )
}

/** A visitor that gets so many bytes; resolves with their hash. Rejects where they do not come whole. */
function download({ server, client }: World, size: number): Promise<string> {
  return server.run(
    async ({ net, crypto }, { host, port, size }) => {
      const socket = net.connect(port, host)
      socket.write(`send ${size}\n`)
      const hash = crypto.createHash('sha256')
      for await (const chunk of socket) hash.update(chunk)
      return hash.digest('hex')
    },
    { host: client.host, port: client.port, size },
  )
}

/** A visitor that sends so many bytes; resolves with the hash of what the target got. */
function upload({ server, client }: World, size: number): Promise<string> {
  return server.run(
    async ({ net, crypto, once, stream }, { host, port, size }) => {
      function* chunks() {
        for (let left = size; left > 0; left -= 65_536) yield Buffer.alloc(Math.min(left, 65_536))
      }
      const socket = net.connect({ port, host, allowHalfOpen: true })
      socket.write(`take ${size}\n`)
      const cipher = crypto.createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16))
      stream.Readable.from(chunks()).pipe(cipher).pipe(socket)
      const [answer] = await once(socket, 'data')
      socket.destroy()
      return String(answer)
    },
    { host: client.host, port: client.port, size },
  )
}

/** A visitor that says a little now and then, without end: the kernel takes that for a peer that is gone, too. */
function mutter({ server, client }: World): Promise<void> {
  return server.run(
    async ({ net, once }, { host, port }) => {
      const socket = net.connect(port, host).on('error', () => {})
      socket.write('echo\nhere')
      const timer = setInterval(() => socket.write('still here'), 100)
      socket.on('close', () => clearInterval(timer))
      await once(socket, 'data')
      socket.resume()
    },
    { host: client.host, port: client.port },
  )
}

function bytesIn({ server }: World): Promise<number> {
  return server.run(({ server }) => server.stats.bytesIn)
}

function bytesOut({ server }: World): Promise<number> {
  return server.run(({ server }) => server.stats.bytesOut)
}

/** The TCP sockets of the server's host, as ss lists them. */
async function sockets({ server }: Network, flags: string): Promise<string[]> {
  const [command = '', ...words] = [...server.words, 'ss', flags]
  const { stdout } = await promisify(execFile)(command, words)
  return stdout.trim().split('\n')
}

/** Resolves so many milliseconds after a moment. The time is what is tested here. */
function elapsed(since: number, time: number): Promise<void> {
  return setTimeout(since + time - Date.now())
}
