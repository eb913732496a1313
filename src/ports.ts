import { isSystemError, TunnelError } from './errors.js'
import { invalidOption } from './options.js'

/** The ports that clients may ask for, both ends included. */
export interface PortRange {
  from: number
  to: number
}

/** `'20000-20100'`, `'20000'` or `20000` as a range. */
export function parsePorts(value: string | number, name = 'ports'): PortRange {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(String(value))
  const from = Number(match?.[1])
  const to = Number(match?.[2] ?? from)
  if (!match || from < 1 || to > 65_535 || from > to) {
    throw invalidOption(name, "a range of ports such as '20000-20100'", value)
  }
  return { from, to }
}

/**
 * Opens the port asked for, or for 0 any of the range. Every candidate is simply tried: asking first whether it
 * is free and listening afterwards would leave a gap for somebody else to take it.
 * Rejects with `port-not-allowed`, `port-taken` or `ports-exhausted`.
 */
export async function openPort<T>(
  range: PortRange | undefined,
  asked: number,
  open: (port: number) => Promise<T>,
): Promise<T> {
  const { from, to } = range ?? ANY
  if (asked !== 0) {
    if (asked >= from && asked <= to) return open(asked)
    throw new TunnelError(
      'port-not-allowed',
      `port ${asked} is not allowed: ask for one from ${from} to ${to}, or 0 for any`,
    )
  }
  // Without a range the system chooses, from the ports that it keeps for this.
  if (!range) return open(0)

  const size = to - from + 1
  const start = Math.floor(Math.random() * size)
  for (let i = 0; i < size; i++) {
    try {
      return await open(from + ((start + i) % size))
    } catch (error) {
      const isTaken = error instanceof TunnelError && error.code === 'port-taken'
      // Reserved by the system, as ports below 1024 are and some ranges on Windows.
      const isReserved = error instanceof TunnelError && isSystemError(error.cause, 'EACCES')
      if (!isTaken && !isReserved) throw error
    }
  }
  throw new TunnelError(
    'ports-exhausted',
    `every port from ${from} to ${to} is taken: close a tunnel or give the server more ports`,
  )
}

/** What clients may ask for where the server names no range: the ports that need no privileges. */
const ANY: PortRange = { from: 1_024, to: 65_535 }
