import { realpathSync, statSync } from 'node:fs'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import { TunnelError } from './errors.js'
import { invalidOption } from './options.js'
import { unixListenError, whyNotHere } from './unix.js'

/**
 * The file for a unix socket that a client asked for: inside of the folder, also where links lead elsewhere. A relative
 * path starts there. Throws `path-not-allowed` or `address-unavailable`.
 */
export function allowedPath(folder: string | undefined, asked: string | undefined): string {
  if (folder === undefined) {
    throw new TunnelError(
      'path-not-allowed',
      'this server lets nobody listen on unix sockets: start it with the option sockets',
    )
  }
  const path = resolve(folder, asked ?? '')
  const example = "ask for one in its folder for them, such as 'unix:x.sock'"
  const refused = new TunnelError(
    'path-not-allowed',
    `unix:${asked} is not allowed at this server: ${example}`,
  )
  // By the names alone first: what is elsewhere on the server is nobody's business.
  if (path === resolve(folder) || !isInside(resolve(folder), dirname(path))) throw refused
  const why = whyNotHere(path)
  if (why) throw new TunnelError('path-not-allowed', `unix:${path} ${why}`)
  try {
    // Without links, which could lead elsewhere a moment later.
    const real = realpathSync(dirname(path))
    if (isInside(realpathSync(folder), real)) return join(real, basename(path))
  } catch (error) {
    throw unixListenError(error, path)
  }
  throw refused
}

function isInside(folder: string, path: string): boolean {
  const way = relative(folder, path)
  return way !== '..' && !way.startsWith(`..${sep}`)
}

/** Throws `invalid-option` where there is no such folder. */
export function checkSocketFolder(folder: unknown): void {
  if (typeof folder !== 'string' || !statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    throw invalidOption('sockets', 'a folder that exists', folder)
  }
}
