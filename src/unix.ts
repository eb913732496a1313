import { randomBytes } from 'node:crypto'
import { type BigIntStats, chmodSync, linkSync, lstatSync, renameSync, unlinkSync } from 'node:fs'
import net from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { isSystemError, printable, TunnelError, toTunnelError } from './errors.js'
import { type Listener, type ListenOptions, listening, type OnVisitor } from './listener.js'
import { invalidOption } from './options.js'
import { BACKLOG, closeServer, connected, createListener, type DialOptions } from './socket.js'

/** Longest path of a unix socket, in bytes: `sun_path` less its final zero (unix(7) on Linux and macOS). */
const MAX_PATH = process.platform === 'darwin' ? 103 : 107

/** The same of any system. */
const LONGEST_PATH = 108

/** How long whoever has a socket file may take to answer whether it is alive, in milliseconds. */
const PROBE_TIMEOUT = 2_000

/** A unix socket and its visitors have no address. */
const NOWHERE = { address: 'unix', port: 0 }

/** The path in `unix:/path`, or undefined where the text is none. Throws `invalid-option`. */
export function parseUnixPath(name: string, text: string): string | undefined {
  if (/^\.{0,2}\//.test(text))
    throw invalidOption(name, `written 'unix:${text}' where it is a unix socket`, text)
  const path = /^unix:(?:\/\/(?=\/))?(.*)$/is.exec(text)?.[1]
  if (path === undefined) return undefined
  const fail = (why: string) => {
    throw new TunnelError('invalid-option', `${name} ${JSON.stringify(text)} ${why}`)
  }
  if (/^\/*$/.test(path)) fail("has no path: write 'unix:/run/app.sock'")
  if (path.startsWith('//')) fail(`would be a host with a path: write 'unix:${path.slice(1)}'`)
  if (printable(path) !== path) fail('has a control character in its path')
  const length = Buffer.byteLength(path)
  if (length > LONGEST_PATH)
    fail(`has a path of ${length} bytes, where no system allows more than ${LONGEST_PATH}`)
  return path
}

/** The same for a unix socket of this machine, as an absolute path. */
export function parseOwnUnixPath(name: string, text: string): string | undefined {
  const path = parseUnixPath(name, text)
  if (path === undefined) return undefined
  const why = whyNotHere(resolve(path))
  if (why) throw new TunnelError('invalid-option', `${name} ${JSON.stringify(text)} ${why}`)
  return resolve(path)
}

/** Why this system can't have a unix socket there, if so. */
export function whyNotHere(path: string): string | undefined {
  if (process.platform === 'win32') return 'is a unix socket, which Windows does not have: use a port'
  const length = Buffer.byteLength(path)
  return length > MAX_PATH ? `has a path of ${length} bytes, where the system allows ${MAX_PATH}` : undefined
}

export interface ListenUnixOptions extends ListenOptions {
  path: string
  /** Permissions of the file. Where it is left out, what the process's umask makes them. */
  mode?: number | undefined
}

/**
 * Listens on a unix socket, and removes its file when closed. The file of one that nobody listens on any more is
 * replaced. Rejects with `path-taken`, `address-unavailable`, or the signal's reason.
 *
 * The file is made under another name and has its permissions before it gets its own, which it can't take from another
 * process. The name it is made under is what Node removes at the end: a file that has replaced ours meanwhile stays.
 */
export async function listenUnix(
  { path, mode, unref, aborted }: ListenUnixOptions,
  onVisitor: OnVisitor<net.Socket>,
): Promise<Listener> {
  const server = createListener(unref, (socket) => onVisitor(socket, NOWHERE, NOWHERE))
  const other = besides(path)
  // Where the system has no room for another name, it is made under its own.
  const made = Buffer.byteLength(other) > MAX_PATH ? path : other
  let own: bigint | undefined
  try {
    await inTurn(path, async () => {
      await removeStale(path)
      server.listen({ path: made, backlog: BACKLOG })
      await listening(server, `unix:${path}`, aborted)
      if (mode !== undefined) chmodSync(made, mode)
      own = look(made)?.ino
      if (made !== path) {
        linkSync(made, path)
        unlinkSync(made)
      }
    })
  } catch (error) {
    server.close()
    throw unixListenError(error, path)
  }
  return {
    host: '',
    port: 0,
    async close() {
      try {
        if (look(path)?.ino === own) unlinkSync(path)
      } catch {
        // It can't be reached any more, as where its folder is gone.
      }
      await closeServer(server)
    },
  }
}

/** The last of those who want a path, by the path. */
const turns = new Map<string, Promise<void>>()

/** Runs one after another what wants the same path: of several that find a stale file, one would take another's away. */
async function inTurn(path: string, work: () => Promise<void>): Promise<void> {
  const turn = (turns.get(path) ?? Promise.resolve()).then(work)
  const done = turn.catch(() => {})
  turns.set(path, done)
  try {
    await turn
  } finally {
    if (turns.get(path) === done) turns.delete(path)
  }
}

/** Another name in the same folder. */
function besides(path: string): string {
  return join(dirname(path), `.${randomBytes(3).toString('hex')}`)
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
  await checkDead(path, path)
  // Another process may have found the same, and listens there by now: of those who take the file away, one gets it, and
  // looks again at what that is.
  const taken = besides(path)
  try {
    renameSync(path, taken)
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return
    throw error
  }
  try {
    await checkDead(taken, path)
  } catch (error) {
    linkSync(taken, path)
    throw error
  } finally {
    unlinkSync(taken)
  }
}

/** Rejects with `path-taken` unless nobody listens there. */
async function checkDead(file: string, path: string): Promise<void> {
  try {
    const socket = await dialUnix(file, { unref: false, aborted: AbortSignal.timeout(PROBE_TIMEOUT) })
    socket.destroy()
  } catch (error) {
    // Only a file that refuses everybody is of no use; one that may not be entered, or is slow, may be.
    if (isSystemError(error, 'ECONNREFUSED') || isSystemError(error, 'ENOENT')) return
    throw pathTaken(path, 'may be in use', error)
  }
  throw pathTaken(path, 'is taken by another program or tunnel')
}

function look(path: string): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })
}

function pathTaken(path: string, how: string, cause?: unknown): TunnelError {
  return new TunnelError('path-taken', `${path} ${how}: choose another path, or remove it`, { cause })
}

/** Why it can't listen there, for people. */
export function unixListenError(error: unknown, path: string): TunnelError {
  if (isSystemError(error, 'EEXIST')) return pathTaken(path, 'is taken by another program or tunnel', error)
  const failure = `can't listen on unix:${path}`
  const system = error instanceof TunnelError ? error.cause : error
  if (isSystemError(system, 'EADDRINUSE'))
    return pathTaken(path, 'is taken by another program or tunnel', system)
  // Node says EACCES also where there is no folder at all.
  if (['ENOENT', 'EACCES', 'ENOTDIR'].some((code) => isSystemError(system, code))) {
    const why = `its folder ${dirname(path)} does not exist, or may not be written to`
    return new TunnelError('address-unavailable', `${failure}: ${why}`, { cause: system })
  }
  return toTunnelError(error, 'address-unavailable', failure)
}
