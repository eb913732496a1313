import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net'

/** Most bytes that are read at once. More costs less for each, and is held by each socket whose sink stalls. */
const READ_SIZE = 131_072

/** Where all sockets read as long as that is not filled: so those that are idle hold no memory. */
let landing: Buffer | undefined

/** Memory that sockets have given back, for the next that need some, and how many pieces are kept. */
const spare: Buffer[] = []
const MAX_SPARE = 8

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
  const shared = landing
  let memory = shared
  inside[fields.buffer] = memory
  // Asked after each read for where the next one goes.
  inside[fields.generate] = () => memory
  inside[fields.callback] = (length: number) => {
    const bytes = memory.subarray(0, length)
    const isDone = onChunk(memory === shared ? Buffer.from(bytes) : bytes)
    // What fills the memory has more behind it, and is worth memory of its own. Less may be the last for a long time.
    const isFull = length === READ_SIZE
    if (isFull && memory === shared) {
      memory = spare.pop() ?? Buffer.allocUnsafeSlow(READ_SIZE)
    } else if (!isFull && memory !== shared) {
      if (isDone && spare.length < MAX_SPARE) spare.push(memory)
      memory = shared
    }
    return isDone
  }
  handle.useUserBuffer(memory)
  socket.resume()
  return true
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
