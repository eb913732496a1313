import { fileURLToPath } from 'node:url'
import { pEvent } from 'p-event'
import { forward, openTunnel, TunnelError } from 'pipe-tunnel'
import { PipeContainer, type StartedPipeContainer } from 'pipe-tunnel/testcontainers'
import { getContainerRuntimeClient, type StartedNetwork, type StartedTestContainer } from 'testcontainers'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { runToEnd } from './helpers/command.js'
import {
  askInside,
  curlInside,
  image,
  needsDocker,
  runInside,
  startCaller,
  startNetwork,
} from './helpers/docker.js'
import { install, isAtLeast, nodeToEnd } from './helpers/installed.js'
import { httpTarget, readAll } from './helpers/targets.js'
import { udpEchoTarget, udpTarget, udpVisitor } from './helpers/udp.js'

const repository = fileURLToPath(new URL('..', import.meta.url))

// Docker starts up to four processes for each port that is mapped.
describe('with a Docker engine', { timeout: 180_000 }, () => {
  beforeEach(needsDocker)
  afterAll(async () => {
    const { server, caller, network } = (await shared) ?? {}
    await Promise.all([server?.stop(), caller?.stop()])
    await network?.stop()
  })

  test('a container calls a webhook of the test process', async () => {
    const { server, caller } = await start()
    await using webhook = await httpTarget(async (request, response) => {
      response.end(`${request.method} ${request.url} ${await readAll(request)}`)
    })
    await using exposed = await server.expose(webhook.target)

    expect(exposed.url).toBe(`http://tunnel:${exposed.port}`)
    expect(await curlInside(caller, '--data', '{"paid":true}', `${exposed.url}/paid`)).toBe(
      'POST /paid {"paid":true}',
    )
  })

  test('a container that starts later finds the target too, and again once it was restarted', async () => {
    const { server, network } = await start()
    await using app = await httpTarget((_, response) => response.end('hello'))
    await using exposed = await server.expose(app.target)
    await using late = await startCaller(network)

    expect(await curlInside(late, exposed.url)).toBe('hello')
    await late.restart()
    expect(await curlInside(late, exposed.url)).toBe('hello')
  })

  test('the host reaches the same port where it is mapped, by TCP and by UDP', async () => {
    const { server } = await start()
    await using app = await httpTarget((_, response) => response.end('hello'))
    await using echo = await udpEchoTarget()
    await using http = await server.expose(app.target)
    await using udp = await server.expose(echo.url)

    expect(await (await fetch(http.mapped.url)).text()).toBe('hello')
    expect(udp.mapped.url).toBe(`udp://${udp.mapped.host}:${udp.mapped.port}`)
    await using visitor = await udpVisitor({ ...udp.mapped, host: '127.0.0.1' })
    expect(String(await visitor.ask('ping'))).toBe('ping')
  })

  test('datagrams of every size reach the test process, and its replies the container', async () => {
    const { server, caller } = await start()
    await using target = await udpTarget((datagram, reply) => reply(datagram))
    await using exposed = await server.expose(target.url)

    expect(exposed.url).toBe(`udp://tunnel:${exposed.port}`)
    expect(await askInside(caller, exposed, "'ping'")).toBe('4 ping')
    expect(await askInside(caller, exposed, "'x'.repeat(65_507)")).toBe(`65507 ${'x'.repeat(20)}`)
  })

  test('a port can be asked for, so that its URL is known before', async () => {
    const { server, caller } = await start()
    const refused = await runInside(caller, 'sh', '-c', 'curl --silent http://tunnel:20003 || echo $?')
    await using app = await httpTarget((_, response) => response.end('hello'))
    await using _exposed = await server.expose(app.target, { port: 20_003 })

    expect(refused).toBe('7\n')
    expect(await curlInside(caller, 'http://tunnel:20003')).toBe('hello')
    const other = server.expose(app.target, { port: 30_000 })
    await expect(other).rejects.toMatchObject({ code: 'port-not-allowed' })
  })

  test('twenty tunnels lead to twenty targets, and one more is told of withPorts', async () => {
    await using network = await startNetwork()
    await using server = await pipeContainer().withPorts(20).withNetwork(network).start()
    await using caller = await startCaller(network)
    const numbers = Array.from({ length: 20 }, (_, i) => i)
    const exposed = await Promise.all(
      numbers.map((number) => server.expose((_, response) => response.end(`${number} `))),
    )

    expect(await curlInside(caller, ...exposed.map(({ url }) => url))).toBe(`${numbers.join(' ')} `)
    const error = await server.expose(3_000).catch((reason) => reason)
    expect(error).toBeInstanceOf(TunnelError)
    expect(error).toMatchObject({
      code: 'ports-exhausted',
      message: expect.stringContaining('withPorts(40)'),
    })

    await exposed[7]?.close()
    await using again = await server.expose(3_000)
    expect(again.url).toBe(exposed[7]?.url)
  })

  test('each of two networks has a server of its own, with a name of its own', async () => {
    const { server, caller } = await start()
    await using other = await startNetwork()
    await using otherServer = await pipeContainer().withPorts(1).withNetwork(other).start()
    await using otherCaller = await startCaller(other)
    await using app = await httpTarget((_, response) => response.end('hello'))
    await using here = await server.expose(app.target)
    await using there = await otherServer.expose(app.target)

    expect(await curlInside(caller, here.url)).toBe('hello')
    expect(await curlInside(otherCaller, there.url)).toBe('hello')
    await expect(curlInside(caller, there.url)).rejects.toThrow('Could not resolve host')
  })

  test('where there is no network, containers of the default one call it by its address', async () => {
    await using server = await pipeContainer().withPorts(1).start()
    await using caller = await startCaller()
    await using app = await httpTarget((_, response) => response.end('hello'))
    await using exposed = await server.expose(app.target)

    expect(exposed.host).toMatch(/^\d+\.\d+\.\d+\.\d+$/)
    expect(await curlInside(caller, exposed.url)).toBe('hello')
  })

  test('tunnels take the options of openTunnel', async () => {
    const { server, caller } = await start()

    const aborted = server.expose(3_000, { signal: AbortSignal.abort() })
    await expect(aborted).rejects.toMatchObject({ code: 'aborted' })
    await using app = await httpTarget((_, response) => response.end('hello'))
    await using closed = await server.expose(app.target, { deny: ['0.0.0.0/0'] })
    await expect(curlInside(caller, closed.url)).rejects.toThrow('reset by peer')
  })

  test('testcontainers 12 starts it as well', async (context) => {
    if (!isAtLeast(22, 22)) context.skip('testcontainers 12 needs Node 22.22: npm run matrix has it')
    await using installed = await install('testcontainers@12')
    const { code, stdout, stderr } = await nodeToEnd(installed, 'testcontainers/exposes.mjs', image)

    expect(code, stderr).toBe(0)
    expect(stdout).toBe('12: hello\n')
  })

  test('an engine elsewhere is dialled where it is, and the process ends by itself', async () => {
    await using engine = await forward('127.0.0.2:0', 'unix:/var/run/docker.sock')
    // As it is built: it is found from here by the name of the package.
    const code = `
      import { PipeContainer } from 'pipe-tunnel/testcontainers'
      const server = await new PipeContainer('${image}').withPorts(1).start()
      const app = await server.expose((_, response) => response.end('hello'))
      console.log(app.mapped.host, await (await fetch(app.mapped.url)).text())
      await server.stop()`
    const { stdout } = await runToEnd(process.execPath, ['--input-type=module', '--eval', code], {
      cwd: repository,
      env: { DOCKER_HOST: `tcp://127.0.0.2:${engine.port}` },
      timeout: 120_000,
    })

    expect(stdout).toBe('127.0.0.2 hello\n')
  })

  test('who holds the secret opens tunnels through the same server', async () => {
    await using server = await pipeContainer().withPorts(1).withSecret('correct-horse-battery').start()
    const { host, port } = server.getServer()

    await using tunnel = await openTunnel(3_000, { server: `pipe://correct-horse-battery@${host}:${port}` })
    expect(tunnel.port).toBe(20_000)
    const wrong = openTunnel(3_000, { server: `pipe://incorrect-horse-battery@${host}:${port}` })
    await expect(wrong).rejects.toMatchObject({
      code: expect.stringMatching(/^secret-wrong$|^server-unproven$/),
    })
  })

  test('stop() closes the tunnels first, those being opened too, and no other opens', async () => {
    const server = await pipeContainer().withPorts(2).start()
    const open = await server.expose(3_000)
    const opening = server.expose(3_001)
    let losses = 0
    open.on('disconnect', () => losses++)

    await server.stop()

    expect(await open.closed).toBeUndefined()
    expect(losses).toBe(0)
    expect(await (await opening).closed).toBeUndefined()
    await expect(server.expose(3_000)).rejects.toMatchObject({ code: 'server-closed' })
  })

  test('a restart closes the tunnels, and others can be opened at the new ports', async () => {
    await using server = await pipeContainer().withPorts(1).start()
    const first = await server.expose(3_000)
    await server.restart()

    expect(await first.closed).toBeUndefined()
    await using app = await httpTarget((_, response) => response.end('hello'))
    await using second = await server.expose(app.target)
    expect(await (await fetch(second.mapped.url)).text()).toBe('hello')
  })

  test('a container that dies is told of, and stop() ends nevertheless', async () => {
    const server = await pipeContainer().withPorts(1).start()
    const exposed = await server.expose(3_000)
    const disconnected = pEvent(exposed, 'disconnect')
    const runtime = await getContainerRuntimeClient()
    await runtime.container.getById(server.getId()).kill()

    expect(await disconnected).toMatchObject({ code: 'connection-lost' })
    await server.stop()
    expect(await exposed.closed).toBeUndefined()
  })

  test('a server that is not ready in time is given up', async () => {
    const starting = pipeContainer().withPorts(1).withStartupTimeout(1).start()

    await expect(starting).rejects.toThrow('not received after 1ms')
  })
})

test.each([0, 1.5, 1_001, Number.NaN])('withPorts(%d) is refused', (count) => {
  expect(() => new PipeContainer().withPorts(count)).toThrow(/^withPorts takes a whole number/)
})

test('a short secret is refused, and not shown', () => {
  expect(() => new PipeContainer().withSecret('letmein')).toThrow(
    /^withSecret takes 8 characters or more, not 7/,
  )
})

interface Shared {
  network: StartedNetwork
  server: StartedPipeContainer
  caller: StartedTestContainer
}

let shared: Promise<Shared> | undefined

/** A network with a server named `tunnel` and a container that calls, for all tests that leave them as they are. */
function start(): Promise<Shared> {
  shared ??= startShared()
  return shared
}

async function startShared(): Promise<Shared> {
  const network = await startNetwork()
  const [server, caller] = await Promise.all([
    pipeContainer().withNetwork(network).withNetworkAliases('tunnel').start(),
    startCaller(network),
  ])
  return { network, server, caller }
}

function pipeContainer(): PipeContainer {
  return new PipeContainer(image)
}
