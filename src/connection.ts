import type { Duplex } from 'node:stream'
import { reserve } from './descriptors.js'
import { type TunnelError, toTunnelError } from './errors.js'
import { Flow } from './flow.js'
import type { Visitor } from './listener.js'
import { relay, type Tap } from './relay.js'
import type { Throttle } from './throttle.js'

/** A visitor connection or a flow, as events show it. */
export interface Connection {
  /** The exchange id, the same at server and client. */
  readonly id: string
  readonly visitor: Visitor
  /** Bytes from the visitor to the target so far. */
  readonly bytesIn: number
  /** Bytes from the target to the visitor so far. */
  readonly bytesOut: number
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

/** What a connection is made of. */
export interface Joint {
  id: string
  visitor: Visitor
  fromVisitor: Duplex
  fromTarget: Duplex
  /** What its bytes pass through first, by direction. */
  stages?: { in: Duplex; out: Duplex } | undefined
  /** What breaks the network on purpose, by direction. */
  conditions?: { in: Duplex; out: Duplex } | undefined
  /** What its bytes share the speed with, by direction. */
  throttle?: { in: Throttle; out: Throttle } | undefined
  /** What looks at the bytes. */
  tap?: Tap | undefined
}

/** Joins the two streams of an exchange. They belong to the connection from now on. */
export function joinConnection(joint: Joint): Connection {
  return new Joined(joint)
}

/** A class, because the getters of an object would be defined anew for each visitor. */
class Joined implements Connection {
  readonly id: string
  readonly visitor: Visitor
  readonly closed: Promise<ConnectionEnd>
  readonly #bytes = { in: 0, out: 0 }
  /** A flow knows how much of it is datagrams. */
  readonly #fromVisitor: Flow | undefined
  readonly #fromTarget: Flow | undefined

  constructor({ id, visitor, fromVisitor, fromTarget, stages, conditions, throttle, tap }: Joint) {
    this.id = id
    this.visitor = visitor
    this.#fromVisitor = fromVisitor instanceof Flow ? fromVisitor : undefined
    this.#fromTarget = fromTarget instanceof Flow ? fromTarget : undefined
    const start = performance.now()
    reserve.enter()
    const throttled = throttle && { in: throttle.in.stage(), out: throttle.out.stage() }
    const passed = [stages, conditions, throttled].filter((one) => one !== undefined)
    const ended = relay(fromVisitor, fromTarget, {
      ...(passed.length > 0 && {
        through: { in: passed.map((one) => one.in), out: passed.map((one) => one.out) },
      }),
      bytes: this.#bytes,
      tap,
    })
    this.closed = ended.then(({ error }) => {
      reserve.leave()
      return {
        bytesIn: this.bytesIn,
        bytesOut: this.bytesOut,
        duration: performance.now() - start,
        ...(error && { error: toTunnelError(error, 'connection-lost', 'the connection broke') }),
      }
    })
  }

  get bytesIn(): number {
    return this.#fromVisitor?.bytesReceived ?? this.#fromTarget?.bytesSent ?? this.#bytes.in
  }

  get bytesOut(): number {
    return this.#fromVisitor?.bytesSent ?? this.#fromTarget?.bytesReceived ?? this.#bytes.out
  }
}
