import { createHash } from 'node:crypto'

/** Gives numbers from 0 up to, and without, 1. */
export type Chance = () => number

/**
 * The same numbers for the same seed and name, whenever they are asked for. A xorshift of 32 bits that begins anywhere in its
 * round: enough for chance, and not for secrets.
 */
export function chanceOf(seed: number, name: string): Chance {
  // It would stay at zero for ever.
  let state = createHash('sha256').update(`${seed} ${name}`).digest().readUInt32BE() || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}
