/** The configuration file as the command reads it, for tunnels and for a server. */
import { dirname, resolve } from 'node:path'
import { findConfig } from '../config/find.js'
import type { LoadedConfig } from '../config/load.js'
import { TunnelError } from '../errors.js'
import { readSecret, type SecretOptions } from './secret.js'

/** The file that `--config` names, else that of the working folder, if there is one. */
export async function readConfig(file: string | undefined): Promise<LoadedConfig | undefined> {
  const path = file ?? findConfig('')
  if (path === undefined) return undefined
  const { loadConfig } = await import('../config/load.js')
  return loadConfig(path)
}

/** The secret at a path of the file, which may be in a file of its own. */
export function secretOf(
  loaded: LoadedConfig,
  path: string,
  { secret, secretFile }: SecretOptions,
): string | undefined {
  if (secret !== undefined && secretFile !== undefined) {
    throw new TunnelError(
      'invalid-option',
      `${loaded.name}: ${path}secretFile must be left out where ${path}secret is given`,
    )
  }
  return readSecret({ secret, ...(secretFile !== undefined && { secretFile: beside(loaded, secretFile) }) })
}

/** Relative paths start in the folder of the file. */
export function beside({ path }: LoadedConfig, file: string): string {
  return resolve(dirname(path), file)
}

/** Does what complains of an option, and says where that stands. */
export function checked<T>(place: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof TunnelError)) throw error
    throw new TunnelError(error.code, `${place}.${error.message}`, { cause: error })
  }
}
