/** Asks a tunnel until it answers: when is a new visitor served again? */
import { setTimeout as wait } from 'node:timers/promises'
import { sendRequest } from './http-load.js'
import { visit } from './stream-load.js'
import { flow } from './udp-load.js'

/** How long one attempt may take, and the pause between two, in milliseconds. */
const ATTEMPT = 10_000
const PAUSE = 15

/** Each gives back when it was answered, or undefined. */
const attempts = {
  async http(world, slot, random) {
    const isDone = await sendRequest(world, slot, small(random), false, ATTEMPT)
    return isDone ? performance.now() : undefined
  },
  async tcp(world, slot) {
    const talk = { mode: 'half-close', bytesUp: 1_000, bytesDown: 1_000 }
    const isDone = await visit(world, slot, slot.ports.tcp, talk)
    return isDone ? performance.now() : undefined
  },
  async udp(world, slot, random, signal) {
    const { firstEcho } = await flow(world, slot, {
      maxSize: 100,
      random,
      isOver: (_sent, echoed) => echoed > 0 || signal.aborted,
      pause: () => PAUSE,
    })
    return firstEcho
  },
}

/** When a new visitor got a right answer through this tunnel; undefined where none did in time. */
export async function whenReached(world, slot, name, signal) {
  const random = world.random(`probe ${name}`)
  while (!signal.aborted) {
    const answered = await attempts[name](world, slot, random, signal)
    if (answered !== undefined) return answered
    await wait(PAUSE)
  }
  return undefined
}

/** Makes requests that have small bodies. */
function small(random) {
  return { size: () => random.between(1, 1_000), chance: (probability) => random.chance(probability) }
}
