import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net'

/** Most bytes that are read at once. More costs less for each; memory that is never filled is never real. */
const READ_SIZE = 524_288

/** Where sockets read as long as little comes at a time, and copy it: so those that are idle hold no memory. */
let landing: Buffer | undefined

/** A read of so many bytes costs more to copy than memory of its own does. */
const LARGE = 32_768

/** Sockets that have memory of their own, and how many may: one that falls silent behind a large read keeps it until it is closed. */
let owners = 0
const MAX_OWNERS = 32

/** Memory that sockets have given back, for the next that need some, and how many pieces are kept. */
const spare: Buffer[] = []
const MAX_SPARE = 4

/**
 * Reads a socket into memory that is used again and again, and gives back whether this Node lets it. Otherwise each chunk
 * gets memory of its own, which takes more time. Nobody else may read from the socket from now on; all else about it is as before.
 *
 * `onChunk` gives back whether it is done with the chunk, whose memory the next read overwrites. Where it is not, reading stops
 * until somebody calls `resume()`.
 */
export function readReused(socket: Socket, onChunk: (chunk: Buffer) => boolean): boolean {
  if (fields === undefined) fields = findFields()
  const inside = socket as unknown as Inside
  const handle = inside._handle
  if (!fields || !handle?.useUserBuffer) return false

  // What was read before goes first. Its memory is its own, so that nothing has to stop for it.
  for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) onChunk(chunk)
  landing ??= Buffer.allocUnsafeSlow(READ_SIZE)
  const memory = new ReadMemory(landing)
  inside[fields.buffer] = memory.current
  // Asked after each read for where the next one goes.
  inside[fields.generate] = () => memory.current
  inside[fields.callback] = (length: number) => memory.handOn(length, socket, onChunk)
  handle.useUserBuffer(memory.current)
  socket.resume()
  return true
}

/** Where one socket reads: what is shared by all, or memory of its own as long as much comes at a time. */
class ReadMemory {
  current: Buffer
  readonly #shared: Buffer
  /** Whether nobody uses any more what was read last. */
  #isDone = true
  #isWatched = false

  constructor(shared: Buffer) {
    this.current = shared
    this.#shared = shared
  }

  /** So many bytes have come. */
  handOn(length: number, socket: Socket, onChunk: (chunk: Buffer) => boolean): boolean {
    const bytes = this.current.subarray(0, length)
    this.#isDone = onChunk(this.#isOwn ? bytes : Buffer.from(bytes))
    if (length < LARGE) this.#giveBack()
    else if (!this.#isOwn && owners < MAX_OWNERS) this.#own(socket)
    return this.#isDone
  }

  get #isOwn(): boolean {
    return this.current !== this.#shared
  }

  #own(socket: Socket): void {
    owners++
    this.current = spare.pop() ?? Buffer.allocUnsafeSlow(READ_SIZE)
    if (!this.#isWatched) socket.once('close', () => this.#giveBack())
    this.#isWatched = true
  }

  #giveBack(): void {
    if (!this.#isOwn) return
    owners--
    if (this.#isDone && spare.length < MAX_SPARE) spare.push(this.current)
    this.current = this.#shared
  }
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
