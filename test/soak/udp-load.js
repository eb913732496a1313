/** Datagrams: the target that echoes them, and the visitors that number them. */
import dgram from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import { bytesAt } from './random.js'

/** Flow, number and length. */
const HEADER = 12
const MAX_DATAGRAM = 8_192
/** How long an echo may take before the datagram counts as dropped, in milliseconds. */
const STRAGGLERS = 400

/** A target that echoes datagrams of one client's visitors. */
export async function listenForDatagrams(world, slot) {
  const socket = dgram.createSocket('udp4')
  socket.on('error', () => {})
  socket.on('message', (datagram, from) => {
    const flow = world.flows.get(datagram.length < HEADER ? 0 : datagram.readUInt32BE())
    // Garbage, or of a flow that is over.
    if (!flow) return
    if (flow.slot !== slot.index) world.ledger.fail('a datagram came to the wrong target')
    if (!isRight(flow, datagram)) world.ledger.fail('a target got an altered datagram')
    else socket.send(datagram, from.port, from.address, () => {})
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return socket
}

/** One flow after the other until the run stops. */
export async function sendDatagrams(world, slot, name) {
  const random = world.random(`datagrams ${name}`)
  while (!world.isStopping) {
    const start = performance.now()
    const most = random.between(50, 400)
    const { sent, echoed } = await flow(world, slot, {
      maxSize: random.pick([64, 1_400, MAX_DATAGRAM]),
      random,
      isOver: (sent) => sent >= most || world.isStopping,
      pause: () => random.between(5, 30),
    })
    if (echoed < sent / 2 && world.ledger.met(slot.index, start).length === 0)
      world.ledger.fail('most datagrams of a flow were lost while there was no fault', `${echoed} of ${sent}`)
  }
}

/** A flow from its first datagram to its last; ends early once `isOver(sent, echoed)`. */
export async function flow(world, slot, { maxSize, random, isOver, pause }) {
  const { ledger, flows, seed } = world
  const number = ledger.newNumber()
  const own = { number, slot: slot.index, seed: seed ^ number }
  flows.set(number, own)
  const socket = dgram.createSocket('udp4')
  let sent = 0
  /** The numbers that came back. */
  const echoed = new Set()
  let last = 0
  let firstEcho
  socket.on('error', () => {})
  socket.on('message', (datagram) => {
    const flow = flows.get(datagram.length < HEADER ? 0 : datagram.readUInt32BE())
    if (flow !== own) return ledger.fail('a datagram came to the wrong visitor')
    if (!isRight(own, datagram)) return ledger.fail('a visitor got an altered datagram')
    const index = datagram.readUInt32BE(4)
    if (index > sent) ledger.fail('a datagram came that was not sent')
    if (echoed.has(index)) ledger.fail('a datagram came twice')
    if (index < last) ledger.count('datagrams overtaken')
    last = index
    firstEcho ??= performance.now()
    echoed.add(index)
  })
  while (!isOver(sent, echoed.size)) {
    sent++
    const size = HEADER + random.size(1, maxSize)
    socket.send(datagram(own, sent, size), slot.ports.udp, '127.0.0.1', () => {})
    await wait(pause())
  }
  await wait(echoed.size < sent ? STRAGGLERS : 0)
  socket.close()
  flows.delete(number)
  ledger.count('datagrams sent', sent)
  ledger.count('datagrams echoed', echoed.size)
  ledger.count('flows')
  return { sent, echoed: echoed.size, firstEcho }
}

function datagram({ number, seed }, index, size) {
  const bytes = Buffer.alloc(HEADER)
  bytes.writeUInt32BE(number)
  bytes.writeUInt32BE(index, 4)
  bytes.writeUInt32BE(size, 8)
  return Buffer.concat([bytes, bytesAt(seed ^ index, 0, size - HEADER)])
}

function isRight({ seed }, datagram) {
  const size = datagram.readUInt32BE(8)
  const index = datagram.readUInt32BE(4)
  return size === datagram.length && bytesAt(seed ^ index, 0, size - HEADER).equals(datagram.subarray(HEADER))
}
