/** What is done to a run: one fault at a time, each followed by the recovery of all tunnels that it met. */
import { setTimeout as wait } from 'node:timers/promises'
import { throwGarbage } from './garbage.js'
import { whenReached } from './probe.js'
import { HEARTBEAT_TIMEOUT, KINDS } from './world.js'

/**
 * Between two faults, in milliseconds: some load must get through unharmed, and be known to. Who loses a control connection
 * that is younger than two seconds waits a second by intention.
 */
const PAUSE = [2_000, 2_600]
/** How long a recovery may take before it counts as failed. */
const RECOVERY_TIMEOUT = 15_000
/** How often the clock is looked at, and how late such a look may come. */
const STALL_LOOK = 100
const STALL = 500

/** Each does its harm and undoes it; resolves when all is as it was before, and only the tunnels have to come back. */
const faults = {
  async 'server killed'({ world, random }) {
    await world.server.kill()
    await wait(random.between(0, 1_500))
    await world.startServer()
  },
  async 'server closed'({ world, random }) {
    const { server } = world
    await server.ask('close', { grace: random.pick([0, 300]) })
    if (!(await server.leave())) world.ledger.fail('a server that was closed did not let its process end')
    await wait(random.between(0, 1_500))
    await world.startServer()
  },
  async 'server stopped'({ world, random }) {
    await world.server.stop(longerThanHeartbeat(random))
  },
  async 'client killed'({ world, slot }) {
    await slot.child.kill()
    await world.startClient(slot)
    return (kind) => world.openMain(slot, kind)
  },
  async 'client stopped'({ slot, random }) {
    await slot.child.stop(longerThanHeartbeat(random))
  },
  async 'control cut'({ world, slot }) {
    const ports = await world.server.ask('controlPorts')
    if ((await world.link.ask('cut', { slot: slot.index, ports })) < KINDS.length)
      world.ledger.fail('control connections were not found')
  },
  async 'link blackholed'({ world, slot, random }) {
    const directions = random.pick([{ up: true, down: true }, { up: true }, { down: true }])
    await world.link.ask('block', { slot: slot.index, up: false, down: false, ...directions })
    await wait(longerThanHeartbeat(random))
    await world.link.ask('heal', { slot: slot.index })
  },
  /** The server that comes back knows nothing of who was lost. */
  async 'server killed, link blackholed'({ world, slot, random }) {
    await world.link.ask('block', { slot: slot.index, up: true, down: true })
    await wait(random.between(0, HEARTBEAT_TIMEOUT))
    await world.server.kill()
    await world.startServer()
    await wait(random.between(0, HEARTBEAT_TIMEOUT))
    await world.link.ask('heal', { slot: slot.index })
  },
  async garbage({ world, slot, random }) {
    await throwGarbage(world, slot, random)
  },
}

/** Those that end connections of visitors inside; the others may delay them and no more. */
const cutting = /killed|closed/

export const kindsOfFault = Object.keys(faults)

/** Injects faults until the time is up. Each kind comes once before any comes again. */
export async function injectFaults(world, until, tell) {
  const random = world.random('faults')
  let bag = []
  while (performance.now() < until) {
    await wait(random.between(...PAUSE))
    if (bag.length === 0) bag = random.shuffled(kindsOfFault)
    const kind = bag.pop()
    const slot = random.pick(world.slots)
    await inject(world, { kind, slot, random: world.random(`fault ${random.next()}`) }, tell)
  }
}

async function inject(world, { kind, slot, random }, tell) {
  const { ledger } = world
  const slots = kind.startsWith('server') ? world.slots : [slot]
  const probed = kind.includes('blackholed') ? [slot] : slots
  const end = ledger.begin({
    kind,
    slots: slots.map(({ index }) => index),
    cuts: cutting.test(kind),
    kills: kind.includes('killed'),
  })
  ledger.count(`fault ${kind}`)
  tell(`${kind}${probed.length === 1 ? `, client ${slot.index}` : ''}`)
  try {
    const comeBack = await faults[kind]({ world, slot, random })
    const back = performance.now()
    const times = await Promise.all(
      // One whose link was not blocked has recovered before.
      probed.flatMap((one) =>
        KINDS.map(async (name) => {
          await comeBack?.(name)
          return whenReached(world, one, name, AbortSignal.timeout(RECOVERY_TIMEOUT))
        }),
      ),
    )
    for (const [index, time] of times.entries()) {
      const which = `${KINDS[index % KINDS.length]} of client ${probed[Math.floor(index / KINDS.length)].index}`
      if (time === undefined) ledger.fail(`no visitor got through again after ${kind}`, which)
      else ledger.recovered(kind, time - back)
    }
  } catch (error) {
    ledger.fail(`${kind} could not be undone`, error.message)
  }
  end()
}

/** Where this machine stands still, as busy ones do, nobody may be blamed for what comes late. */
export function noticeStalls({ ledger, slots }) {
  let last = performance.now()
  return setInterval(() => {
    const now = performance.now()
    if (now - last > STALL) {
      ledger.count('stalls')
      ledger.begin({ kind: 'stall', slots: slots.map(({ index }) => index) })()
    }
    last = now
  }, STALL_LOOK)
}

function longerThanHeartbeat(random) {
  return random.between(HEARTBEAT_TIMEOUT + 300, 2 * HEARTBEAT_TIMEOUT)
}
