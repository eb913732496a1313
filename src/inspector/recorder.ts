import { Emitter } from '../emitter.js'
import { checkInteger, checkNames, invalidOption } from '../options.js'
import type { RecordedRequest } from './record.js'
import { type Origin, Recording, type RequestHead, type ResponseHead } from './recording.js'

/** What all that is kept may take, in bytes. */
const MAX_COST = 67_108_864

/** How much is recorded of requests. */
export interface InspectOptions {
  /** Most bytes of a body that are kept. Default 1,048,576. */
  maxBodySize?: number
  /** Most requests that are kept; one more drops the oldest. Default 1,000. */
  maxRequests?: number
}

interface RecorderEvents {
  /** A request has begun, was answered, or has ended. */
  change: [request: RecordedRequest]
  /** A request has ended. */
  request: [request: RecordedRequest]
  /** One had to make room, and is not kept any more. */
  drop: [request: RecordedRequest]
  /** All that was kept is forgotten. */
  clear: []
}

/** Understands the option; undefined where nothing is to be recorded. */
export function readInspect(value: unknown): Required<InspectOptions> | undefined {
  if (value === undefined || value === false) return undefined
  const options = value === true ? {} : value
  if (typeof options !== 'object' || options === null)
    throw invalidOption('inspect', 'true, false or an object', value)
  checkNames('inspect', options, ['maxBodySize', 'maxRequests'])
  const { maxBodySize = 1_048_576, maxRequests = 1_000 } = options as InspectOptions
  checkInteger('inspect.maxBodySize', maxBodySize, 0, MAX_COST)
  checkInteger('inspect.maxRequests', maxRequests, 0, 1_000_000)
  return { maxBodySize, maxRequests }
}

/** Keeps the last requests of one tunnel, within bounds. */
export class Recorder extends Emitter<RecorderEvents> {
  readonly #options: Required<InspectOptions>
  /** By their id, in the order in which they began. */
  readonly #kept = new Map<number, Recording>()
  #cost = 0
  #finished = 0
  #isClosed = false
  /** Who waits for the next to end. */
  readonly #waiting: (() => void)[] = []

  constructor(options: Required<InspectOptions>) {
    super()
    this.#options = options
    // Pages and readers, as many as there are.
    this.setMaxListeners(0)
  }

  /** The requests that are kept, the oldest first, also those that go on. */
  get all(): readonly RecordedRequest[] {
    return [...this.#kept.values()]
  }

  find(id: number): RecordedRequest | undefined {
    return this.#kept.get(id)
  }

  begin(origin: Origin, head: RequestHead): Recording {
    const request = new Recording(origin, head, this.#options.maxBodySize)
    this.#kept.set(request.id, request)
    this.#cost += request.cost
    this.#makeRoom()
    this.tell('change', request)
    return request
  }

  answer(request: Recording, head: ResponseHead): void {
    this.#grow(request, () => request.answer(head))
    if (!this.#kept.has(request.id)) request.strip()
    this.tell('change', request)
  }

  append(request: Recording, part: 'body' | 'responseBody', piece: Buffer): void {
    this.#grow(request, () => request[part].append(piece))
  }

  finish(request: Recording, state: 'complete' | 'aborted'): void {
    if (request.state !== 'open') return
    this.#finished++
    request.finish(state, this.#finished)
    this.tell('change', request)
    this.tell('request', request)
    this.#wakeAll()
  }

  clear(): void {
    for (const request of this.#kept.values()) this.#drop(request)
    this.tell('clear')
  }

  /** Nothing more will come. */
  close(): void {
    this.#isClosed = true
    this.#wakeAll()
  }

  /**
   * Those that have ended, in that order, and those that will; until the tunnel is closed. No generator: it would not be left before
   * the next request comes, where somebody waits for that.
   */
  [Symbol.asyncIterator](): AsyncIterator<RecordedRequest, void> {
    let [last, isLeft] = [0, false]
    return {
      next: async () => {
        while (!isLeft) {
          const value = this.#finishedBehind(last)
          if (value) {
            last = value.finishedAs
            return { value, done: false }
          }
          if (this.#isClosed) break
          await new Promise<void>((resolve) => this.#waiting.push(resolve))
        }
        return { value: undefined, done: true }
      },
      return: async () => {
        isLeft = true
        this.#wakeAll()
        return { value: undefined, done: true }
      },
    }
  }

  #finishedBehind(last: number): Recording | undefined {
    let next: Recording | undefined
    for (const request of this.#kept.values()) {
      const { finishedAs } = request
      if (finishedAs > last && finishedAs < (next?.finishedAs ?? Number.POSITIVE_INFINITY)) next = request
    }
    return next
  }

  #wakeAll(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  #grow(request: Recording, change: () => void): void {
    const before = request.cost
    change()
    if (!this.#kept.has(request.id)) return
    this.#cost += request.cost - before
    this.#makeRoom()
  }

  #makeRoom(): void {
    for (const oldest of this.#kept.values()) {
      if (this.#cost <= MAX_COST && this.#kept.size <= this.#options.maxRequests) break
      this.#drop(oldest)
      this.tell('drop', oldest)
    }
  }

  #drop(request: Recording): void {
    this.#kept.delete(request.id)
    this.#cost -= request.cost
    // Whoever holds one that has ended keeps it as it is.
    if (request.state === 'open') request.strip()
  }
}
