/** Containers of a Docker engine, where there is one, from an image that needs no registry. */
import { fileURLToPath } from 'node:url'
import {
  GenericContainer,
  getContainerRuntimeClient,
  Network,
  type StartedNetwork,
  type StartedTestContainer,
} from 'testcontainers'
import type { TestContext } from 'vitest'
import { runToEnd } from './command.js'

/** Has this Node, curl and sh. */
export const image = `pipe-tunnel-test:${process.version}`

// It is an image of a registry, and what it cleans up the tests clean up themselves.
process.env.TESTCONTAINERS_RYUK_DISABLED ??= 'true'

let known: Promise<string | undefined> | undefined

/** First in a test that runs containers, or before each: skips it, with the reason, where it can't have them. */
export async function needsDocker(context: TestContext): Promise<void> {
  known ??= whyNot()
  const reason = await known
  if (reason) context.skip(reason)
}

async function whyNot(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'containers are tried on Linux, with the programs of this machine'
  const runtime = await getContainerRuntimeClient().catch(() => undefined)
  if (!runtime) return 'no Docker engine answers: test/docker/start-engine.sh starts one'
  await makeImage(image, 'node', 'curl', 'sh')
  return undefined
}

/** An image of programs of this machine. */
export async function makeImage(name: string, ...programs: string[]): Promise<void> {
  await runToEnd(fileURLToPath(new URL('../docker/make-image.sh', import.meta.url)), [name, ...programs])
}

/** A container that does nothing by itself, and its network, where it has one. */
export async function startCaller(network?: StartedNetwork): Promise<StartedTestContainer> {
  const caller = new GenericContainer(image).withCommand(['node', '--eval', 'setInterval(() => {}, 1e9)'])
  return await (network ? caller.withNetwork(network) : caller).start()
}

export function startNetwork(): Promise<StartedNetwork> {
  return new Network().start()
}

/** What a command inside prints. Rejects where it fails, with all that it said. */
export async function runInside(container: StartedTestContainer, ...command: string[]): Promise<string> {
  const { exitCode, output } = await container.exec(command)
  if (exitCode !== 0) throw new Error(`${command.join(' ')} ended with ${exitCode}:\n${output}`)
  return output
}

/** Fetches these with curl, one after the other, and gives the answers in one. */
export function curlInside(container: StartedTestContainer, ...args: string[]): Promise<string> {
  return runInside(container, 'curl', '--silent', '--show-error', '--fail', '--max-time', '20', ...args)
}

/** Sends a datagram there, again where it gets lost, and gives the reply's length and content. */
export function askInside(
  container: StartedTestContainer,
  { host, port }: { host: string; port: number },
  datagram: string,
): Promise<string> {
  const code = `
    const socket = require('node:dgram').createSocket('udp4')
    const send = () => socket.send(${datagram}, ${port}, '${host}')
    const timer = setInterval(send, 1_000)
    setTimeout(() => process.exit(1), 20_000).unref()
    socket.on('message', (reply) => {
      process.stdout.write(reply.length + ' ' + reply.subarray(0, 20))
      clearInterval(timer)
      socket.close()
    })
    send()`
  return runInside(container, 'node', '--eval', code)
}
