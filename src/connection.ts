import type { Duplex } from 'node:stream'
import { whenAborted } from './deadline.js'
import { type TunnelError, toTunnelError } from './errors.js'
import { checkInteger, checkSignal, MAX_TIMEOUT } from './options.js'
import { relay, reset } from './relay.js'

/** Who connected to a public address. */
export interface Visitor {
  /** IP address. */
  readonly address: string
  readonly port: number
}

/** A visitor connection, as events show it. */
export interface Connection {
  /** The exchange id, the same at server and client. */
  readonly id: string
  readonly visitor: Visitor
  /** Resolves, and never rejects, when both sides are closed. */
  readonly closed: Promise<ConnectionEnd>
}

/** How a visitor connection went. */
export interface ConnectionEnd {
  /** Bytes from the visitor to the target. */
  readonly bytesIn: number
  /** Bytes from the target to the visitor. */
  readonly bytesOut: number
  /** Milliseconds from the exchange to the end. */
  readonly duration: number
  /** Why it was cut, where it did not simply finish. */
  readonly error?: TunnelError
}

/** A visitor that was turned away, as events show it. */
export interface Rejection {
  /** The exchange id. */
  readonly id: string
  readonly visitor: Visitor
  /** Why. */
  readonly error: TunnelError
}

/** Joins the two streams of an exchange. They belong to the connection from now on. */
export function joinConnection(
  id: string,
  visitor: Visitor,
  fromVisitor: Duplex,
  fromTarget: Duplex,
): Connection {
  const start = performance.now()
  const closed = relay(fromVisitor, fromTarget).then(
    ({ bytesIn, bytesOut, error }): ConnectionEnd => ({
      bytesIn,
      bytesOut,
      duration: performance.now() - start,
      ...(error && { error: toTunnelError(error, 'connection-lost', 'the connection broke') }),
    }),
  )
  return { id, visitor, closed }
}

/** Options of every `close`. */
export interface CloseOptions {
  /** Milliseconds that visitors inside get to finish before they are cut. Default 0. */
  grace?: number
  /** Ends the grace: when it aborts, who is still inside is cut. */
  signal?: AbortSignal
}

/**
 * Even without grace, milliseconds for what is about to end by itself: the FIN of a visitor that has just
 * finished may still be on its way, and a target that is reset instead might crash over it.
 */
const LEAST_GRACE = 20

/** The joined connections of a server or a tunnel, each with both its streams. */
export class Connections {
  readonly #streams = new Map<Connection, Duplex[]>()
  #closing: { promise: Promise<void>; hasGrace: boolean } | undefined
  #isCut = false

  get closing(): boolean {
    return this.#closing !== undefined
  }

  get size(): number {
    return this.#streams.size
  }

  add(connection: Connection, ...streams: Duplex[]): void {
    this.#streams.set(connection, streams)
    // One that was being made while the others were cut.
    if (this.#isCut) for (const stream of streams) reset(stream)
    connection.closed.then(() => this.#streams.delete(connection))
  }

  /**
   * What a `close` does: runs `shut` once and gives every call its promise. A call without grace after one
   * that had some cuts at once.
   */
  close({ grace = 0, signal }: CloseOptions, shut: (grace: number) => Promise<void>): Promise<void> {
    try {
      checkInteger('grace', grace, 0, MAX_TIMEOUT)
      checkSignal('signal', signal)
    } catch (error) {
      return Promise.reject(error)
    }
    if (this.#closing?.hasGrace && grace === 0) this.#cut()
    this.#closing ??= { promise: shut(grace), hasGrace: grace > 0 }
    const { promise } = this.#closing
    if (signal) {
      const forget = whenAborted(signal, () => this.#cut())
      promise.finally(forget)
    }
    return promise
  }

  /** Resolves when all have ended; those that have not after `grace` milliseconds are cut. */
  async finish(grace: number): Promise<void> {
    const timer = setTimeout(() => this.#cut(), Math.max(grace, LEAST_GRACE))
    while (this.#streams.size > 0) {
      await Promise.all([...this.#streams.keys()].map((connection) => connection.closed))
    }
    clearTimeout(timer)
  }

  #cut(): void {
    this.#isCut = true
    for (const stream of [...this.#streams.values()].flat()) reset(stream)
  }
}
