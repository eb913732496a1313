import { constants } from 'node:os'
import { isatty } from 'node:tty'
import { TunnelError } from '../errors.js'
import { inFlags } from './flags.js'

/** The exit codes of `pipe`, as documented in `docs/cli.md`. */
export const exit = { closed: 0, failed: 1, usage: 2, lost: 3, notExecutable: 126, notFound: 127 } as const

/** The exit code that shells give to a program which this signal has ended. */
export function codeOf(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal]
}

/** What asks us to end. */
export const endSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** How long visitors get to finish at the first Ctrl-C, in milliseconds. */
export const GRACE = 5_000

/** Tells of an error in a sentence, and sets the exit code that goes with it. */
export function fail(error: unknown): void {
  const ours = error instanceof TunnelError
  const isUsage = ours && (error.code === 'invalid-option' || error.code === 'insecure-address')
  process.exitCode = isUsage ? exit.usage : exit.failed
  // Anything else is a bug, and then its stack is what helps.
  const text = ours ? inFlags(error.message) : error instanceof Error ? error.stack : error
  writeLine(process.stderr, `pipe: ${text}`)
}

/** Bytes that may wait for a reader of our output; lines beyond that are left out. */
const MAX_QUEUED = 1_048_576
/** How long a reader may take for what is still queued at the end, in milliseconds. */
const FLUSH_TIMEOUT = 1_000

/** Writes a line, unless nobody reads: then there is no use in keeping them all. */
export function writeLine(stream: NodeJS.WriteStream, line: string): void {
  if (stream.writableLength < MAX_QUEUED) stream.write(`${line}\n`)
}

/** Ends the process when its output has been read. It does not end by itself while a look-up of a name hangs. */
export async function end(): Promise<never> {
  const flushed = [process.stdout, process.stderr].map(
    (stream) => new Promise((resolve) => stream.write('', resolve)),
  )
  await Promise.race([Promise.all(flushed), new Promise((resolve) => setTimeout(resolve, FLUSH_TIMEOUT))])
  process.exit()
}

/**
 * Calls `onSignal` at the first request to end and again at the second. A third is left to the system, which
 * ends the process. Where there is `onHangUp`, SIGHUP calls that instead, unless it tells that the terminal was closed.
 * Gives back a function that stops listening.
 */
export function onEndSignals(
  onSignal: (count: number, signal: NodeJS.Signals) => void,
  onHangUp?: () => void,
): () => void {
  let count = 0
  const terminals = [0, 1, 2].filter((descriptor) => isatty(descriptor))
  const processOnSignal = (signal: NodeJS.Signals) => {
    // One that was closed is a terminal no more.
    if (signal === 'SIGHUP' && onHangUp && terminals.every((descriptor) => isatty(descriptor))) {
      onHangUp()
      return
    }
    count++
    if (count === 2) stop()
    onSignal(count, signal)
  }
  const stop = () => {
    for (const signal of endSignals) process.off(signal, processOnSignal)
  }
  for (const signal of endSignals) process.on(signal, processOnSignal)
  return stop
}
