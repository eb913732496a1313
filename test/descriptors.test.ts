/**
 * Processes that may open no more files and sockets.
 *
 * What Node 20, 22, 24 and 26 do by themselves when a listener has no descriptor for a connection (EMFILE), as found by
 * trying: libuv closes one that it keeps for this, accepts all that wait, and closes them, with a FIN where nothing was
 * sent. No event tells of it, neither `error` nor `drop`, and it costs no time to speak of. But once another thread of the
 * process has taken that descriptor in between, connections stay in the kernel and libuv is told of them without end: the process
 * takes a whole core (1,000 ms a second, on all four) until a descriptor is free. So visitors never get the last ones.
 *
 * A server with 80 descriptors, of which 200 visitors want two each at the same moment, served none of them before there
 * was a reserve for data streams, and serves 22 since.
 */
import dgram from 'node:dgram'
import { once } from 'node:events'
import net from 'node:net'
import { describe, expect, test } from 'vitest'
import { noted, type Remote, startRemoteServer, startRemoteTunnel } from './helpers/remote.js'
import { echoTarget } from './helpers/targets.js'
import { udpEchoTarget } from './helpers/udp.js'

/** What a process gets: some 25 are taken before it has any visitor. */
const DESCRIPTORS = 80
/** Visitors of which each needs one or two at both processes. */
const CROWD = 200
/** Milliseconds after which a visitor that sent a datagram is taken for one that was turned away: nothing tells it. */
const SILENCE = 3_000

describe.skipIf(process.platform === 'win32')('with few descriptors', () => {
  test.each([
    ['a server', 'tcp'],
    ['a server', 'udp'],
    ['a client', 'tcp'],
    ['a client', 'udp'],
  ] as const)('%s turns visitors away over %s, loses nobody, and goes on', async (who, protocol) => {
    await using target = protocol === 'tcp' ? await echoTarget() : await udpEchoTarget()
    const few = (one: typeof who) => (one === who ? { descriptors: DESCRIPTORS } : {})
    await using server = await startRemoteServer({ flowTimeout: 10_000 }, few('a server'))
    const address = `${protocol}://127.0.0.1:${target.port}`
    await using client = await startRemoteTunnel(address, { server: server.address }, few('a client'))
    const visitors = (count: number) => crowd(protocol, client, count)
    await using inside = await visitors(5)
    expect(await inside.served()).toBe(5)

    await using flood = await visitors(CROWD)
    const served = await flood.served()
    expect(served).toBeGreaterThan(5)
    expect(served).toBeLessThan(CROWD)
    const starved = who === 'a server' ? server : client
    expect(await cpuTime(starved)).toBeLessThan(200)
    // Those inside did not notice.
    expect(await inside.served()).toBe(5)

    const rejections = [...(await noted(server, 'reject')), ...(await noted(client, 'reject'))]
    expect(rejections.map(({ code }) => code)).toContain('limit-reached')
    expect(await noted(client, 'disconnect')).toEqual([])
    await flood[Symbol.asyncDispose]()
    const again = async () => {
      await using next = await visitors(1)
      return await next.served()
    }
    await expect.poll(again, { timeout: 30_000 }).toBe(1)
    expect(server.isRunning() && client.isRunning()).toBe(true)
  })

  test('a server takes clients in while visitors have all that they may', async () => {
    await using target = await echoTarget()
    await using server = await startRemoteServer({}, { descriptors: DESCRIPTORS })
    await using client = await startRemoteTunnel(target.port, { server: server.address })
    await using flood = await crowd('tcp', client, CROWD)
    expect(await flood.served()).toBeLessThan(CROWD)

    await using other = await startRemoteTunnel(target.port, { server: server.address })
    await flood[Symbol.asyncDispose]()
    const served = async () => {
      await using next = await crowd('tcp', other, 1)
      return await next.served()
    }
    await expect.poll(served, { timeout: 30_000 }).toBe(1)
  })
})

/** Milliseconds of CPU time that it takes in the next two seconds: a rate needs a span of time, whatever happens in it. */
function cpuTime(remote: Remote): Promise<number> {
  return remote.run(async () => {
    const before = process.cpuUsage()
    await new Promise((resolve) => setTimeout(resolve, 2_000))
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1_000
  })
}

interface Crowd extends AsyncDisposable {
  /** Lets all that are inside say something; resolves with how many were answered. Over TCP the others were reset. */
  served(): Promise<number>
}

/** So many visitors at the same moment, of a target that echoes. */
async function crowd(protocol: 'tcp' | 'udp', place: Place, count: number): Promise<Crowd> {
  const come = protocol === 'tcp' ? visitor : sender
  const visitors = Array.from({ length: count }, () => come(place))
  return {
    async served() {
      const answers = await Promise.all(visitors.map((one) => one.say('hello')))
      expect(answers.filter((one) => one !== 'hello' && one !== undefined)).toEqual([])
      return answers.filter((one) => one === 'hello').length
    },
    async [Symbol.asyncDispose]() {
      for (const one of visitors.splice(0)) one.leave()
    },
  }
}

interface Place {
  host: string
  port: number
}

type Visitor = { say(text: string): Promise<string | undefined>; leave(): void }

function visitor({ host, port }: Place): Visitor {
  const socket = net.connect({ host, port, allowHalfOpen: true })
  let isReset = false
  socket.on('error', () => {
    isReset = true
  })
  const closed = new Promise<string | undefined>((resolve) => {
    // A FIN would look like the end of an empty answer.
    socket.on('end', () => resolve('ended')).on('close', () => resolve(isReset ? undefined : 'closed'))
  })
  return {
    say(text) {
      socket.write(text)
      return Promise.race([once(socket, 'data').then(String, () => undefined), closed])
    },
    leave: () => socket.destroy(),
  }
}

function sender({ host, port }: Place): Visitor {
  const socket = dgram.createSocket('udp4').on('error', () => {})
  return {
    async say(text) {
      socket.send(text, port, host)
      const aborted = AbortSignal.timeout(SILENCE)
      return once(socket, 'message', { signal: aborted }).then(
        ([datagram]) => String(datagram),
        () => undefined,
      )
    },
    leave: () => socket.close(),
  }
}
