import type dgram from 'node:dgram'
import { isIPv6 } from 'node:net'
import { type Address, formatAddress } from './address.js'
import { waitForEvent, whenAborted } from './deadline.js'
import { isSystemError, TunnelError } from './errors.js'
import { Flow, type OnDrop } from './flow.js'
import { type Listener, type ListenOptions, listening, type OnVisitor } from './listener.js'
import { lookUp } from './lookup.js'
import { type DialOptions, socketAddress } from './socket.js'
import { whenClosed } from './stream.js'
import type { Throttle } from './throttle.js'
import { attempt, growBuffers, openSocket } from './udp-socket.js'

/** Bytes that are kept for another address of the target, while the first has not answered. */
const MAX_UNANSWERED = 65_536
/** What keeping a datagram takes beside its bytes. */
const BUFFER_COST = 64

export interface FlowSettings {
  /** Milliseconds of silence in both directions after which a flow ends. */
  flowTimeout: number
  /** Flows at a time; one more ends the one that has been silent the longest. */
  maxFlows: number
  onDrop: OnDrop
}

/**
 * Receives on the address; each visitor is a flow. Rejects with `port-taken`, `address-unavailable`, or the signal's
 * reason.
 */
export async function listenUdp(
  { host, port, unref, aborted, ...settings }: Address & ListenOptions & FlowSettings,
  onVisitor: OnVisitor<Flow>,
): Promise<Listener> {
  const socket = openSocket(isIPv6(host) ? 'udp6' : 'udp4', unref)
  const ready = listening(socket, formatAddress({ host, port }), aborted)
  // An IP address is bound at once.
  socket.bind({ address: host, port })
  await ready.catch((error) => {
    socket.close()
    throw error
  })
  growBuffers(socket)
  const cameTo = { address: host, port: socket.address().port }
  const flows = new Flows(socket, settings)

  socket.on('message', (datagram, from) => {
    // Nobody can be answered at port 0, which only a forged datagram has.
    if (from.port === 0) return
    const known = flows.get(from)
    const flow = known ?? flows.open(from)
    if (flow && !known) onVisitor(flow, socketAddress(from.address, from.port), cameTo)
    flow?.receive(datagram)
  })
  return {
    host,
    port: cameTo.port,
    async close() {
      socket.close()
      // What has come still goes in.
      await flows.finish()
    },
  }
}

/** The flows of a socket that visitors send to. */
class Flows {
  readonly #socket: dgram.Socket
  readonly #settings: FlowSettings
  /** Those that take datagrams, by the visitor's address, the one that was silent the longest first. */
  readonly #taking = new Map<string, Flow>()
  readonly #open = new Set<Flow>()

  constructor(socket: dgram.Socket, settings: FlowSettings) {
    this.#socket = socket
    this.#settings = settings
  }

  get(from: dgram.RemoteInfo): Flow | undefined {
    return this.#taking.get(keyOf(from))
  }

  /** A new flow, where there is room for one. */
  open(from: dgram.RemoteInfo): Flow | undefined {
    const { flowTimeout, maxFlows, onDrop } = this.#settings
    if (this.#taking.size >= maxFlows && !this.#makeRoom()) {
      onDrop(1, `${maxFlows} visitors are being joined already`)
      return undefined
    }
    const key = keyOf(from)
    const flow: Flow = new Flow({
      flowTimeout,
      onDrop,
      send: (datagram, done) => {
        attempt(done, () => this.#socket.send(datagram, from.port, from.address, done))
      },
      onUse: () => {
        // To the end of the order, unless it is finished: then the key may be that of the next.
        if (this.#taking.get(key) !== flow) return
        this.#taking.delete(key)
        this.#taking.set(key, flow)
      },
      onFinish: () => {
        if (this.#taking.get(key) === flow) this.#taking.delete(key)
      },
    })
    this.#taking.set(key, flow)
    this.#open.add(flow)
    // Its owner may be gone when it breaks; `errored` keeps why.
    flow.on('error', () => {}).once('close', () => this.#open.delete(flow))
    return flow
  }

  async finish(): Promise<void> {
    for (const flow of this.#open) flow.finish()
    await Promise.all(
      [...this.#open].map((flow) => new Promise<void>((resolve) => whenClosed(flow, resolve))),
    )
  }

  /** Ends the flow that was silent the longest. One that waits keeps its place: in a flood, nobody would ever get in. */
  #makeRoom(): boolean {
    const { maxFlows } = this.#settings
    for (const flow of this.#taking.values()) {
      // Nobody reads from it yet.
      if (flow.readableFlowing === null) continue
      const why = `this visitor was silent the longest when more than ${maxFlows} came`
      flow.destroy(new TunnelError('limit-reached', why))
      return true
    }
    return false
  }
}

function keyOf({ address, port }: dgram.RemoteInfo): string {
  return `${port} ${address}`
}

/** What a flow towards a target is dialled with. */
export interface FlowOptions {
  onDrop: OnDrop
  /** What its datagrams share the speed with, by direction. */
  throttle: { in: Throttle; out: Throttle } | undefined
}

/**
 * A flow that leads to the address, over a socket of its own. Nothing tells whether anybody receives there. Where the
 * name has an address of each family, the second is tried once the first has refused. Rejects with the system's error,
 * or the signal's reason.
 */
export async function dialUdp(
  { host, port }: Address,
  { unref, aborted, onDrop, throttle }: DialOptions & FlowOptions,
): Promise<Flow> {
  const sockets = await openSockets(host, port, unref, aborted)
  const nobody = `nobody listens at ${formatAddress({ host, port })}`
  let current = 0
  /** What was sent before anything came back, where there is another address to send it to; undefined from then on. */
  let unanswered: Buffer[] | undefined = sockets.length > 1 ? [] : undefined
  let kept = 0

  const flow = new Flow({
    onDrop,
    send: flowSend,
    ...(throttle && {
      mayReceive: (bytes) => throttle.out.allows(bytes),
      maySend: (bytes) => throttle.in.allows(bytes),
    }),
  })
  flow
    .on('error', () => {})
    .once('close', () => {
      for (const socket of sockets) socket.close()
    })
  for (const [index, socket] of sockets.entries()) {
    socket.on('message', (datagram) => {
      current = index
      unanswered = undefined
      flow.receive(datagram)
    })
    socket.on('error', () => socketOnRefused(index))
  }
  return flow

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
  aborted: AbortSignal,
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
    socket.connect(port, address)
    try {
      await waitForEvent(socket, 'connect', aborted)
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
