import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { isSystemError } from './errors.js'

/**
 * Makes a write that fails end its own direction alone. Node would destroy the whole socket, and the answer that
 * is still unread in the kernel would go with it: that of a server which refuses an upload before it has
 * come in full. Gives back a function that tells why the stream takes no more bytes.
 */
export function keepReading(stream: Duplex): () => Error | undefined {
  let writeError: Error | undefined
  if (stream instanceof Socket) {
    const note = (done: Done) => (error?: Error | null) => {
      const isReset = isSystemError(error, 'EPIPE') || isSystemError(error, 'ECONNRESET')
      const mayGiveMore = isReset && !stream.readableEnded
      if (mayGiveMore) writeError ??= error
      done(mayGiveMore ? null : error)
    }
    const { _write, _writev } = stream
    stream._write = (chunk, encoding, done) => _write.call(stream, chunk, encoding, note(done))
    if (_writev) stream._writev = (chunks, done) => _writev.call(stream, chunks, note(done))
  }
  return () => writeError
}

type Done = (error?: Error | null) => void

/** Cuts a stream so that its peer can't take it for finished: by a reset where it has one. */
export function reset(stream: Duplex): void {
  if (stream.destroyed) return
  if (!(stream instanceof Socket) || stream.connecting) {
    stream.destroy()
  } else if (stream.writableEnded && !stream.writableFinished && stream.writableLength === 0) {
    // Node can't reset a socket whose FIN is just being sent, and would never close it: one turn later it can.
    stream.once('finish', () => reset(stream))
  } else {
    try {
      stream.resetAndDestroy()
    } catch {
      // Only TCP sockets have a reset: on a pipe or a unix socket the call throws.
      stream.destroy()
    }
  }
}

/** Whether what looks like the end of this stream may be a reset. A unix socket has none, and neither has a flow. */
export function mayHideReset(stream: Duplex): boolean {
  return stream instanceof Socket && stream.localAddress !== undefined
}

/** Calls back when the stream is closed, also where it is already. */
export function whenClosed(stream: Duplex, onClose: () => void): void {
  if (stream.closed) onClose()
  else stream.once('close', onClose)
}
