/**
 * Processes that may open no more files and sockets.
 *
 * What Node 20, 22, 24 and 26 were found to do by themselves when a listener has no descriptor for a connection (EMFILE):
 * libuv gives up one that it keeps for this, accepts all that wait and closes them, by a FIN where nothing was sent. No event
 * tells of it, neither `error` nor `drop`. It takes no time to speak of while it holds that descriptor. Once another thread of the
 * process has taken it, in that very moment, connections are left to wait in the kernel and libuv is told of them again
 * without end: the process takes a whole core (1,000 ms of CPU time a second, on all four), until a descriptor is free.
 */
import dgram from 'node:dgram'
import net from 'node:net'
import { openTunnel, type Tunnel } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { type Remote, startRemote } from './helpers/remote.js'
import { echoTarget } from './helpers/targets.js'
import { ending } from './helpers/visitor.js'

describe.skipIf(process.platform === 'win32')('a process with few descriptors', () => {
  test('that is the server turns visitors away, loses nobody, and goes on', async () => {
    await using target = await echoTarget()
    await using server = await startServer(80)
    await using tunnel = await openTunnel(target.port, { server: await addressOf(server) })
    await using inside = await crowd(tunnel, 5)
    expect(inside.served).toHaveLength(5)

    await using flood = await crowd(tunnel, 200)
    const before = await server.run(() => process.cpuUsage())
    const starved = await server.run(async () => {
      await new Promise((resolve) => setTimeout(resolve, 2_000))
      const { user, system } = process.cpuUsage()
      return (user + system) / 1_000
    })
    console.log(flood.served.length, flood.ends, starved - (before.user + before.system) / 1000, await server.run(({seen}) => seen.slice(0,5)))
    expect(await echoes(inside.served)).toBe(true)
    expect(await echoes(flood.served)).toBe(true)
    await flood[Symbol.asyncDispose]()
    await expect.poll(async () => { await using next = await crowd(tunnel, 1); return next.served.length }, { timeout: 30000}).toBe(1)
  })
})

function startServer(descriptors: number) {
  return start(descriptors)
}
async function start(descriptors: number) {
  const remote = await startRemote({ descriptors })
  await remote.run(async (world) => {
    world.server = await world.createServer()
    world.server.on('reject', ({ error }) => world.seen.push([error.code, error.message]))
    world.server.on('refuse', ({ error }) => world.seen.push(['refuse', error.code, error.message]))
  })
  return remote
}
function addressOf(server: Remote): Promise<string> { return server.run(({ server }) => server.address) }

async function crowd(tunnel: Tunnel, size: number) {
  const ends: Record<string, number> = {}
  const served: net.Socket[] = []
  const all = await Promise.all(Array.from({ length: size }, async () => {
    const socket = net.connect({ port: tunnel.port, host: tunnel.host, allowHalfOpen: true }).on('error', () => {})
    socket.write('hello')
    const how = await Promise.race([ending(socket), new Promise<'data'>((resolve) => socket.once('data', () => resolve('data')))])
    ends[how] = (ends[how] ?? 0) + 1
    if (how === 'data') served.push(socket)
    return socket
  }))
  return { served, ends, async [Symbol.asyncDispose]() { for (const s of all) s.destroy() } }
}
async function echoes(sockets: net.Socket[]) {
  const answers = await Promise.all(sockets.map(async (s) => { s.write('again'); return new Promise((resolve) => { s.once('data', (d) => resolve(String(d))); s.once('close', () => resolve('closed')) }) }))
  return answers.every((a) => a === 'again') || answers
}
