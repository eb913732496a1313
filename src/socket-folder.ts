import { realpathSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { TunnelError, toTunnelError } from './errors.js'
import { parseUnixPath } from './unix.js'

/**
 * The file for a unix socket that a client asked for: inside of the folder, also where links lead elsewhere. A relative
 * path starts there. Throws `path-not-allowed` or `address-unavailable`.
 */
export function allowedPath(folder: string | undefined, asked: string | undefined): string {
  if (folder === undefined) {
    throw new TunnelError(
      'path-not-allowed',
      'this server lets nobody listen on unix sockets: start it with the option sockets, or --sockets',
    )
  }
  const path = resolve(folder, asked ?? '')
  parseUnixPath('listen', `unix:${path}`)
  try {
    const inside = relative(realpathSync(folder), realpathSync(dirname(path)))
    if (inside !== '..' && !inside.startsWith(`..${sep}`) && path !== resolve(folder)) return path
  } catch (error) {
    throw toTunnelError(error, 'address-unavailable', `can't listen on unix:${path}`)
  }
  throw new TunnelError('path-not-allowed', `${path} is not allowed: ask for a path in ${join(folder, sep)}`)
}
