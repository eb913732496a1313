import { invalidOption } from './options.js'

/** Who writes logs: a logger of pino or bunyan, the console, or anything else that has these. */
export interface Logger {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** From the least important one. */
export const logLevels = ['debug', 'info', 'warn', 'error'] as const

export type LogLevel = (typeof logLevels)[number]

export function checkLogger(logger: unknown): void {
  const given = logger as Partial<Logger> | null | undefined
  if (given === undefined || logLevels.every((level) => typeof given?.[level] === 'function')) return
  throw invalidOption('logger', `an object with ${logLevels.join(', ')}`, given)
}
