/** The mixed load: everything that goes on until the run stops. */
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { sendRequests } from './http-load.js'
import { visit } from './stream-load.js'
import { sendDatagrams } from './udp-load.js'

/** For each client. Two slow cores do this with time to spare, so that what takes long is not the load's doing. */
const REQUESTERS = 1
const STREAMS = 1
const CHURNERS = 1
const FLOWS = 2
/** Longest direction of a short talk, in bytes. */
const MAX_TALK = 262_144

/** Starts it all; resolves when all of it has come to its end. */
export function load(world) {
  return Promise.all(
    world.slots.flatMap((slot) => [
      ...several(REQUESTERS, (i) => sendRequests(world, slot, `${slot.index}.${i}`)),
      ...several(STREAMS, () => keepStream(world, slot)),
      ...several(CHURNERS, (i) => churn(world, slot, `${slot.index}.${i}`)),
      ...several(FLOWS, (i) => sendDatagrams(world, slot, `${slot.index}.${i}`)),
      churnTunnels(world, slot),
    ]),
  )
}

/** A stream that would flow for ever. When it was cut, the next begins. */
async function keepStream(world, slot) {
  while (!world.isStopping) {
    const isDone = await visit(world, slot, slot.ports.tcp, { mode: 'stream' })
    if (!isDone) await wait(100)
  }
}

/** Visitors that come, talk, and leave in every way. */
async function churn(world, slot, name) {
  const random = world.random(`churn ${name}`)
  while (!world.isStopping) {
    if (random.chance(0.1)) await passBy(slot.ports.tcp)
    else if (!(await visit(world, slot, slot.ports.tcp, shortTalk(random)))) await wait(50)
    await wait(random.between(5, 100))
  }
}

/** Tunnels, each with a control connection of its own, that are opened, used and closed. */
async function churnTunnels(world, slot) {
  const { ledger } = world
  const random = world.random(`tunnels ${slot.index}`)
  for (let i = 0; !world.isStopping; i++) {
    const start = performance.now()
    const name = `extra ${i}`
    try {
      const port = await world.openTunnel(slot, name, 'tcp')
      await Promise.all(several(random.between(0, 3), () => visit(world, slot, port, shortTalk(random))))
      await world.closeTunnel(slot, name, random.pick([0, 500]))
      ledger.count('tunnels')
    } catch (error) {
      if (ledger.met(slot.index, start).length === 0)
        ledger.fail('a tunnel could not be opened while there was no fault', error.message)
      await wait(100)
    }
    await wait(random.between(100, 600))
  }
}

function shortTalk(random) {
  return {
    mode: random.pick(['both', 'half-close', 'visitor resets', 'target resets']),
    bytesUp: random.size(1, MAX_TALK),
    bytesDown: random.size(1, MAX_TALK),
    resetAfter: random.between(0, 100),
  }
}

/** Looks whether the port is open, and leaves. */
async function passBy(port) {
  const socket = net.connect({ host: '127.0.0.1', port })
  socket.on('error', () => {})
  await new Promise((resolve) => {
    socket.once('connect', () => socket.destroy()).once('close', resolve)
  })
}

function several(count, start) {
  return Array.from({ length: count }, (_, index) => start(index))
}
