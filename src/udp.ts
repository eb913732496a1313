import type dgram from 'node:dgram'
import { isIPv6 } from 'node:net'
import { type Address, formatAddress } from './address.js'
import type { OnDrop } from './drops.js'
import { TunnelError } from './errors.js'
import { Flow } from './flow.js'
import { type Listener, type ListenOptions, listening, type OnVisitor } from './listener.js'
import { socketAddress } from './socket.js'
import { whenClosed } from './stream.js'
import { attempt, growBuffers, openSocket } from './udp-socket.js'
import type { MayVisit } from './visitor-filter.js'

export interface FlowSettings {
  /** Milliseconds of silence in both directions after which a flow ends. */
  flowTimeout: number
  /** Flows at a time; one more ends the one that has been silent the longest. */
  maxFlows: number
  onDrop: OnDrop
  /** Whether a visitor of this address may begin a flow. */
  mayVisit: MayVisit
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
  /** The last of them. Most datagrams follow one of the same flow, and then there is nothing to look up, or to move. */
  #latest: { from: dgram.RemoteInfo; flow: Flow } | undefined
  readonly #open = new Set<Flow>()
  readonly #queue = { bytes: 0 }

  constructor(socket: dgram.Socket, settings: FlowSettings) {
    this.#socket = socket
    this.#settings = settings
  }

  get(from: dgram.RemoteInfo): Flow | undefined {
    const latest = this.#latest
    if (latest?.from.port === from.port && latest.from.address === from.address) return latest.flow
    return this.#taking.get(keyOf(from))
  }

  /** A new flow, where there is room for one. */
  open(from: dgram.RemoteInfo): Flow | undefined {
    const { flowTimeout, maxFlows, onDrop, mayVisit } = this.#settings
    if (!mayVisit(socketAddress(from.address, from.port).address)) {
      onDrop(1, 'their visitor is not allowed')
      return undefined
    }
    if (this.#taking.size >= maxFlows && !this.#makeRoom()) {
      onDrop(1, `${maxFlows} visitors are being joined already`)
      return undefined
    }
    const key = keyOf(from)
    const flow: Flow = new Flow({
      flowTimeout,
      onDrop,
      queue: this.#queue,
      send: (datagram, done) => {
        attempt(done, () => this.#socket.send(datagram, from.port, from.address, done))
      },
      onUse: () => {
        if (this.#latest === one) return
        // To the end of the order, unless it is finished: then the key may be that of the next.
        if (this.#taking.get(key) !== flow) return
        this.#taking.delete(key)
        this.#taking.set(key, flow)
        this.#latest = one
      },
      onFinish: () => {
        if (this.#taking.get(key) === flow) this.#taking.delete(key)
        if (this.#latest === one) this.#latest = undefined
      },
    })
    const one = { from, flow }
    this.#taking.set(key, flow)
    this.#latest = one
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
