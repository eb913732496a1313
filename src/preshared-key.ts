import { createHmac, scrypt } from 'node:crypto'

/** What both sides encrypt with where they hold the same secret. */
export interface PresharedKey {
  key: Buffer
  /** By which the client names the key; it tells nothing of the secret to who can't guess it. */
  identity: string
}

const SALT = 'pipe-tunnel 1 key'
const IDENTITY = 'pipe-tunnel 1 identity'
const LENGTH = 32

/**
 * A weak secret can be guessed from a recorded handshake, so that each guess has to cost: some 32 MiB (128 · N · r) and a
 * tenth of a second. Node's own bound is those 32 MiB without the little that comes on top.
 */
const COST = { N: 32_768, r: 8, p: 1, maxmem: 64 * 1_048_576 }

/** Secrets of which the keys are kept: more than a process has that does not make them up all the time. */
const MAX_KEPT = 64

const kept = new Map<string, Promise<PresharedKey>>()

/** The key that a secret stands for; derived once in a process, off the event loop. */
export function presharedKey(secret: string): Promise<PresharedKey> {
  const known = kept.get(secret)
  if (known) return known
  const derived = derive(secret)
  kept.set(secret, derived)
  // One that failed, for want of memory, may be tried again.
  derived.catch(() => kept.delete(secret))
  const [oldest] = kept.keys()
  if (kept.size > MAX_KEPT && oldest !== undefined) kept.delete(oldest)
  return derived
}

function derive(secret: string): Promise<PresharedKey> {
  return new Promise((resolve, reject) => {
    scrypt(secret, SALT, LENGTH, COST, (error, key) => {
      if (error) reject(error)
      else resolve({ key, identity: createHmac('sha256', key).update(IDENTITY).digest('hex') })
    })
  })
}
