/** Raw connections: the target that answers them, and the visitors that open them. */
import { once } from 'node:events'
import net from 'node:net'
import { drink, HEADER, header, judge, numberOf, pump } from './talk.js'

/** How long a talk that should end by itself may take, in milliseconds: longer than any fault and any timeout of a tunnel. */
const TALK_TIMEOUT = 25_000
/** How long a stream may be silent where nothing is wrong. */
const STALL_TIMEOUT = 10_000
/** Most bytes of one write, and how often a burst comes that no buffer on the way can hold. */
const CHUNK = 16_384
const BURST = 1_048_576
const BURSTS = 0.01

/** A target for the streams of one client. */
export async function listenForTalks(world, slot) {
  const { ledger } = world
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => {})
    socket.once('end', socketOnEnd)
    socket.on('readable', socketOnReadable)

    function socketOnReadable() {
      const bytes = socket.read(HEADER)
      if (bytes?.length !== HEADER) return
      socket.off('readable', socketOnReadable).off('end', socketOnEnd)
      const talk = ledger.talks.get(numberOf(bytes))
      if (talk) answer(world, slot, socket, talk)
      else socket.destroy()
      // Its visitor has given up meanwhile, or it is one of those that throw garbage.
      if (!talk) ledger.count(numberOf(bytes) === undefined ? 'strangers' : 'late')
    }

    function socketOnEnd() {
      socket.end()
    }
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return server
}

/** The target's half of a talk. */
function answer(world, slot, socket, talk) {
  const { ledger } = world
  const { mode, down } = talk
  const random = world.random(`target of ${talk.number}`)
  if (talk.slot !== slot.index) ledger.fail('a visitor came to the wrong target')
  if (talk.hasTarget) ledger.fail('a visitor came to its target twice')
  talk.hasTarget = true
  drink(socket, talk.up, {
    ledger,
    who: 'a target',
    onEnd(outcome) {
      if (mode !== 'target resets') judge(ledger, talk, 'target', outcome)
      talk.hasTarget = false
      if (talk.hasLeft) ledger.talks.delete(talk.number)
    },
  })

  const chunk = () => random.size(1, CHUNK)
  const some = { chunk: ({ sent }) => Math.min(chunk(), talk.bytesDown - sent) }
  const all = ({ sent }) => sent >= talk.bytesDown
  switch (mode) {
    case 'stream':
      return pump(socket, down, { ...flowing(random), isOver: () => talk.up.isWhole })
    case 'half-close':
      return socket.once('end', () => pump(socket, down, { ...some, isOver: all }))
    case 'visitor resets':
      return pump(socket, down, { chunk, pause: () => 5, isOver: () => socket.destroyed })
    case 'target resets':
      setTimeout(() => socket.resetAndDestroy(), talk.resetAfter)
      return pump(socket, down, { chunk, pause: () => 5, isOver: () => socket.destroyed })
    default:
      return pump(socket, down, { ...some, isOver: all })
  }
}

/** The visitor's half of a talk. Resolves when it is over, with whether it went to its end. */
export async function visit(world, slot, port, plan) {
  const { ledger, seed } = world
  const talk = ledger.open({ slot: slot.index, seed, plan })
  const random = world.random(`visitor of ${talk.number}`)
  const socket = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
  socket.on('error', () => {})
  const timer = setInterval(timerOnTick, 1_000)
  try {
    if (!(await connected(socket))) {
      if (ledger.met(slot.index, talk.opened).length === 0)
        ledger.fail('a visitor was refused while there was no fault', `port ${port}: ${socket.errored?.code}`)
      ledger.count('refused')
      return false
    }
    ledger.count('connections')
    socket.write(header(talk))
    const outcome = new Promise((resolve) => {
      drink(socket, talk.down, { ledger, who: 'a visitor', onEnd: resolve })
    })
    say(world, socket, talk, random)
    const ended = await outcome
    if (talk.mode !== 'visitor resets') judge(ledger, talk, 'visitor', ended)
    return talk.down.isWhole
  } finally {
    clearInterval(timer)
    talk.hasLeft = true
    if (!talk.hasTarget) ledger.talks.delete(talk.number)
  }

  function timerOnTick() {
    const now = performance.now()
    if (talk.mode !== 'stream') {
      if (now - talk.opened < TALK_TIMEOUT) return
      ledger.fail(
        'a talk never ended',
        `${talk.mode}, ${talk.up.received} and ${talk.down.received} bytes came`,
      )
      socket.resetAndDestroy()
    } else if (now - talk.down.heard > STALL_TIMEOUT && !socket.isPaused()) {
      if (ledger.met(slot.index, now - STALL_TIMEOUT).length > 0) return
      ledger.fail('a stream stands still while there is no fault')
      socket.resetAndDestroy()
    }
  }
}

/** What a visitor does once it is connected. */
function say(world, socket, talk, random) {
  const { mode, up } = talk
  const chunk = () => random.size(1, CHUNK)
  switch (mode) {
    case 'stream':
      pauseAtTimes(socket, random)
      return pump(socket, up, { ...flowing(random), isOver: () => world.isStopping })
    case 'visitor resets':
      setTimeout(() => socket.resetAndDestroy(), talk.resetAfter)
      return pump(socket, up, { chunk, pause: () => 5, isOver: () => socket.destroyed })
    case 'target resets':
      return pump(socket, up, { chunk, pause: () => 5, isOver: () => socket.destroyed })
    default:
      return pump(socket, up, {
        chunk: ({ sent }) => Math.min(chunk(), talk.bytesUp - sent),
        isOver: ({ sent }) => sent >= talk.bytesUp,
      })
  }
}

/** How a long stream flows. */
function flowing(random) {
  return {
    chunk: () => (random.chance(BURSTS) ? BURST : random.size(64, CHUNK)),
    pause: () => random.between(20, 60),
  }
}

/** A reader that is slow at times: what comes must wait, and not be lost. */
function pauseAtTimes(socket, random) {
  const timer = setInterval(() => {
    if (socket.destroyed) return clearInterval(timer)
    if (!random.chance(0.1)) return
    socket.pause()
    setTimeout(() => socket.resume(), random.between(50, 600))
  }, 1_000)
}

function connected(socket) {
  return new Promise((resolve) => {
    socket.once('connect', () => resolve(true))
    socket.once('close', () => resolve(false))
  })
}
