import { type BigIntStats, chmodSync, lstatSync, unlinkSync } from 'node:fs'
import net from 'node:net'
import { isSystemError, TunnelError } from './errors.js'
import { type Listener, type ListenOptions, listening, type OnVisitor, type Visitor } from './listener.js'
import { BACKLOG, connected, type DialOptions, socketOnError, socketOptions } from './tcp.js'

/** Longest path of a unix socket, in bytes: `sun_path` less its final zero (unix(7) on Linux and macOS). */
const MAX_PATH = process.platform === 'darwin' ? 103 : 107

/** How long whoever has a socket file may take to answer whether it is alive, in milliseconds. */
const PROBE_TIMEOUT = 2_000

/** A unix socket's visitors have no address. */
const NOBODY: Visitor = { address: 'unix', port: 0 }

/** The path in `unix:/path`, or undefined where the text is none. */
export function parseUnixPath(name: string, text: string): string | undefined {
  const path = /^unix:(?:\/\/(?=\/))?(.*)$/is.exec(text)?.[1]
  if (path === undefined) return undefined
  const fail = (why: string) => {
    throw new TunnelError('invalid-option', `${name} ${JSON.stringify(text)} ${why}`)
  }
  if (process.platform === 'win32') fail('is a unix socket, which Windows does not have: use a port')
  if (/^\/*$/.test(path)) fail("has no path: write 'unix:/run/app.sock'")
  if (/\p{Cc}/u.test(path)) fail('has a control character in its path')
  const length = Buffer.byteLength(path)
  if (length > MAX_PATH) fail(`has a path of ${length} bytes, where the system allows ${MAX_PATH}`)
  return path
}

export interface ListenUnixOptions extends ListenOptions {
  path: string
  /** Permissions of the file. Where it is left out, what the process's umask makes them. */
  mode?: number | undefined
}

/**
 * Listens on a unix socket, and removes its file when closed. The file of one that nobody listens on any more is
 * replaced. Rejects with `path-taken`, `address-unavailable`, or the signal's reason.
 */
export async function listenUnix(
  { path, mode, unref, aborted }: ListenUnixOptions,
  onVisitor: OnVisitor<net.Socket>,
): Promise<Listener> {
  await removeStale(path)
  const server = net.createServer({ ...socketOptions, pauseOnConnect: true }, (socket) => {
    socket.on('error', socketOnError)
    if (unref) socket.unref()
    onVisitor(socket, NOBODY, NOBODY)
  })
  server.listen({ path, backlog: BACKLOG })
  // Node has bound it by now, and nobody has been accepted.
  if (mode !== undefined && server.listening) chmodSync(path, mode)
  if (unref) server.unref()
  try {
    await listening(server, `unix:${path}`, aborted)
  } catch (error) {
    throw isSystemError((error as Error).cause, 'EADDRINUSE') ? pathTaken(path, 'is taken', error) : error
  }
  return {
    host: '',
    port: 0,
    // Node removes the file.
    close: () => new Promise((resolve) => server.close(() => resolve())),
  }
}

/** A connection to the unix socket. Rejects with the system's error, or the signal's reason. */
export function dialUnix(path: string, options: DialOptions): Promise<net.Socket> {
  return connected(net.connect({ path, allowHalfOpen: true }), options)
}

/** Removes the file of a unix socket that a process left behind. Rejects with `path-taken` where it is of use. */
async function removeStale(path: string): Promise<void> {
  const found = look(path)
  if (!found) return
  if (!found.isSocket()) throw pathTaken(path, 'is there and is no socket')
  try {
    const socket = await dialUnix(path, { unref: false, aborted: AbortSignal.timeout(PROBE_TIMEOUT) })
    socket.destroy()
  } catch (error) {
    // Only a file that refuses everybody is of no use; one that may not be entered, or is slow, may be.
    if (!isSystemError(error, 'ECONNREFUSED')) throw pathTaken(path, 'may be in use', error)
    // Another process may have found the same, and listens there by now. A file system may give the new file the old number.
    const now = look(path)
    if (now?.ino === found.ino && now.ctimeNs === found.ctimeNs) unlinkSync(path)
    return
  }
  throw pathTaken(path, 'is taken by another program or tunnel')
}

function look(path: string): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })
}

function pathTaken(path: string, how: string, cause?: unknown): TunnelError {
  return new TunnelError('path-taken', `${path} ${how}: choose another path, or remove it`, { cause })
}
