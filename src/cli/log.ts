import { type Logger, type LogLevel, logLevels } from '../logger.js'
import { DEFAULT_NAME } from '../secrets.js'
import { writeLine } from './exit.js'
import { inFlags } from './flags.js'

export interface LogArguments {
  logLevel: LogLevel
  logFormat: 'pretty' | 'json'
}

/** What a server tells on stderr: its log, and `say` for what stands for itself. */
export interface Log {
  logger: Logger
  say(text: string): void
}

export async function openLog({ logLevel, logFormat }: LogArguments): Promise<Log> {
  // A reader that is slow or gone loses lines, and never holds the server up.
  const write = (line: string) => writeLine(process.stderr, line)
  if (logFormat === 'pretty') return { logger: prettyLogger(logLevel, write), say: write }
  const logger = (await import('./json-logger.js')).jsonLogger(logLevel, write)
  return { logger, say: (text) => logger.info({}, text) }
}

function prettyLogger(least: LogLevel, write: (line: string) => void): Logger {
  const at = (level: LogLevel) => (fields: { secretName?: string }, message: string) => {
    if (logLevels.indexOf(level) < logLevels.indexOf(least)) return
    const { secretName = DEFAULT_NAME } = fields
    // Where there is one secret alone, nobody has named it.
    const by = secretName === DEFAULT_NAME ? '' : ` (secret ${secretName})`
    write(`${new Date().toISOString()} ${inFlags(message)}${by}`)
  }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}
