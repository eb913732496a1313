import type dgram from 'node:dgram'
import { type Address, formatAddress } from './address.js'
import type { Network } from './conditions/network.js'
import { type Aborted, waitForEvent, whenAborted } from './deadline.js'
import type { OnDrop } from './drops.js'
import { isSystemError } from './errors.js'
import { Flow } from './flow.js'
import { lookUp } from './lookup.js'
import type { DialOptions } from './socket.js'
import type { Throttle } from './throttle.js'
import { attempt, growBuffers, openSocket } from './udp-socket.js'

/** Bytes that are kept for another address of the target, while the first has not answered. */
const MAX_UNANSWERED = 65_536
/** What keeping a datagram takes beside its bytes. */
const BUFFER_COST = 64

/** What a flow towards a target is dialled with. */
export interface FlowOptions {
  onDrop: OnDrop
  /** What its datagrams share the speed with, by direction. */
  throttle: { in: Throttle; out: Throttle } | undefined
  /** What breaks the network on purpose. */
  network: Network | undefined
}

/**
 * A flow that leads to the address, over a socket of its own. Nothing tells whether anybody receives there. Where the
 * name has an address of each family, the second is tried once the first has refused. Rejects with the system's error,
 * or the signal's reason.
 */
export async function dialUdp(
  { host, port }: Address,
  { unref, aborted, onDrop, throttle, network }: DialOptions & FlowOptions,
): Promise<Flow> {
  const sockets = await openSockets(host, port, unref, aborted)
  const nobody = `nobody listens at ${formatAddress({ host, port })}`
  let current = 0
  /** What was sent before anything came back, where there is another address to send it to; undefined from then on. */
  let unanswered: Buffer[] | undefined = sockets.length > 1 ? [] : undefined
  let kept = 0

  const gates = network?.gates(
    {
      in: (datagram) => flowSend(datagram, (error) => error && onDrop(1, error.message)),
      out: (datagram) => flow.receive(datagram),
    },
    onDrop,
  )
  const flow: Flow = new Flow({
    onDrop,
    send: gates ? gateSend : flowSend,
    ...(throttle && {
      mayReceive: (bytes) => throttle.out.allows(bytes),
      maySend: (bytes) => throttle.in.allows(bytes),
    }),
  })
  flow
    .on('error', () => {})
    .once('close', () => {
      gates?.in.destroy()
      gates?.out.destroy()
      for (const socket of sockets) socket.close()
    })
  for (const [index, socket] of sockets.entries()) {
    socket.on('message', (datagram) => {
      current = index
      unanswered = undefined
      if (gates) gates.out.pass(datagram)
      else flow.receive(datagram)
    })
    socket.on('error', () => socketOnRefused(index))
  }
  return flow

  /** The gate holds a datagram for longer than what it came in is there. */
  function gateSend(datagram: Buffer, done: (error: Error | null) => void) {
    gates?.in.pass(Buffer.from(datagram))
    done(null)
  }

  function flowSend(datagram: Buffer, done: (error: Error | null) => void) {
    // Small ones are not free.
    kept += datagram.length + BUFFER_COST
    if (kept <= MAX_UNANSWERED) unanswered?.push(datagram)
    const index = current
    const send = (then: (error: Error | null) => void) =>
      attempt(then, () => sockets[index]?.send(datagram, then))
    send((error) => {
      if (!isSystemError(error, 'ECONNREFUSED')) return done(error)
      // That was the answer to one before. This one has not left: another address may have it by now.
      const isKept = unanswered !== undefined
      socketOnRefused(index)
      if (isKept) done(null)
      else send(done)
    })
  }

  /** Nobody receives there: tries the next address, or counts what was lost. */
  function socketOnRefused(index: number) {
    // The last word of an address that was given up already.
    if (index !== current) return
    // Who has answered once is who the flow leads to.
    if (!unanswered) return onDrop(1, nobody)
    current = (current + 1) % sockets.length
    const again = unanswered
    unanswered = []
    kept = 0
    if (current === 0) onDrop(Math.max(again.length, 1), nobody)
    else for (const datagram of again) flowSend(datagram, () => {})
  }
}

/** A connected socket for the first address of each family, where the machine has a way to it. */
async function openSockets(
  host: string,
  port: number,
  unref: boolean,
  aborted: Aborted,
): Promise<dgram.Socket[]> {
  const addresses = await Promise.race([
    lookUp(host),
    new Promise<never>((_, reject) => whenAborted(aborted, reject)),
  ])
  const firsts = addresses.filter(
    ({ family }, index) => addresses.findIndex((one) => one.family === family) === index,
  )
  const sockets: dgram.Socket[] = []
  let failure: unknown
  for (const { address, family } of firsts) {
    const socket = openSocket(family === 6 ? 'udp6' : 'udp4', unref)
    // It may fail at once, as where the process has no descriptors left.
    const ready = waitForEvent(socket, ['connect'], aborted)
    socket.connect(port, address)
    try {
      await ready
      growBuffers(socket)
      sockets.push(socket)
    } catch (error) {
      socket.close()
      failure = error
    }
  }
  if (sockets.length > 0 && !aborted.aborted) return sockets
  for (const socket of sockets) socket.close()
  throw aborted.aborted ? aborted.reason : failure
}
