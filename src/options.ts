import net from 'node:net'
import { isPromise } from 'node:util/types'
import { closestMatch } from 'leven'
import { TunnelError } from './errors.js'

/** Letters by which a name may differ from the one that is suggested for it. */
const TYPING_MISTAKE = 2
/** Longest time that a timer can wait, in milliseconds: above it Node fires at once. */
export const MAX_TIMEOUT = 2 ** 31 - 1
/** Shortest secret, in characters. Guessing needs one connection a guess, or a recording of a login. */
const MIN_SECRET = 8
/** The environment variable that stands in for the option. */
export const SECRET_VARIABLE = 'PIPE_SECRET'

/** A refusal of what the caller passed in, with the value received. */
export function invalidOption(name: string, wanted: string, value: unknown): TunnelError {
  const complaint = isPromise(value)
    ? 'is a promise: did you forget await?'
    : `must be ${wanted}, not ${show(value)}`
  return new TunnelError('invalid-option', `${name} ${complaint}`)
}

/** Refuses what is no object of options, and a name that is none: spelled wrong, it would change nothing, and nobody would be told. */
export function checkNames(name: string, given: unknown, known: readonly string[]): void {
  const isObject = typeof given === 'object' && given !== null && !Array.isArray(given) && !isPromise(given)
  if (!isObject) throw invalidOption(name, 'an object', given)
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue
    const alike = known.find((one) => one.toLowerCase() === key.toLowerCase())
    if (alike) throw invalidOption(`a name in ${name}`, `spelled ${alike}`, key)
    const near = closestMatch(key, known, { maxDistance: TYPING_MISTAKE })
    if (near) throw new TunnelError('invalid-option', `${name} has no ${show(key)}: did you mean ${near}?`)
    throw invalidOption(name, `made of ${known.join(', ')}`, key)
  }
}

export function checkInteger(name: string, value: unknown, min: number, max: number): void {
  if (!Number.isInteger(value) || Number(value) < min || Number(value) > max) {
    throw invalidOption(name, `a whole number from ${min} to ${max}`, value)
  }
}

/** A port to listen on; 0 means any. */
export function checkPort(name: string, value: unknown): void {
  checkInteger(name, value, 0, 65_535)
}

export function checkTimeout(name: string, value: unknown): void {
  checkInteger(name, value, 1, MAX_TIMEOUT)
}

export function checkSignal(name: string, value: unknown): void {
  if (value !== undefined && !(value instanceof AbortSignal))
    throw invalidOption(name, 'an AbortSignal', value)
}

export function checkHost(name: string, value: unknown): void {
  const isHost = typeof value === 'string' && /^[\w.:%-]{1,255}$/.test(value)
  // With a colon it is an IPv6 address, or has a port.
  if (!isHost || (value.includes(':') && !net.isIPv6(value))) {
    throw invalidOption(name, 'a host name or an IP address without a port', value)
  }
}

/** Its complaints do not quote it. */
export function checkSecret(name: string, value: unknown): void {
  if (value === undefined) return
  if (typeof value !== 'string') throw invalidOption(name, 'a text', typeof value)
  if (value === '' && name === SECRET_VARIABLE)
    throw new TunnelError(
      'invalid-option',
      `${name} is set but empty: give it a secret of ${MIN_SECRET} characters or more, or unset it`,
    )
  if (value.length < MIN_SECRET) {
    throw new TunnelError(
      'invalid-option',
      `${name} must have ${MIN_SECRET} characters or more, not ${value.length}${value ? '' : ': is it set?'}`,
    )
  }
}

/** The value, shortened, and without the secret that an address may hold. */
export function show(value: unknown): string {
  if (typeof value === 'function') return 'a function'
  const text = (typeof value === 'string' ? JSON.stringify(value) : String(value)).replace(
    /^("?).*@/s,
    '$1…@',
  )
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}
