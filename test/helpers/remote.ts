/** Node processes that a test tells what to do: on hosts of their own, with few descriptors, stopped and killed. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import type { Server, ServerOptions, Tunnel, TunnelOptions } from 'pipe-tunnel'
import { vi } from 'vitest'

const built = new URL('../../dist/index.js', import.meta.url)

/** How long a process may take over what it is told, in milliseconds. */
const DEADLINE = 100_000

/** What runs in the process. It gets functions as their text, and ends with the process that started it. */
const program = `
  import * as tunnels from ${JSON.stringify(built.href)}
  import crypto from 'node:crypto'
  import { once } from 'node:events'
  import net from 'node:net'
  import stream from 'node:stream'
  const world = { ...tunnels, crypto, once, net, stream, seen: [] }
  process.on('disconnect', () => process.exit())
  process.on('message', async ({ id, code, argument }) => {
    try {
      process.send({ id, value: await (0, eval)('(' + code + ')')(world, argument) })
    } catch (error) {
      process.send({ id, error: String(error?.stack ?? error) })
    }
  })
  process.send({ id: 0 })
`

/** What a function that is run there finds. */
export interface World {
  createServer: typeof import('pipe-tunnel').createServer
  openTunnel: typeof import('pipe-tunnel').openTunnel
  crypto: typeof import('node:crypto')
  once: typeof import('node:events').once
  net: typeof import('node:net')
  stream: typeof import('node:stream')
  /** What was kept by functions before. */
  server: Server
  tunnel: Tunnel
  /** Events, as they are noted. */
  seen: Noted[]
}

export interface Remote extends AsyncDisposable {
  readonly pid: number
  /** Runs a function there, whose text is all that is handed over: it finds nothing but what it is called with. */
  run<T>(work: (world: World) => T | Promise<T>): Promise<T>
  run<T, A>(work: (world: World, argument: A) => T | Promise<T>, argument: A): Promise<T>
  /** Stops it, as a debugger or a closed laptop does, lets it go on, or kills it. */
  signal(name: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'): void
  /** Resolves when it has ended. */
  readonly ended: Promise<void>
  isRunning(): boolean
}

export interface RemoteOptions {
  /** Words in front of the command, such as those of a host. */
  words?: string[]
  /** How many descriptors it may have. */
  descriptors?: number
}

/** Starts a process. */
async function startRemote({ words = [], descriptors }: RemoteOptions = {}): Promise<Remote> {
  if (!existsSync(built)) throw new Error(`${built} is missing: npm run build makes it`)
  const limited = descriptors ? ['sh', '-c', `ulimit -n ${descriptors}; exec "$@"`, 'sh'] : []
  const [file = '', ...args] = [
    ...words,
    ...limited,
    process.execPath,
    '--input-type=module',
    '--eval',
    program,
  ]
  const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
  let stderr = ''
  child.stderr?.on('data', (text) => {
    stderr += text
  })
  const waiting = new Map<number, (answer: { value?: unknown; error?: string }) => void>()
  child.on('message', (answer: { id: number; value?: unknown; error?: string }) =>
    waiting.get(answer.id)?.(answer),
  )
  child.on('error', () => {})
  const ended = once(child, 'close').then(() => {
    for (const resolve of waiting.values()) resolve({ error: `the process has ended: ${stderr}` })
  })
  let last = 0

  const answered = async (id: number): Promise<unknown> => {
    const { value, error } = await new Promise<{ value?: unknown; error?: string }>((resolve) => {
      waiting.set(id, resolve)
      setTimeout(() => resolve({ error: `no answer within ${DEADLINE} ms; ${stderr}` }), DEADLINE).unref()
    })
    waiting.delete(id)
    if (error !== undefined) throw new Error(error)
    return value
  }
  const remote = {
    pid: child.pid ?? 0,
    async run(work: unknown, argument?: unknown): Promise<never> {
      const id = ++last
      if (child.connected) child.send({ id, code: String(work), argument })
      else throw new Error(`the process has ended: ${stderr}`)
      return (await answered(id)) as never
    },
    signal: (name: NodeJS.Signals) => void child.kill(name),
    ended,
    isRunning: () => child.exitCode === null && child.signalCode === null,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await ended
    },
  }
  await answered(0).catch(async (error) => {
    await remote[Symbol.asyncDispose]()
    throw error
  })
  return remote
}

/** What a server or a tunnel told in a process, and when. */
export interface Noted {
  event: string
  /** Milliseconds, the same on all processes of the machine. */
  at: number
  code?: string
}

export interface RemoteServer extends Remote {
  readonly host: string
  readonly port: number
  readonly address: string
}

/** A server in a process of its own. */
export async function startRemoteServer(
  options: ServerOptions = {},
  where?: RemoteOptions,
): Promise<RemoteServer> {
  const remote = await startRemote(where)
  const listening = remote.run(async (world, options) => {
    const server = await world.createServer(options)
    world.server = server
    const note = (event: string, code?: string) => world.seen.push({ event, at: Date.now(), code })
    for (const event of ['disconnect', 'refuse'] as const)
      server.on(event, ({ error }) => note(event, error.code))
    server.on('reconnect', () => note('reconnect'))
    server.on('reject', ({ error }) => note('reject', error.code))
    server.on('tunnel', (tunnel) => {
      note('tunnel')
      tunnel.closed.then((error) => note('closed', error?.code))
    })
    const { host, port, address } = server
    return { host, port, address }
  }, options)
  return withOwnFate(remote, listening)
}

export interface RemoteTunnel extends Remote {
  readonly host: string
  readonly port: number
  readonly url: string
}

/** A tunnel, opened in a process of its own. */
export async function startRemoteTunnel(
  target: string | number,
  options: TunnelOptions & { server: string },
  where?: RemoteOptions,
): Promise<RemoteTunnel> {
  const remote = await startRemote(where)
  const opened = remote.run(
    async (world, [target, options]) => {
      const tunnel = await world.openTunnel(target, options)
      world.tunnel = tunnel
      const note = (event: string, code?: string) => world.seen.push({ event, at: Date.now(), code })
      tunnel.on('disconnect', (error) => note('disconnect', error.code))
      tunnel.on('reconnect', () => note('reconnect'))
      tunnel.on('reject', ({ error }) => note('reject', error.code))
      tunnel.closed.then((error) => note('closed', error?.code))
      const { host, port, url } = tunnel
      return { host, port, url }
    },
    [target, options] as const,
  )
  return withOwnFate(remote, opened)
}

/** The process with what is there once it is ready, which must not leave it behind otherwise. */
async function withOwnFate<T>(remote: Remote, ready: Promise<T>): Promise<Remote & T> {
  try {
    return { ...remote, ...(await ready) }
  } catch (error) {
    await remote[Symbol.asyncDispose]()
    throw error
  }
}

/** What the process has seen so far of this event. */
export async function noted(remote: Remote, event: string): Promise<Noted[]> {
  const all = await remote.run(({ seen }) => seen)
  return all.filter((one) => one.event === event)
}

/** The first of these events, once it is there. */
export async function nextNoted(remote: Remote, event: string): Promise<Noted> {
  const find = async () => {
    const [first] = await noted(remote, event)
    if (first) return first
    throw new Error(`no ${event}; seen: ${JSON.stringify(await remote.run(({ seen }) => seen))}`)
  }
  return await vi.waitFor(find, { timeout: DEADLINE, interval: 20 })
}
