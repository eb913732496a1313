import { type ChildProcess, spawn } from 'node:child_process'
import { isatty } from 'node:tty'
import { isSystemError, reasonOf } from '../errors.js'
import type { Tunnel } from '../tunnel.js'
import { codeOf, endSignals, exit, writeLine } from './exit.js'

/**
 * Runs a command, with the addresses of these tunnels in its environment, and passes on the signals that ask us to end.
 * Resolves with its exit code: as in shells, 128 and the signal's number where that ended it.
 */
export async function runChild([file = '', ...args]: string[], tunnels: Tunnel[]): Promise<number> {
  let child: ChildProcess
  try {
    child = start(file, args, { ...process.env, ...variablesOf(tunnels) })
  } catch (error) {
    return notStarted(file, error)
  }
  for (const signal of endSignals) {
    process.on(signal, () => {
      if (!reachesBoth(signal)) child.kill(signal)
    })
  }
  return new Promise((resolve) => {
    child.on('error', (error) => {
      // A command that runs may belong to another user, and then can't be told anything.
      if (child.pid === undefined) resolve(notStarted(file, error))
      else writeLine(process.stderr, `pipe: the signal can't be passed on (${reasonOf(error)})`)
    })
    child.once('exit', (code, signal) => resolve(code ?? codeOf(signal as NodeJS.Signals)))
  })
}

function start(file: string, args: string[], env: NodeJS.ProcessEnv): ChildProcess {
  // On Windows most commands are scripts, npm too, which a shell alone can start.
  return process.platform === 'win32'
    ? spawn([file, ...args].map(quote).join(' '), { env, stdio: 'inherit', shell: true })
    : spawn(file, args, { env, stdio: 'inherit' })
}

/** A word for the shell of Windows. What it puts in place of `%NAME%`, it does within quotes too. */
function quote(word: string): string {
  return /^[\w.:/\\@+=-]+$/.test(word) ? word : `"${word.replaceAll('"', '""')}"`
}

/** The public address of the first tunnel, and behind it that of each with its number. */
function variablesOf(tunnels: Tunnel[]): NodeJS.ProcessEnv {
  const of = ({ url, host, port }: Tunnel, suffix: string) => ({
    [`PIPE_URL${suffix}`]: url,
    [`PIPE_HOST${suffix}`]: host,
    [`PIPE_PORT${suffix}`]: String(port),
  })
  const numbered = tunnels.map((tunnel, index) => of(tunnel, `_${index + 1}`))
  return Object.assign({}, ...tunnels.slice(0, 1).map((first) => of(first, '')), ...numbered)
}

/**
 * Whether the command gets this signal by itself. A terminal sends its Ctrl-C to all in the foreground, and who gets two
 * of them often ends without cleaning up.
 */
function reachesBoth(signal: NodeJS.Signals): boolean {
  if (process.platform === 'win32') return true
  return signal === 'SIGINT' && [0, 1, 2].some((descriptor) => isatty(descriptor))
}

function notStarted(file: string, error: unknown): number {
  const isMissing = isSystemError(error, 'ENOENT')
  const sentence = isMissing
    ? `the command ${file} was not found: is it installed, and in PATH?`
    : `the command ${file} can't be started (${reasonOf(error)}): may it be executed?`
  writeLine(process.stderr, `pipe: ${sentence}`)
  return isMissing ? exit.notFound : exit.notExecutable
}
