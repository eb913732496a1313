import { isNativeError } from 'node:util/types'

/** Every code that a {@link TunnelError} can have. Each is a heading in `docs/errors.md`. */
export const errorCodes = [
  'aborted',
  'address-unavailable',
  'broken-on-purpose',
  'caddy-conflict',
  'caddy-failed',
  'caddy-unreachable',
  'closed',
  'closed-by-server',
  'connection-lost',
  'exchange-expired',
  'hostname-not-allowed',
  'hostname-taken',
  'http-unavailable',
  'insecure-address',
  'invalid-option',
  'limit-reached',
  'path-not-allowed',
  'path-taken',
  'port-not-allowed',
  'port-taken',
  'ports-exhausted',
  'protocol-violation',
  'refused',
  'secret-required',
  'secret-revoked',
  'secret-wrong',
  'server-closed',
  'server-unproven',
  'server-unreachable',
  'target-unreachable',
  'timeout',
  'tls-required',
  'unexpected-request',
  'url-unreachable',
  'version-mismatch',
  'visitor-denied',
  'visitor-left',
] as const

/** What went wrong, for programs: compare `error.code` with one of these. */
export type TunnelErrorCode = (typeof errorCodes)[number]

/**
 * The only error that this package rejects with. `message` names the cause and the next step,
 * `cause` holds the error underneath where there is one, and `code` is described in `docs/errors.md`.
 */
export class TunnelError extends Error {
  override readonly name = 'TunnelError'
  readonly code: TunnelErrorCode

  constructor(code: TunnelErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** The error as it is if it is one of ours, else wrapped: `«what failed» («the system's words»): «next step»`. */
export function toTunnelError(
  error: unknown,
  code: TunnelErrorCode,
  failure: string,
  next?: string,
): TunnelError {
  if (error instanceof TunnelError) return error
  return new TunnelError(code, `${failure} (${reasonOf(error)})${next ? `: ${next}` : ''}`, { cause: error })
}

/**
 * The error that a peer told us of. A code of a later version becomes `refused`. */
export function errorFromPeer(code: string, message: string): TunnelError {
  const known = errorCodes.find((one) => one === code)
  const sentence = known ? message : `${message} (${code})`
  return new TunnelError(known ?? 'refused', printable(sentence))
}

/** The text without what a terminal or a log would act on: control characters, line breaks among them. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
}

/** Whether it is an error, also where it is not of our `Error`: jest gives its tests another one than Node has. */
export function isError(error: unknown): error is Error {
  return error instanceof Error || isNativeError(error)
}

/** Whether it is the system's error of this code, such as `ECONNRESET`. */
export function isSystemError(error: unknown, code: string): error is NodeJS.ErrnoException {
  return isError(error) && 'code' in error && error.code === code
}

/** An error's own words; without the addresses where several were tried. */
export function reasonOf(error: unknown): string {
  if (isError(error) && 'errors' in error && Array.isArray(error.errors)) {
    const reasons = error.errors.map((one) => reasonOf(one).replace(/ \S+$/, ''))
    return [...new Set(reasons)].join(', ')
  }
  return isError(error) ? error.message || error.name : String(error)
}
