import type { YamuxStream } from './stream.js'

/** Which end of the link a session is: it decides whose streams have odd numbers. */
export type Role = 'client' | 'server'

/** The streams of a session, and who may have how many. */
export class StreamTable {
  readonly #acceptBacklog: number
  readonly #maxStreams: number
  /** The client's streams have odd numbers, the server's even ones: what is left when ours are divided by two. */
  readonly #parity: number
  readonly #streams = new Map<number, YamuxStream>()
  #next: number
  /** How many of the streams the peer has opened. */
  #accepted = 0
  /** Streams of ours that the peer has been told of, and has not accepted yet. */
  readonly #unanswered = new Set<YamuxStream>()
  /** Streams of ours that wait until it has. */
  readonly #held = new Set<YamuxStream>()

  constructor(role: Role, { acceptBacklog, maxStreams }: { acceptBacklog: number; maxStreams: number }) {
    this.#acceptBacklog = acceptBacklog
    this.#maxStreams = maxStreams
    this.#parity = role === 'client' ? 1 : 0
    this.#next = role === 'client' ? 1 : 2
  }

  get size(): number {
    return this.#streams.size
  }

  get(id: number): YamuxStream | undefined {
    return this.#streams.get(id)
  }

  /** Whether the peer may give a stream of its own this number. */
  isPeers(id: number): boolean {
    return id > 0 && id % 2 !== this.#parity
  }

  /** Whether there is room for one more stream of the peer. */
  get hasRoom(): boolean {
    return this.#accepted < this.#maxStreams
  }

  /** Adds a stream that the peer has opened. */
  accept(stream: YamuxStream): void {
    this.#accepted++
    this.#streams.set(stream.id, stream)
  }

  /** The number for the next stream of ours; too large for a header, when all were used. */
  nextId(): number {
    const id = this.#next
    this.#next += 2
    return id
  }

  /** Adds a stream of ours, which waits while the peer has not accepted as many as it lets wait: it would reset it. */
  open(stream: YamuxStream): void {
    this.#streams.set(stream.id, stream)
    this.#held.add(stream)
    this.#admit()
  }

  /** The peer has accepted a stream of ours, or it is gone. */
  answered(stream: YamuxStream): void {
    if (this.#unanswered.delete(stream)) this.#admit()
  }

  delete(stream: YamuxStream): void {
    if (!this.#streams.delete(stream.id)) return
    if (this.isPeers(stream.id)) this.#accepted--
    this.#held.delete(stream)
    this.answered(stream)
  }

  /** Destroys all; a stream that is destroyed leaves the table. */
  destroyAll(reason: Error): void {
    this.#held.clear()
    for (const stream of this.#streams.values()) stream.destroy(reason)
  }

  #admit(): void {
    for (const stream of this.#held) {
      if (this.#unanswered.size >= this.#acceptBacklog) return
      this.#held.delete(stream)
      this.#unanswered.add(stream)
      stream.admit()
    }
  }
}
