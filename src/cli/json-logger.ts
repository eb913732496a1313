import { pino } from 'pino'
import type { Logger, LogLevel } from '../logger.js'

/** Writes one JSON object a line, as pino does. A file of its own, because pino is loaded where it is asked for. */
export function jsonLogger(level: LogLevel, write: (line: string) => void): Logger {
  const settings = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (level: string) => ({ level }) },
  }
  return pino(settings, { write: (line) => write(line.trimEnd()) })
}
