/** Programs that a test starts: the built command, and others around it. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { pEvent } from 'p-event'

/** The built command. */
export const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

/** How long a program may take to say or do what a test waits for, in milliseconds. */
const DEADLINE = 30_000

export interface ProgramOptions {
  cwd?: string
  /** Set on top of the environment of the tests, without what `pipe` or a terminal's colours go by. */
  env?: Record<string, string>
  /** How long it may take to end, in milliseconds. Default 30,000. */
  timeout?: number
}

/** How a program ended, and all that it said. */
export interface Ending {
  /** Null where a signal ended it. */
  code: number | null
  stdout: string
  stderr: string
}

/** A program that runs, until the test is over at the latest. */
export interface Program extends AsyncDisposable {
  readonly stdout: Output
  readonly stderr: Output
  /** Sends a signal. */
  signal(name: NodeJS.Signals): void
  /** Types into the program's stdin. */
  type(text: string): void
  /** Resolves when it has ended by itself. */
  ended(): Promise<Ending>
}

/** Starts `pipe` with these arguments. */
export function pipe(args: string[], options?: ProgramOptions): Program {
  if (!existsSync(cli)) throw new Error(`${cli} is missing: npm run build makes it`)
  return start(process.execPath, [cli, ...args], options)
}

/** The words that make a shell run `pipe`. */
export const pipeInShell = `"${process.execPath}" "${cli}"`

/**
 * The words in front of a command that take away what only root may: to read any file, to listen on any port. None
 * where the tests do not run as root.
 */
export function withoutPrivileges(skip: (condition: boolean, reason: string) => void): string[] {
  if (process.getuid?.() !== 0) return []
  skip(
    !existsSync('/usr/bin/setpriv'),
    'root may do everything, and setpriv (Debian package util-linux) is missing',
  )
  return ['/usr/bin/setpriv', '--bounding-set=-all', '--inh-caps=-all']
}

/** Runs `pipe` to its end. */
export async function pipeToEnd(args: string[], options?: ProgramOptions): Promise<Ending> {
  await using program = pipe(args, options)
  return await program.ended()
}

/** Runs a program to its end; rejects with all that it said where it fails. */
export async function runToEnd(file: string, args: string[], options?: ProgramOptions): Promise<Ending> {
  await using program = start(file, args, options)
  const ending = await program.ended()
  if (ending.code === 0) return ending
  throw new Error(`${file} ${args.join(' ')} ended with ${ending.code}:\n${ending.stdout}${ending.stderr}`)
}

/** Starts a program. */
export function start(file: string, args: string[], options: ProgramOptions = {}): Program {
  const { cwd, env, timeout = DEADLINE } = options
  const child = spawn(file, args, { cwd, env: { ...cleanEnvironment(), ...env } })
  const stdout = new Output('stdout', child.stdout)
  const stderr = new Output('stderr', child.stderr)
  // A program that ends without reading its input is no mistake.
  child.stdin.on('error', () => {})
  const closed = closing(child)
  // Told by `ended`; others may never ask.
  closed.catch(() => {})
  return {
    stdout,
    stderr,
    signal: (name) => child.kill(name),
    type: (text) => child.stdin.write(text),
    async ended() {
      const told = () => `${file} ${args.join(' ')} has not ended\n${stdout}${stderr}`
      const code = await within(timeout, closed, told)
      return { code, stdout: stdout.text, stderr: stderr.text }
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      // What it started itself may hold these open.
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream.destroy()
      await closed.catch(() => {})
    },
  }
}

/** What a program says on one of its outputs. */
class Output {
  readonly #name: string
  readonly #stream: Readable
  #text = ''

  constructor(name: string, stream: Readable) {
    this.#name = name
    this.#stream = stream
    stream.setEncoding('utf8').on('data', (text) => {
      this.#text += text
    })
  }

  /** All so far. */
  get text(): string {
    return this.#text
  }

  /** The first whole line that matches, as soon as it is there. */
  async line(pattern: RegExp): Promise<string> {
    const find = () =>
      this.#text
        .split(/\r?\n/)
        .slice(0, -1)
        .find((line) => pattern.test(line))
    const told = () => `no line ${pattern} on ${this.#name}, which has:\n${this.#text}`
    const deadline = Date.now() + DEADLINE
    for (;;) {
      const line = find()
      if (line !== undefined) return line
      if (this.#stream.closed || Date.now() > deadline) throw new Error(told())
      const timeout = Math.max(1, deadline - Date.now())
      await pEvent(this.#stream, ['data', 'close'], { timeout }).catch(() => {})
    }
  }

  /** Stops listening, as `head -1` does. */
  close(): void {
    this.#stream.destroy()
  }

  toString(): string {
    return `${this.#name}:\n${this.#text}\n`
  }
}

async function closing(child: ChildProcessWithoutNullStreams): Promise<number | null> {
  const [code] = await once(child, 'close')
  return code
}

async function within<T>(timeout: number, promise: Promise<T>, message: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(message())), timeout)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

function cleanEnvironment(): NodeJS.ProcessEnv {
  const { PIPE_SERVER, PIPE_SECRET, CI, NO_COLOR, FORCE_COLOR, NODE_OPTIONS, ...rest } = process.env
  return rest
}

/** A folder that is gone with the test. */
export async function temporaryFolder(): Promise<{ path: string } & AsyncDisposable> {
  const folder = await mkdtemp(path.join(tmpdir(), 'pipe-tunnel-'))
  return {
    path: folder,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true, maxRetries: 5 }),
  }
}

/**
 * A port that nobody listens on, for what has to be told a port. It is below those that systems hand out by
 * themselves, so that no other test gets it meanwhile.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(15_000, 32_000)
    const listener = net.createServer().listen(port, '127.0.0.1')
    const free = await once(listener, 'listening').then(
      () => true,
      () => false,
    )
    if (!free) continue
    listener.close()
    await once(listener, 'close')
    return port
  }
}
