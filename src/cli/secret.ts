import { readFileSync } from 'node:fs'
import { TunnelError } from '../errors.js'
import { checkSecret, SECRET_VARIABLE } from '../options.js'

export interface SecretOptions {
  secret?: string
  secretFile?: string
}

/** The secret of the command line: itself, or the first line of the file it names. */
export function readSecret({ secret, secretFile }: SecretOptions): string | undefined {
  if (secretFile === undefined) return secret
  try {
    return readFileSync(secretFile, 'utf8').split(/\r?\n/)[0]
  } catch (error) {
    throw new TunnelError(
      'invalid-option',
      `can't read the secret from ${secretFile} (${(error as Error).message}): give a file whose first line is the secret`,
      {
        cause: error,
      },
    )
  }
}

/** That of the environment. */
export function secretOfEnvironment(): string | undefined {
  const secret = process.env[SECRET_VARIABLE]
  checkSecret(SECRET_VARIABLE, secret)
  return secret
}
