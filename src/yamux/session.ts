import type { Duplex } from 'node:stream'
import { readReused, type Taker, type Verdict } from '../socket-reader.js'
import { surface, YamuxError } from './errors.js'
import { Flag, FrameDecoder, GoAway, type Header, MAX_UINT32, Type } from './frame.js'
import { Loan } from './loan.js'
import { Pings } from './pings.js'
import { Windows } from './receive-window.js'
import { Receiver } from './receiver.js'
import { Sender } from './sender.js'
import { type StreamContext, YamuxStream } from './stream.js'
import { type Role, StreamTable } from './stream-table.js'

/** How long the peer may take to read the last frames and to end the link, in milliseconds. */
const LINGER = 1_000

export interface YamuxOptions {
  /** Which of both ends this is. */
  role: Role
  /** Takes a stream that the peer has opened. Default: they are all refused. */
  onStream?(stream: YamuxStream): void
  /** Is told of what comes over the link before it is looked at. The memory is used again. */
  onBytes?(bytes: Buffer): void
  /** Streams that the peer may have open at a time; more are reset at once. Default 4,096. */
  maxStreams?: number
  /** Streams of ours that may wait to be accepted by the peer; more wait here. Default 256, as everywhere. */
  acceptBacklog?: number
  /** Bytes that one stream's window may grow to. Default 16 MiB. */
  maxWindow?: number
  /** Bytes by which all windows together may grow. Default 64 MiB. */
  maxGrowth?: number
}

/** What is left of a session. */
type State =
  | { name: 'open' }
  /** No new streams; those that are there may finish, until the timer says that it was long enough. */
  | { name: 'closing'; timer: NodeJS.Timeout }
  /** Its streams are gone, and the link is given until the timer to go as well. */
  | { name: 'ended'; reason: Error | undefined; timer: NodeJS.Timeout }

/** Many streams over one link, which the session owns: it ends with it. */
export class YamuxSession implements Taker {
  /** Resolves when the link is closed: with the reason, where neither side has closed the session. */
  readonly closed: Promise<Error | undefined>
  readonly #link: Duplex
  readonly #onStream: ((stream: YamuxStream) => void) | undefined
  readonly #onBytes: ((bytes: Buffer) => void) | undefined
  readonly #streams: StreamTable
  readonly #sender: Sender
  readonly #pings: Pings
  readonly #context: StreamContext
  readonly #loan = new Loan()
  readonly #decoder: FrameDecoder
  #state: State = { name: 'open' }
  /** Whether the peer wants no more streams. */
  #isPeerClosing = false

  constructor(link: Duplex, options: YamuxOptions) {
    const { role, onStream, onBytes, maxStreams = 4_096, acceptBacklog = 256 } = options
    const { maxWindow = 16_777_216, maxGrowth = 67_108_864 } = options
    this.#link = link
    this.#onStream = onStream
    this.#onBytes = onBytes
    this.#streams = new StreamTable(role, { maxStreams, acceptBacklog })
    this.#sender = new Sender(link, () => this.#violation('the peer asks for answers and does not read them'))
    this.#pings = new Pings((frame) => this.#sender.send(frame))
    const windows = new Windows({ maxWindow, maxGrowth, pings: this.#pings })
    this.#context = {
      sender: this.#sender,
      windows,
      loan: this.#loan,
      onGone: (stream) => this.#streamOnGone(stream),
    }
    const receiver = new Receiver({
      streams: this.#streams,
      sender: this.#sender,
      pings: this.#pings,
      maxWindow: windows.maxWindow,
      accept: (id) => this.#accept(id),
      onGoAway: (code) => this.#goAwayOnReceived(code),
      onViolation: (reason) => this.#violation(reason),
    })
    this.#decoder = new FrameDecoder(receiver)
    this.closed = new Promise((resolve) => {
      const linkOnClose = () => resolve(this.#linkOnClose())
      link.on('error', linkOnError)
      // It may have ended while it had another owner.
      if (link.readableEnded) this.#linkOnEnd()
      else link.on('end', () => this.#linkOnEnd())
      if (link.closed) linkOnClose()
      else link.on('close', linkOnClose)
    })
    // Not at once: `onStream` may need the session that its caller is still waiting for.
    process.nextTick(() => this.#readLink())
    this.#pings.measure()
  }

  get streamCount(): number {
    return this.#streams.size
  }

  /** The shortest round trip that was measured, in milliseconds. */
  get roundTrip(): number | undefined {
    return this.#pings.roundTrip
  }

  /** A new stream, which can be written to at once. Where none can be opened, it is destroyed with the reason. */
  open(): YamuxStream {
    const stream = new YamuxStream(this.#streams.nextId(), 'held', this.#context)
    const refusal = this.#refusal(stream.id)
    if (refusal) stream.destroy(refusal)
    else this.#streams.open(stream)
    return stream
  }

  /** Resolves with a round trip in milliseconds. Rejects where it takes longer than the timeout, or the session ends. */
  ping(timeout: number): Promise<number> {
    if (this.#state.name === 'ended') return Promise.reject(sessionClosed(this.#state.reason))
    return this.#pings.ping(timeout)
  }

  /**
   * Opens and accepts no more streams, and lets those that are there finish, for so many milliseconds at the most. Resolves
   * when the link is closed.
   */
  async close(timeout: number): Promise<void> {
    if (this.#state.name === 'open') {
      this.#sender.send(goAway(GoAway.normal))
      const timer = setTimeout(() => this.#end(undefined), timeout).unref()
      this.#state = { name: 'closing', timer }
      if (this.#streams.size === 0) this.#end(undefined)
    }
    await this.closed
  }

  /** Ends session and link at once. The streams are destroyed with the reason. */
  destroy(reason?: Error): void {
    this.#end(reason)
    this.#link.destroy()
  }

  /** @internal Bytes have come over the link. */
  take(chunks: Buffer[], isReused: boolean): Verdict {
    const isKept = this.#loan.during(isReused, () => {
      for (const chunk of chunks) {
        this.#onBytes?.(chunk)
        this.#decoder.decode(chunk)
      }
    })
    return isKept ? 'keep' : 'done'
  }

  #readLink(): void {
    const link = this.#link
    if (readReused(link, this)) return
    link.on('data', (chunk: Buffer) => this.take([chunk], false))
    link.resume()
  }

  /** Why no stream of this number can be opened. */
  #refusal(id: number): Error | undefined {
    if (this.#state.name === 'ended') return sessionClosed(this.#state.reason)
    if (this.#state.name === 'closing') return sessionClosed()
    if (this.#isPeerClosing) return new YamuxError('session-closed', 'the peer takes no more streams')
    if (id > MAX_UINT32) return new YamuxError('session-closed', 'all numbers for streams were used')
    return undefined
  }

  /** The peer opens a stream. */
  #accept(id: number): void {
    if (!this.#onStream || this.#state.name !== 'open' || !this.#streams.hasRoom) {
      this.#sender.send({ type: Type.windowUpdate, flags: Flag.rst, id, length: 0 })
      return
    }
    const stream = new YamuxStream(id, 'ack', this.#context)
    this.#streams.accept(stream)
    try {
      this.#onStream(stream)
    } catch (error) {
      surface(error)
    }
  }

  #goAwayOnReceived(code: number): void {
    if (code === GoAway.normal) {
      this.#isPeerClosing = true
    } else if (code === GoAway.protocolError) {
      this.#end(new YamuxError('protocol-violation', 'the peer says that we broke the protocol'))
    } else {
      this.#end(new YamuxError('link-lost', `the peer gave up for an error of its own (${code})`))
    }
  }

  #streamOnGone(stream: YamuxStream): void {
    this.#streams.delete(stream)
    if (this.#state.name === 'closing' && this.#streams.size === 0) this.#end(undefined)
  }

  #violation(reason: string): void {
    this.#end(new YamuxError('protocol-violation', reason), goAway(GoAway.protocolError))
  }

  #linkOnEnd(): void {
    const isExpected = this.#decoder.isBetween && (this.#isPeerClosing || this.#state.name === 'closing')
    const where = this.#decoder.isBetween ? '' : ' in the middle of a frame'
    this.#end(isExpected ? undefined : new YamuxError('link-lost', `the peer ended the link${where}`))
  }

  #linkOnClose(): Error | undefined {
    const { errored } = this.#link
    const cause = errored ? { cause: errored } : {}
    const words = errored ? `the link broke (${errored.message})` : 'the link was cut'
    this.#end(new YamuxError('link-lost', words, cause))
    if (this.#state.name !== 'ended') return undefined
    clearTimeout(this.#state.timer)
    return this.#state.reason
  }

  /** Nothing comes in any more, not even what was lent in front of what ends it, and these frames are the last to go out, behind those of the session that wait. */
  #end(reason: Error | undefined, ...last: Header[]): void {
    if (this.#state.name === 'ended') return
    if (this.#state.name === 'closing') clearTimeout(this.#state.timer)
    const timer = setTimeout(() => this.#link.destroy(), LINGER).unref()
    this.#state = { name: 'ended', reason, timer }
    this.#decoder.stop()
    this.#pings.end(sessionClosed(reason))
    this.#streams.destroyAll(sessionClosed(reason))
    this.#sender.finish(last)
    this.#link.end()
  }
}

/** What is wrong with the link is told by `close`, which always follows. */
function linkOnError() {}

function sessionClosed(reason?: Error): Error {
  return reason ?? new YamuxError('session-closed', 'the session was closed')
}

function goAway(code: number): Header {
  return { type: Type.goAway, flags: 0, id: 0, length: code }
}
