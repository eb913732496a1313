import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { TunnelError } from '../errors.js'

/** What the name of a configuration file may end in. */
export const endings = ['ts', 'mts', 'js', 'mjs', 'cjs', 'json', 'toml'] as const

/** The configuration file of a folder, if there is one. Throws `invalid-option` where there are several. */
export function findConfig(folder: string): string | undefined {
  const found = endings
    .map((ending) => join(folder, `pipe.config.${ending}`))
    .filter((one) => existsSync(one))
  if (found.length > 1) {
    const names = found.map((one) => basename(one)).join(' and ')
    throw new TunnelError(
      'invalid-option',
      `there are ${names}: keep one of them, or say which with --config`,
    )
  }
  return found[0]
}
