/** The processes, the targets and the tunnels of a run. */
import { setTimeout as wait } from 'node:timers/promises'
import { listenForRequests } from './http-load.js'
import { Child } from './processes.js'
import { Random } from './random.js'
import { listenForTalks } from './stream-load.js'
import { listenForDatagrams } from './udp-load.js'

const CLIENTS = 2
export const KINDS = ['http', 'tcp', 'udp']
export const HEARTBEAT_TIMEOUT = 1_500
/**
 * Below the ports from which systems take those of outgoing connections: one of them could otherwise get the port of a
 * server that is down for a moment.
 */
const FIRST_PORT = 20_000
const LAST_PORT = 29_999

const secret = 'of the soak alone'
const settings = {
  secret,
  ports: `${FIRST_PORT}-${LAST_PORT}`,
  heartbeatInterval: 500,
  heartbeatTimeout: HEARTBEAT_TIMEOUT,
  exchangeTimeout: 5_000,
  resumeTimeout: 10_000,
}

export class World {
  seed
  ledger
  server
  /** Where it listens for clients. */
  controlPort
  link
  slots = []
  /** Flows that are going on, by number. */
  flows = new Map()
  isStopping = false
  /** Each tunnel gets another one, so that nobody comes to a tunnel which has inherited it. Where it starts is no choice of the seed. */
  #lastPort = FIRST_PORT + (process.pid % (LAST_PORT - FIRST_PORT))

  constructor(seed, ledger) {
    this.seed = seed
    this.ledger = ledger
  }

  random(name) {
    return new Random(this.seed, name)
  }

  async start() {
    await this.startServer()
    this.link = await this.#startChild('link.js')
    for (let index = 0; index < CLIENTS; index++) {
      const slot = {
        index,
        ports: {},
        port: await this.link.ask('open', { slot: index, port: this.controlPort }),
      }
      slot.listeners = {
        http: await listenForRequests(this, slot),
        tcp: await listenForTalks(this, slot),
        udp: await listenForDatagrams(this, slot),
      }
      this.slots.push(slot)
      await this.startClient(slot)
      await Promise.all(KINDS.map((kind) => this.openMain(slot, kind)))
    }
  }

  /** Starts a server, where the last one was. */
  async startServer() {
    this.server = await this.#startChild('server.js')
    const listen = async (port) => {
      await this.server.ask('listen', { ...settings, port })
      return port
    }
    if (this.controlPort) await listen(this.controlPort)
    else this.controlPort = await this.#onFreePort(undefined, listen)
  }

  async startClient(slot) {
    slot.child = await this.#startChild('client.js', (event) => this.#clientOnEvent(slot, event))
  }

  /** Opens one of the tunnels that every client has, under the port that it had. */
  async openMain(slot, kind) {
    slot.ports[kind] = await this.openTunnel(slot, kind, kind, slot.ports[kind])
  }

  /** Opens a tunnel to one of the client's targets; gives back its public port. */
  openTunnel(slot, name, kind, wanted) {
    const { port } = slot.listeners[kind].address()
    const target = `${kind}://127.0.0.1:${port}`
    const options = {
      server: `127.0.0.1:${slot.port}`,
      secret,
      timeout: 15_000,
      // Each way for some.
      whileLost: slot.index % 2 === 0 ? 'wait' : 'refuse',
      ...(kind === 'udp' && { flowTimeout: 1_500 }),
    }
    return this.#onFreePort(wanted, (port) =>
      slot.child.ask('open', { name, target, options: { ...options, port } }),
    )
  }

  closeTunnel(slot, name, grace) {
    return slot.child.ask('close', { name, grace })
  }

  async connections() {
    const { connections } = await this.server.ask('status')
    const each = await Promise.all(this.slots.map(({ child }) => child.ask('connections')))
    return each.reduce((sum, one) => sum + one, connections)
  }

  /** Tries the port, or others where it is taken. */
  async #onFreePort(wanted, open) {
    let port = wanted ?? this.#newPort()
    for (;;) {
      try {
        return await open(port)
      } catch (error) {
        if (error.code !== 'port-taken') throw error
        if (wanted !== undefined) this.ledger.fail('a port was still taken after its client had been killed')
        port = this.#newPort()
        await wait(10)
      }
    }
  }

  #newPort() {
    this.#lastPort = this.#lastPort < LAST_PORT ? this.#lastPort + 1 : FIRST_PORT
    return this.#lastPort
  }

  #startChild(file, onEvent) {
    return Child.start(file, { onEvent, onCrash: (what) => this.ledger.fail(what) })
  }

  #clientOnEvent(slot, { event, name, code, message }) {
    const { ledger } = this
    const who = `${name} of client ${slot.index}`
    ledger.count(`tunnel ${event}`)
    if (event === 'lost') ledger.fail(`a tunnel was lost for good with ${code}`, `${who}: ${message}`)
    else if (ledger.met(slot.index, performance.now()).length === 0)
      ledger.fail(`a control connection was lost while there was no fault`, `${event} of ${who}: ${message}`)
  }
}
