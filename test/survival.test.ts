/** What becomes of tunnels whose processes are stopped, killed and started again. Each process here is a real one. */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { openTunnel, type Tunnel } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { freePort } from './helpers/command.js'
import { nextNoted, noted, startRemoteServer, startRemoteTunnel } from './helpers/remote.js'
import { echoTarget, httpTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

/** Heartbeats of servers here, so that silence is noticed soon, yet not where the machine is merely slow. */
const heartbeats = { heartbeatInterval: 200, heartbeatTimeout: 2_000 }
/** Milliseconds that a process of a slow machine may take over what it does at once. */
const SLACK = 5_000

describe.skipIf(process.platform === 'win32')('a client process that is stopped', () => {
  test('is noticed, loses its public port in the end, and has it again when it goes on', async () => {
    await using target = await echoTarget()
    await using server = await startRemoteServer({ ...heartbeats, resumeTimeout: 1_000 })
    await using client = await startRemoteTunnel(target.port, { server: server.address })
    const stopped = Date.now()
    client.signal('SIGSTOP')

    const loss = await nextNoted(server, 'disconnect')
    expect(loss).toMatchObject({ code: 'connection-lost' })
    expect(loss.at - stopped).toBeLessThan(2_000 + SLACK)
    await nextNoted(server, 'closed')
    const other = await openTunnel(target.port, { server: server.address, port: client.port })
    expect(await ask(client, 'through the other')).toEqual(Buffer.from('through the other'))
    await other.close()

    client.signal('SIGCONT')
    await nextNoted(client, 'reconnect')
    expect(await ask(client, 'through the first')).toEqual(Buffer.from('through the first'))
    expect(await noted(client, 'closed')).toEqual([])
  })

  test('waits for its public port where another client has taken that meanwhile', async () => {
    await using target = await echoTarget()
    await using server = await startRemoteServer({ ...heartbeats, resumeTimeout: 1_000 })
    await using client = await startRemoteTunnel(target.port, { server: server.address })
    client.signal('SIGSTOP')
    await nextNoted(server, 'closed')
    const other = await openTunnel(target.port, { server: server.address, port: client.port })
    client.signal('SIGCONT')
    await nextNoted(client, 'disconnect')
    expect(await noted(client, 'reconnect')).toEqual([])

    await other.close()
    await nextNoted(client, 'reconnect')
    expect(await ask(client, 'mine again')).toEqual(Buffer.from('mine again'))
  })

  test('keeps its public port for resumeTimeout, and visitors wait for it', async () => {
    await using target = await echoTarget()
    await using server = await startRemoteServer(heartbeats)
    await using client = await startRemoteTunnel(target.port, { server: server.address })
    const inside = await visit(client)
    inside.write('before')
    await once(inside, 'data')
    client.signal('SIGSTOP')
    await nextNoted(server, 'disconnect')
    const answer = ask(client, 'while it stands still')
    inside.write('inside')
    const echoed = once(inside, 'data')

    client.signal('SIGCONT')
    expect(await answer).toEqual(Buffer.from('while it stands still'))
    // A data stream of its own does not depend on the control connection.
    expect(String(await echoed)).toBe('inside')
    inside.destroy()
    expect(await noted(server, 'closed')).toEqual([])
    expect(await noted(server, 'reject')).toEqual([])
  })
})

describe.skipIf(process.platform === 'win32')('a server process that is stopped', () => {
  test('is noticed, and has its clients again when it goes on', async () => {
    await using target = await echoTarget()
    await using server = await startRemoteServer(heartbeats)
    await using client = await startRemoteTunnel(target.port, { server: server.address })
    const stopped = Date.now()
    server.signal('SIGSTOP')

    const loss = await nextNoted(client, 'disconnect')
    expect(loss).toMatchObject({ code: 'connection-lost' })
    expect(loss.at - stopped).toBeLessThan(2_000 + SLACK)
    server.signal('SIGCONT')
    await nextNoted(client, 'reconnect')
    expect(await ask(client, 'again')).toEqual(Buffer.from('again'))
    expect(await noted(client, 'closed')).toEqual([])
  })
})

describe('a server process that is started again', () => {
  test.each([
    ['is killed', 'SIGKILL'],
    ['is closed', 'close'],
  ] as const)('has its clients again on the same public ports after it %s', async (_how, how) => {
    await using target = await echoTarget()
    const port = await freePort()
    const first = await startRemoteServer({ port })
    await using one = await startRemoteTunnel(target.port, { server: first.address })
    await using two = await startRemoteTunnel(target.port, { server: first.address })
    if (how === 'close') await first.run(({ server }) => server.close())
    await first[Symbol.asyncDispose]()
    await nextNoted(one, 'disconnect')
    await nextNoted(two, 'disconnect')

    await using _second = await startRemoteServer({ port })
    const start = Date.now()
    for (const client of [one, two]) {
      const { at } = await nextNoted(client, 'reconnect')
      expect(at - start).toBeLessThan(2_000 + SLACK)
      expect(await ask(client, 'again')).toEqual(Buffer.from('again'))
      expect(await noted(client, 'closed')).toEqual([])
    }
  })
})

describe('a client process that is killed', () => {
  test('frees its public port at once, and other clients notice nothing', async () => {
    const body = randomBytes(20_000_000)
    await using target = await httpTarget((_request, response) => response.end(body))
    await using silent = await echoTarget()
    await using server = await startRemoteServer({ heartbeatTimeout: 60_000, resumeTimeout: 60_000 })
    await using killed = await startRemoteTunnel(silent.port, { server: server.address })
    await using other = await startRemoteTunnel(target.port, { server: server.address })
    const visitor = await visit(killed)
    visitor.write('inside')
    await once(visitor, 'data')
    const response = await fetch(other.url)

    const ended = ending(visitor)
    killed.signal('SIGKILL')
    const start = Date.now()
    await killed.ended
    // The system ends what a process that is killed had open, as if it had finished.
    expect(await ended).toBe('end')
    await using next = await reopened(silent.port, { server: server.address, port: killed.port })
    expect(Date.now() - start).toBeLessThan(SLACK)
    expect(await ask(next, 'the next')).toEqual(Buffer.from('the next'))
    expect(hashOf(Buffer.from(await response.arrayBuffer()))).toBe(hashOf(body))
    expect(await noted(other, 'disconnect')).toEqual([])
    expect(await noted(other, 'reject')).toEqual([])
  })
})

/** A tunnel at a port that is about to be free: its owner has just died. */
async function reopened(target: number, options: { server: string; port: number }): Promise<Tunnel> {
  let tunnel: Tunnel | undefined
  await expect
    .poll(
      async () => {
        tunnel = await openTunnel(target, options).catch(() => undefined)
        return tunnel
      },
      { timeout: 20_000, interval: 20 },
    )
    .toBeDefined()
  return tunnel as Tunnel
}

function hashOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}
