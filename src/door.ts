/**
 * Who is let in to say what it wants. A new connection costs the server a socket and what it has sent before anything
 * shows who it is, so there are bounds for them, in all and by address, and addresses from which logins
 * failed have to wait.
 */
import { networkOf } from './address.js'
import { TunnelError } from './errors.js'

/** Logins that may fail before those that follow are held up: a typing mistake, and the same again. */
const FREE_FAILURES = 3
/** How long the next connection waits then, in milliseconds. It doubles with each failure, up to the longest. */
const FIRST_PAUSE = 250
const LONGEST_PAUSE = 2_000
/** How long an address is remembered after its last failure, in milliseconds. */
const MEMORY = 600_000
/** Addresses that are remembered: some 100 bytes each. One more takes the place of the one that failed first. */
const MAX_REMEMBERED = 4_096

export interface DoorLimits {
  /** Connections of strangers that have not logged in yet. */
  newcomers: number
  /** The same of one address. */
  newcomersPerAddress: number
}

/** A client that is logged in. */
interface Client {
  /** Visitors of it for which it is about to open data streams. */
  readonly waiting: number
}

/** A connection that has not said what it is, or not logged in. */
export interface Newcomer {
  /** Whether a client is logged in from its address: then it may be one of its data streams. */
  readonly isKnown: boolean
  /** Milliseconds that it waits for its address's sake. */
  readonly pause: number
  /** Resolves when the pause is over, or nobody is served any more. */
  wait(): Promise<void>
  /** It is no newcomer any more. */
  leave(): void
}

/** The door of a server. All is counted by address, and for IPv6 by network, as one user has one at least. */
export class Door {
  /** They may change. */
  limits: DoorLimits
  /** Newcomers by network. */
  readonly #newcomers = new Map<string, number>()
  #strangers = 0
  readonly #clients = new Map<string, Set<Client>>()
  /** Failed logins by network, that which failed last at the end. */
  readonly #failures = new Map<string, { count: number; at: number }>()
  readonly #waiting = new Set<() => void>()

  constructor(limits: DoorLimits) {
    this.limits = limits
  }

  /**
   * A new connection. Throws `limit-reached` where it is one too many. Connections from the address of a client that is
   * logged in do not count among those of strangers, nor are they refused for them: they may be its data
   * streams, for which there is room beside what anybody at that address has.
   */
  enter(address: string): Newcomer {
    const network = networkOf(address)
    const { newcomers, newcomersPerAddress } = this.limits
    const isKnown = this.#clients.has(network)
    const count = this.#newcomers.get(network) ?? 0
    if (count >= newcomersPerAddress && count >= newcomersPerAddress + this.#expected(network)) {
      throw tooMany(`${newcomersPerAddress} connections of ${address}`, 'newcomersPerAddress')
    }
    if (!isKnown && this.#strangers >= newcomers) throw tooMany(`${newcomers} connections`, 'newcomers')

    this.#newcomers.set(network, count + 1)
    if (!isKnown) this.#strangers++
    let isGone = false
    const pause = pauseAfter(this.failures(address))
    return {
      isKnown,
      pause,
      wait: () => this.#wait(pause),
      leave: () => {
        if (isGone) return
        isGone = true
        if (!isKnown) this.#strangers--
        const left = (this.#newcomers.get(network) ?? 1) - 1
        if (left === 0) this.#newcomers.delete(network)
        else this.#newcomers.set(network, left)
      },
    }
  }

  /** A client has logged in. Gives back what to call when it is gone. */
  addClient(address: string, client: Client): () => void {
    const network = networkOf(address)
    const clients = this.#clients.get(network) ?? new Set()
    this.#clients.set(network, clients.add(client))
    return () => {
      clients.delete(client)
      if (clients.size === 0 && this.#clients.get(network) === clients) this.#clients.delete(network)
    }
  }

  /** How many logins from this address have failed of late. */
  failures(address: string): number {
    const failed = this.#failures.get(networkOf(address))
    return failed && performance.now() - failed.at < MEMORY ? failed.count : 0
  }

  /** A proof from this address was wrong. */
  fail(address: string): void {
    const network = networkOf(address)
    const count = this.failures(address) + 1
    this.#failures.delete(network)
    this.#failures.set(network, { count, at: performance.now() })
    if (this.#failures.size <= MAX_REMEMBERED) return
    for (const first of this.#failures.keys()) {
      this.#failures.delete(first)
      return
    }
  }

  /** Ends all pauses. */
  close(): void {
    for (const end of this.#waiting) end()
  }

  /** Visitors whose data streams may come from there. Counted when it matters alone. */
  #expected(network: string): number {
    let sum = 0
    for (const { waiting } of this.#clients.get(network) ?? []) sum += waiting
    return sum
  }

  async #wait(pause: number): Promise<void> {
    if (pause === 0) return
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer)
        this.#waiting.delete(end)
        resolve()
      }
      const timer = setTimeout(end, pause).unref()
      this.#waiting.add(end)
    })
  }
}

function pauseAfter(failures: number): number {
  if (failures <= FREE_FAILURES) return 0
  return Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - FREE_FAILURES - 1))
}

function tooMany(what: string, limit: string): TunnelError {
  return new TunnelError(
    'limit-reached',
    `${what} are logging in already: try again later, or raise limits.${limit} of createServer`,
  )
}
