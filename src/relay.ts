import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { isSystemError, TunnelError } from './errors.js'

/** How long a relay lives on in silence once one side has finished sending, in milliseconds. */
const HALF_CLOSE_TIMEOUT = 300_000

const NOTHING = Buffer.alloc(0)

/** How a relay went. */
export interface RelayEnd {
  /** Bytes from the first stream to the second, as handed on. */
  bytesIn: number
  /** Bytes from the second stream to the first. */
  bytesOut: number
  /** Why it was cut, where it did not simply finish. */
  error?: Error
}

/**
 * Copies both ways between two byte streams and owns them from now on. Each direction ends by itself: a FIN
 * on one side becomes a FIN on the other while the reply goes on. A stream that can't keep up stops the one
 * that feeds it. A stream that breaks resets the other. Resolves when both are closed, and never rejects.
 *
 * A pair of which one direction has ended is cut after `halfCloseTimeout` milliseconds of silence, because
 * nothing else would end it where the peer never answers.
 */
export function relay(
  first: Duplex,
  second: Duplex,
  halfCloseTimeout = HALF_CLOSE_TIMEOUT,
): Promise<RelayEnd> {
  return new Promise((resolve) => {
    let error: Error | undefined
    let silence: NodeJS.Timeout | undefined
    let open = 2

    const sides = [openSide(first), openSide(second)] as const
    const bytesIn = copy(sides[0], sides[1], onBytes, onEnd)
    const bytesOut = copy(sides[1], sides[0], onBytes, onEnd)
    whenClosed(first, () => onClosed(first, second))
    whenClosed(second, () => onClosed(second, first))

    function onBytes() {
      silence?.refresh()
    }

    function onEnd() {
      silence ??= setTimeout(silenceOnTimeout, halfCloseTimeout).unref()
    }

    function silenceOnTimeout() {
      error ??= new TunnelError('timeout', `half-closed and silent for ${halfCloseTimeout} ms`)
      reset(first)
      reset(second)
    }

    function onClosed(closed: Duplex, other: Duplex) {
      // Finished is: all was read from it, and all that was written to it has left.
      const finished = closed.readableEnded && closed.writableFinished && !closed.errored
      if (!finished) {
        error ??= closed.errored ?? new TunnelError('closed', 'the connection was cut')
        reset(other)
      }
      open--
      if (open > 0) return
      clearTimeout(silence)
      resolve({ bytesIn: bytesIn(), bytesOut: bytesOut(), ...(error && { error }) })
    }
  })
}

/** A stream of a relay. */
interface Side {
  stream: Duplex
  /** Why it takes no more bytes, while it may still have some to give. */
  writeError?: Error
}

/**
 * Makes a write that fails end its own direction alone. Node would destroy the whole socket, and the answer that
 * is still unread in the kernel would go with it: that of a server which refuses an upload before it has
 * come in full.
 */
function openSide(stream: Duplex): Side {
  const side: Side = { stream }
  // An error is not lost: `close` always follows, and finds it in `errored`.
  stream.on('error', () => {})
  if (stream instanceof Socket) {
    const note = (done: Done) => (error?: Error | null) => {
      const isReset = isSystemError(error, 'EPIPE') || isSystemError(error, 'ECONNRESET')
      const mayGiveMore = isReset && !stream.readableEnded
      if (mayGiveMore) side.writeError ??= error
      done(mayGiveMore ? null : error)
    }
    const { _write, _writev } = stream
    stream._write = (chunk, encoding, done) => _write.call(stream, chunk, encoding, note(done))
    if (_writev) stream._writev = (chunks, done) => _writev.call(stream, chunks, note(done))
  }
  return side
}

type Done = (error?: Error | null) => void

/** One direction. Gives back a function that tells the bytes so far. */
function copy(from: Side, to: Side, onBytes: () => void, onEnd: () => void): () => number {
  const source = from.stream
  const sink = to.stream
  let bytes = 0
  source.on('data', sourceOnData)
  // A FIN behind nothing may have been seen already, while the stream waited to be joined.
  if (source.readableEnded) sourceOnEnd()
  else source.on('end', sourceOnEnd)
  sink.on('drain', sinkOnDrain)
  source.resume()

  function sourceOnData(chunk: Buffer) {
    bytes += chunk.length
    onBytes()
    if (!sink.write(chunk)) source.pause()
  }

  function sinkOnDrain() {
    source.resume()
  }

  /**
   * A reset that comes behind unread bytes looks like an end to Node (libuv: POLLHUP after a partial read), and a
   * truncated request would look complete. A write, even of nothing, tells the two apart.
   */
  function sourceOnEnd() {
    onEnd()
    if (source.writable && source.writableLength === 0) source.write(NOTHING, sourceOnWritten)
    else sourceOnWritten()
  }

  function sourceOnWritten() {
    if (from.writeError) source.destroy(from.writeError)
    else sink.end()
  }

  return () => bytes
}

function whenClosed(stream: Duplex, onClose: () => void): void {
  if (stream.closed) onClose()
  else stream.once('close', onClose)
}

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
