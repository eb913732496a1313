import type dgram from 'node:dgram'
import type { EventEmitter } from 'node:events'
import type net from 'node:net'
import type { Duplex } from 'node:stream'
import { type Address, formatAddress } from './address.js'
import { type Aborted, waitForEvent } from './deadline.js'
import { TunnelError } from './errors.js'
import { reset } from './stream.js'
import { whenTurned } from './turn.js'

/** One end of a connection or a flow. */
export interface SocketAddress {
  /** IP address; `'unix'` for a unix socket, which has none. */
  readonly address: string
  /** 0 for a unix socket. */
  readonly port: number
}

/** Who connected to a public address. */
export type Visitor = SocketAddress

/** Where visitors come from. */
export interface Listener {
  /** The address that it listens on; an empty host and port 0 where it is a unix socket. */
  readonly host: string
  readonly port: number
  /** Stops listening at once, and resolves when everything that it accepted is closed. */
  close(): Promise<void>
}

/** What every kind of listener is opened with. */
export interface ListenOptions {
  /** Lets the process end while the listener or a stream of it is open. */
  unref: boolean
  /** Gives up. */
  aborted?: Aborted | undefined
}

/**
 * Takes a visitor's stream, which is not read from until its owner does, with where it comes from and the
 * address that it came to.
 */
export type OnVisitor<Stream extends Duplex = Duplex> = (
  stream: Stream,
  visitor: Visitor,
  cameTo: SocketAddress,
) => void

/**
 * Resolves when it listens, and closes it otherwise. Rejects with `port-taken`, `address-unavailable`, or the signal's
 * reason.
 */
export async function listening(
  bindable: net.Server | dgram.Socket,
  where: string,
  aborted?: Aborted,
): Promise<void> {
  try {
    await waitForEvent(bindable as EventEmitter, ['listening'], aborted)
  } catch (error) {
    // It may still be looking a name up, and would listen once that is done.
    bindable.on('error', () => {}).on('listening', () => bindable.close())
    throw aborted?.aborted ? aborted.reason : listenError(error, where)
  }
  // Later errors concern one connection that could not be accepted; the others go on.
  bindable.on('error', () => {})
}

/** How often a port that the system chose for the first address is tried on the others. */
const MAX_ATTEMPTS = 20

/**
 * Listens on several addresses with the same port. Where that is 0, the system chooses one for the first address,
 * and another if that is taken on one of the rest.
 */
export async function listenOnAll<Stream extends Duplex>(
  { hosts, port }: { hosts: readonly string[]; port: number },
  onVisitor: OnVisitor<Stream>,
  listen: (address: Address, onVisitor: OnVisitor<Stream>) => Promise<Listener>,
): Promise<Listener> {
  const [first = '', ...others] = hosts
  if (others.length === 0) return listen({ host: first, port }, onVisitor)

  for (let attempt = 1; ; attempt++) {
    // Who comes before all are open waits until the caller has had its listener.
    const early: Parameters<OnVisitor<Stream>>[] = []
    let isOpen = false
    const hold: OnVisitor<Stream> = (...visit) => {
      if (isOpen) onVisitor(...visit)
      else early.push(visit)
    }
    const opened: Listener[] = []
    try {
      for (const host of hosts) opened.push(await listen({ host, port: opened[0]?.port ?? port }, hold))
      whenTurned(() => {
        isOpen = true
        for (const visit of early) onVisitor(...visit)
      })
      return together(opened)
    } catch (error) {
      for (const [stream] of early) reset(stream)
      for (const listener of opened) listener.close()
      const isTaken = error instanceof TunnelError && error.code === 'port-taken'
      if (port !== 0 || !isTaken || attempt === MAX_ATTEMPTS) throw error
    }
  }
}

function together(listeners: Listener[]): Listener {
  const [first] = listeners as [Listener]
  return {
    host: first.host,
    port: first.port,
    async close() {
      await Promise.all(listeners.map((listener) => listener.close()))
    },
  }
}

function listenError(error: unknown, where: string): TunnelError {
  const code = (error as NodeJS.ErrnoException).code
  if (code === 'EADDRINUSE') {
    return new TunnelError(
      'port-taken',
      `${where} is taken by another program or tunnel: choose another port, or 0 for any`,
      { cause: error },
    )
  }
  const why =
    code === 'EACCES'
      ? 'the system reserves this port: choose one above 1023'
      : code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND'
        ? 'this machine has no such address: choose one that it has'
        : (error as Error).message
  return new TunnelError('address-unavailable', `can't listen on ${where}: ${why}`, { cause: error })
}

/** An address for people. */
export function formatVisitor({ address, port }: Visitor): string {
  return port === 0 ? address : formatAddress({ host: address, port })
}
