/** Choices that a seed repeats, and bytes that are known by their position. */

/** A stream of choices of its own for each name, so that one load does not shift the choices of another. */
export class Random {
  #state

  constructor(seed, name) {
    this.#state = mix(seed)
    for (const letter of name) this.#state = mix(this.#state ^ letter.charCodeAt(0))
  }

  /** A number from 0, below 1. */
  next() {
    this.#state = (this.#state + STEP) | 0
    return (mix(this.#state) >>> 0) / 2 ** 32
  }

  /** A whole number, both ends included. */
  between(min, max) {
    return min + Math.floor(this.next() * (max - min + 1))
  }

  /** A size between the two, small ones as often as large ones. */
  size(min, max) {
    return Math.round(min * (max / min) ** this.next())
  }

  chance(probability) {
    return this.next() < probability
  }

  pick(list) {
    return list[this.between(0, list.length - 1)]
  }

  shuffled(list) {
    const rest = [...list]
    return list.map(() => rest.splice(this.between(0, rest.length - 1), 1)[0])
  }
}

/**
 * The bytes from `position` on of an endless stream. Each four of them are a hash of where they stand, so that bytes that
 * are lost, swapped or told twice never look right.
 */
export function bytesAt(seed, position, length) {
  const first = Math.floor(position / 4)
  const words = new Uint32Array(Math.ceil((position + length) / 4) - first)
  for (let i = 0; i < words.length; i++) words[i] = mix(seed ^ mix(first + i + STEP))
  return Buffer.from(words.buffer, position - first * 4, length)
}

/** 2 ** 32 divided by the golden ratio. */
const STEP = 0x9e3779b9

/** The last steps of MurmurHash3: every bit of the input changes half of the output. */
function mix(word) {
  let hash = word | 0
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return hash ^ (hash >>> 16)
}
