import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net'
import type { Readable } from 'node:stream'

/** Where sockets read as long as little comes at a time, and copy it: so those that are idle hold no memory. */
let shared: Buffer | undefined
const SHARED_SIZE = 65_536

/** Memory of one socket alone, of which nothing is copied: larger reads cost less for each byte. */
const OWN_SIZE = 262_144

/** A read of so many bytes costs more to copy than memory of its own does. */
const LARGE = 32_768

/** Sockets that have memory of their own, and how many may: one that falls silent behind a large read keeps it until it is closed. */
let owners = 0
const MAX_OWNERS = 32

/** Memory that sockets have given back, for the next that need some, and how many pieces are kept. */
const spare: Buffer[] = []
const MAX_SPARE = 4

/**
 * Reads a socket into memory that is used again and again, and gives back whether it does: not where it is no socket, encrypts, or this Node has no way.
 * Otherwise each chunk gets memory of its own, which takes more time. Nobody else may read from the socket from now on; all else
 * about it is as before.
 */
export function readReused(socket: Readable, taker: Taker): boolean {
  if (!isPlainSocket(socket)) return false
  if (fields === undefined) fields = findFields()
  const inside = socket as unknown as Inside
  const handle = inside._handle
  if (!fields || !handle?.useUserBuffer) return false

  // What was read before goes first. Its memory is its own, so that nothing has to stop for it.
  for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) taker.take([chunk], false)
  shared ??= Buffer.allocUnsafeSlow(SHARED_SIZE)
  Object.assign(inside, {
    [MEMORY]: new ReadMemory(socket, taker, shared),
    [fields.buffer]: shared,
    [fields.callback]: socketOnRead,
    [fields.generate]: nextMemory,
  })
  handle.useUserBuffer(shared)
  socket.resume()
  return true
}

/** Whether the bytes of this stream are just those of a socket: that of TLS is one too, and says that it encrypts. */
export function isPlainSocket(stream: unknown): stream is Socket {
  return stream instanceof Socket && !('encrypted' in stream)
}

export interface Taker {
  /**
   * Takes what came in one read, and tells what is to become of its memory. Where that is reused, the next read overwrites it, unless the verdict is that somebody
   * needs it.
   */
  take(chunks: Buffer[], isReused: boolean): Verdict
}

export type Verdict =
  /** Nobody needs it any more. Go on. */
  | 'done'
  /** Go on when somebody calls `resume()`: nobody will need it then. Who can't stop reading takes it for kept. */
  | 'wait'
  /** Somebody keeps it. Go on, and read into other memory. */
  | 'keep'

/** Where a socket keeps what it reads into. */
const MEMORY = Symbol('memory')

/** Where the socket that was read last goes on to read: Node asks right behind its callback. */
let next: Buffer

function nextMemory(): Buffer {
  return next
}

/** The functions are the same for all sockets: those of each would be a good part of what an idle one takes. */
function socketOnRead(this: Socket & { [MEMORY]: ReadMemory }, length: number): boolean {
  const memory = this[MEMORY]
  const mayGoOn = memory.handOn(length)
  next = memory.current
  return mayGoOn
}

/** Where one socket reads: what is shared by all, or memory of its own as long as much comes at a time. */
class ReadMemory {
  current: Buffer
  readonly #socket: Socket
  readonly #taker: Taker
  /** Whether it is the socket's own. */
  #isOwn = false
  /** What became of what was read last. */
  #verdict: Verdict = 'done'
  #isWatched = false

  constructor(socket: Socket, taker: Taker, shared: Buffer) {
    this.current = shared
    this.#socket = socket
    this.#taker = taker
  }

  /** So many bytes have come; tells whether to read on. */
  handOn(length: number): boolean {
    const bytes = this.current.subarray(0, length)
    this.#verdict = this.#taker.take([this.#isOwn ? bytes : Buffer.from(bytes)], this.#isOwn)
    if (length < LARGE) this.#giveBack()
    else if (this.#isOwn && this.#verdict === 'keep') this.current = takeMemory()
    else if (!this.#isOwn && owners < MAX_OWNERS && !this.#socket.destroyed) this.#own()
    return this.#verdict !== 'wait'
  }

  #own(): void {
    owners++
    this.#isOwn = true
    this.current = takeMemory()
    if (!this.#isWatched) this.#socket.once('close', () => this.#giveBack())
    this.#isWatched = true
  }

  #giveBack(): void {
    if (!this.#isOwn) return
    owners--
    this.#isOwn = false
    if (this.#verdict === 'done' && spare.length < MAX_SPARE) spare.push(this.current)
    this.current = shared as Buffer
  }
}

function takeMemory(): Buffer {
  return spare.pop() ?? Buffer.allocUnsafeSlow(OWN_SIZE)
}

/** The names under which a socket keeps its option `onread`. */
interface Fields {
  buffer: symbol
  generate: symbol
  callback: symbol
}

/** A socket with what is private in it. */
type Inside = Record<symbol, unknown> & { _handle?: { useUserBuffer?(memory: Buffer): void } | null }

/** Null where this Node has others. */
let fields: Fields | null | undefined

/**
 * Node takes `onread` when it dials, and has no way to give it to a socket that was accepted, or was read from before. So it is
 * put where the constructor of a socket puts it, and where that is shows in a socket that was made with it.
 */
function findFields(): Fields | null {
  const memory = Buffer.alloc(1)
  const generator = () => memory
  const listener = () => true
  const buffer = fieldOf(memory, { buffer: memory, callback: listener })
  const generate = fieldOf(generator, { buffer: generator, callback: listener })
  const callback = fieldOf(listener, { buffer: memory, callback: listener })
  return buffer && generate && callback ? { buffer, generate, callback } : null
}

function fieldOf(value: unknown, onread: OnReadOpts): symbol | undefined {
  const socket = new Socket({ onread } as SocketConstructorOpts) as unknown as Inside
  return Object.getOwnPropertySymbols(socket).find((name) => socket[name] === value)
}
