/** Networks that a test makes for itself, of two hosts and the cable between them, which can be cut and be made bad. */
import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { TestContext } from 'vitest'
import { needs } from './programs.js'

const run = promisify(execFile)
const cableProgram = fileURLToPath(new URL('cable.pl', import.meta.url))

/** A machine of its own, as far as the network goes: a network namespace. */
interface Host {
  readonly address: string
  /** The words in front of a command that is to run there. */
  readonly words: string[]
}

/** What a cable does to packets, in each direction. */
interface Conditions {
  /** Percentage that is lost. */
  loss?: number
  /** Milliseconds that each takes. */
  delay?: number
}

export interface Network extends AsyncDisposable {
  readonly server: Host
  readonly client: Host
  setConditions(conditions: Conditions): Promise<void>
  /** From now on every packet is lost, and nobody is told: no FIN, no RST, no ICMP. */
  cut(): Promise<void>
  /** Undoes `cut`. */
  mend(): Promise<void>
  /** Gives the client's host another address in place of its own, as a laptop gets in another network. */
  moveClient(): Promise<void>
}

/**
 * The prefix of all names of this process. Names of devices have 15 characters at the most; a process id has up to 7.
 */
const prefix = `pt${process.pid}`
let made = 0
const open = new Set<Network>()

/** First in a test that makes networks: skips it, with the reason, where that can't be done. */
export async function needsNetwork(context: TestContext): Promise<void> {
  if (process.platform !== 'linux') context.skip('network namespaces are of Linux')
  if (process.getuid?.() !== 0) context.skip('only root may make network namespaces')
  needs(context, 'ip', 'perl')
  const hasDevices = await access('/dev/net/tun', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  )
  if (!hasDevices) context.skip('/dev/net/tun is missing')
  const refusal = await run('ip', ['netns', 'add', `${prefix}x`]).then(
    () => run('ip', ['netns', 'del', `${prefix}x`]).then(() => undefined),
    (error: Error) => error.message,
  )
  if (refusal !== undefined) context.skip(`this system lets nobody make a network namespace: ${refusal}`)
  await removeOrphans()
  // A test that runs into its timeout never leaves its scope.
  context.onTestFinished(async () => {
    for (const network of open) await network[Symbol.asyncDispose]()
  })
}

/** Two hosts and a cable. `mtu` is how large a packet may be, in bytes. */
export async function createNetwork({ mtu = 1_500 }: { mtu?: number } = {}): Promise<Network> {
  const number = ++made
  const names = { server: `${prefix}s${number}`, client: `${prefix}c${number}` }
  const addresses = { server: '10.209.0.1', client: '10.209.0.2' }
  const cable = spawn('perl', [cableProgram, names.server, names.client])
  let stderr = ''
  cable.stderr.on('data', (text) => {
    stderr += text
  })
  const tell = async (conditions: Required<Conditions>) => {
    cable.stdin.write(`${conditions.loss} ${conditions.delay}\n`)
    await answer(cable, () => stderr)
  }
  let current: Required<Conditions> = { loss: 0, delay: 0 }
  const host = (side: 'server' | 'client') => ({
    address: addresses[side],
    words: ['ip', 'netns', 'exec', names[side]],
  })
  const network: Network = {
    server: host('server'),
    client: host('client'),
    async setConditions({ loss = 0, delay = 0 }) {
      current = { loss, delay }
      await tell(current)
    },
    cut: () => tell({ ...current, loss: 100 }),
    mend: () => tell(current),
    async moveClient() {
      const name = names.client
      await run('ip', ['-n', name, 'address', 'del', `${addresses.client}/24`, 'dev', name])
      await run('ip', ['-n', name, 'address', 'add', '10.209.0.3/24', 'dev', name])
    },
    async [Symbol.asyncDispose]() {
      open.delete(network)
      if (cable.exitCode === null && cable.signalCode === null) {
        cable.kill('SIGKILL')
        await once(cable, 'close')
      }
      for (const name of Object.values(names)) await run('ip', ['netns', 'del', name]).catch(() => {})
    },
  }
  open.add(network)
  try {
    await answer(cable, () => stderr)
    for (const side of ['server', 'client'] as const) {
      const name = names[side]
      await run('ip', ['netns', 'add', name])
      await run('ip', ['link', 'set', name, 'netns', name])
      const inside = (...words: string[]) => run('ip', ['-n', name, ...words])
      await inside('address', 'add', `${addresses[side]}/24`, 'dev', name)
      await inside('link', 'set', name, 'up', 'mtu', String(mtu))
      await inside('link', 'set', 'lo', 'up')
    }
    return network
  } catch (error) {
    await network[Symbol.asyncDispose]()
    throw error
  }
}

/** What a run that was killed has left: its devices went with it, its namespaces did not. */
async function removeOrphans(): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'list'])
  for (const [, name = '', pid = ''] of stdout.matchAll(/^(pt(\d+)[scx]\d*)\b/gm)) {
    const isAlive = await access(`/proc/${pid}`).then(
      () => true,
      () => false,
    )
    if (!isAlive) await run('ip', ['netns', 'del', name]).catch(() => {})
  }
}

/** The cable's next line. */
async function answer(cable: ChildProcessWithoutNullStreams, stderr: () => string): Promise<void> {
  const ended = once(cable, 'close').then(() => {
    throw new Error(`the cable ended: ${stderr()}`)
  })
  await Promise.race([once(cable.stdout, 'data'), ended])
}
