import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { carrierOf } from './encryption.js'
import { isSystemError } from './errors.js'

export const NOTHING = Buffer.alloc(0)

/** How long a socket that is to be reset may wait for its own FIN to leave, in milliseconds: one turn is enough, mostly. */
const FIN_TIMEOUT = 1_000

/** Why a stream takes no more bytes, once it does not. */
export interface WriteFailure {
  readonly stream: Duplex
  error: Error | undefined
}

/**
 * Makes a write that fails end its own direction alone, and tells why it did. Node would destroy the whole socket, and the answer that
 * is still unread in the kernel would go with it: that of a server which refuses an upload before it has
 * come in full.
 */
export function keepReading(stream: Duplex): WriteFailure {
  const failure: WriteFailure = { stream, error: undefined }
  for (const one of [stream, carrierOf(stream)]) {
    // The functions are the same for all sockets: those of each would take more memory than all else that the relay keeps of it.
    if (one instanceof Socket)
      Object.assign(one, { [FAILURE]: failure, _write: write, _writev: one._writev && writev })
  }
  return failure
}

const FAILURE = Symbol('failure')

type Forgiving = Socket & { [FAILURE]: WriteFailure }

function write(this: Forgiving, chunk: unknown, encoding: BufferEncoding, done: Done) {
  Socket.prototype._write.call(this, chunk, encoding, forgiving(this[FAILURE], done))
}

function writev(this: Forgiving, chunks: { chunk: unknown; encoding: BufferEncoding }[], done: Done) {
  Socket.prototype._writev?.call(this, chunks, forgiving(this[FAILURE], done))
}

/** A write is over: an error is put aside where the stream may have more to give. */
function forgiving(failure: WriteFailure, done: Done): Done {
  return (error) => {
    const isReset = isSystemError(error, 'EPIPE') || isSystemError(error, 'ECONNRESET')
    const mayGiveMore = isReset && !failure.stream.readableEnded
    if (mayGiveMore) failure.error ??= error
    done(mayGiveMore ? null : error)
  }
}

type Done = (error?: Error | null) => void

/** Cuts a stream so that its peer can't take it for finished: by a reset where it has one. */
export function reset(stream: Duplex): void {
  const socket = carrierOf(stream)
  if (stream.destroyed || socket.destroyed) return
  if (!(socket instanceof Socket) || socket.connecting) {
    stream.destroy()
  } else if (stream.writableEnded && !stream.writableFinished && stream.writableLength === 0) {
    // Node can't reset a socket whose FIN is just being sent, and would never close it: one turn later it can. The end of
    // TLS comes before the FIN, and may have to wait for a peer that does not read; all else has left by then.
    const timer = setTimeout(() => stream.destroy(), FIN_TIMEOUT).unref()
    stream.once('close', () => clearTimeout(timer))
    stream.once('finish', () => reset(stream))
  } else {
    try {
      socket.resetAndDestroy()
    } catch {
      // Only TCP sockets have a reset: on a pipe or a unix socket the call throws.
      stream.destroy()
    }
  }
}

/**
 * Calls back once it is sure whether what looked like the end of this stream was one; with the error, where it was not. A
 * reset that comes behind unread bytes looks like an end to Node (libuv: POLLHUP after a partial read), and a truncated
 * request would look complete. A write, even of nothing, tells the two apart; it goes to the socket itself, because TLS
 * keeps its failure to itself. A unix socket has no reset, and neither has a flow.
 */
export function probeEnd(stream: Duplex, done: (error?: Error | null) => void): void {
  const socket = carrierOf(stream)
  const isIdle = stream.writable && stream.writableLength === 0 && socket.writable
  if (isIdle && socket instanceof Socket && socket.localAddress !== undefined) socket.write(NOTHING, done)
  else done()
}

/** Calls back when the stream is closed, also where it is already. */
export function whenClosed(stream: Duplex, onClose: () => void): void {
  if (stream.closed) onClose()
  // It comes but once, and what `once` keeps for it would be there as long as the stream.
  else stream.on('close', onClose)
}

/** Whether a stream that is closed has finished: all was read from it, and all that was written to it has left. */
export function hasFinished(stream: Duplex): boolean {
  return stream.readableEnded && stream.writableFinished && !stream.errored
}
