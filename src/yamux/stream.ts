import { Duplex } from 'node:stream'
import type { Taker } from '../socket-reader.js'
import type { Batch } from './batch.js'
import { YamuxError } from './errors.js'
import { Flag, INITIAL_WINDOW, MAX_UINT32, Type } from './frame.js'
import { Inbox } from './inbox.js'
import type { Loan } from './loan.js'
import { ReceiveWindow, type Windows } from './receive-window.js'
import { type Done, SendQueue } from './send-queue.js'
import type { Sendable, Sender } from './sender.js'

const options = { readableHighWaterMark: 65_536, writableHighWaterMark: 65_536 }

/** What a stream has from its session. */
export interface StreamContext {
  readonly sender: Sender
  readonly windows: Windows
  /** What has come and is being looked through. */
  readonly loan: Loan
  /** The stream is gone. */
  onGone(stream: YamuxStream): void
}

/** Where this end of a stream is in opening it. */
type Opening =
  /** The peer has not been told of it, and must not be yet. */
  | 'held'
  /** The next frame tells the peer of it. */
  | 'syn'
  /** The next frame tells the peer that it is accepted. */
  | 'ack'
  | 'done'

/**
 * A stream of a session. It has the manners of a socket with `allowHalfOpen`: each direction ends by itself; one that is destroyed
 * before both have ended is reset, and its peer is destroyed with the error `ECONNRESET`.
 */
export class YamuxStream extends Duplex implements Sendable {
  readonly id: number
  readonly #context: StreamContext
  readonly #window: ReceiveWindow
  readonly #queue = new SendQueue()
  readonly #inbox: Inbox
  #opening: Opening
  /** Bytes that the peer lets us send. */
  #credit = INITIAL_WINDOW
  /** Our own end: whether it was asked for, and sent. */
  #end: 'open' | 'due' | 'sent' = 'open'
  #onEndSent: Done | undefined
  #peerHas: 'open' | 'ended' | 'reset' = 'open'

  /** @internal Streams come from a session. */
  constructor(id: number, opening: Opening, context: StreamContext) {
    super(options)
    this.id = id
    this.#opening = opening
    this.#context = context
    this.#window = new ReceiveWindow(context.windows)
    this.#inbox = new Inbox(this, context.loan)
    // The owner learns of an error by `close`, which always follows, and finds it in `errored`.
    this.on('error', streamOnError)
    this.#wake()
  }

  /** @internal The peer may be told of it. */
  admit(): void {
    this.#opening = 'syn'
    this.#wake()
  }

  /** @internal Whether the peer may send so many bytes now. */
  allows(bytes: number): boolean {
    return this.#window.allows(bytes)
  }

  /**
   * Hands on what comes in memory that the session uses again, to one who tells whether it is free. Nobody else may read from the stream from
   * now on; all else about it is as before.
   */
  readReused(taker: Taker): void {
    this.#inbox.lendTo(taker)
  }

  /** @internal Bytes have come. */
  receive(bytes: Buffer): void {
    if (this.destroyed) return
    if (this.#peerHas === 'ended') {
      this.destroy(new YamuxError('protocol-violation', 'the peer sent data behind the end of the stream'))
      return
    }
    this.#window.received(bytes.length)
    this.#inbox.add(bytes)
    // What is lent is read without being asked for.
    if (this.#window.isLow) this.#wake()
  }

  /** @internal The peer has ended its direction. */
  receiveEnd(): void {
    if (this.#peerHas !== 'open' || this.destroyed) return
    this.#peerHas = 'ended'
    this.#inbox.end()
  }

  /** @internal The peer has reset the stream. */
  receiveReset(): void {
    this.#inbox.handOn()
    this.#peerHas = 'reset'
    this.destroy(new YamuxError('ECONNRESET', 'the peer reset the stream'))
  }

  /** @internal The peer lets us send more; false where that is more than a window can be. */
  receiveCredit(bytes: number): boolean {
    this.#credit += bytes
    if (this.#queue.left > 0) this.#wake()
    return this.#credit <= MAX_UINT32
  }

  /** @internal Its turn to send has come. */
  send(batch: Batch, turn: number): boolean {
    const { id } = this
    const length = Math.min(this.#queue.left, this.#credit, turn)
    const ends = this.#isLast(length)
    if (length > 0) {
      batch.addHeader({ type: Type.data, flags: this.#greeting(), id, length })
      this.#queue.moveTo(batch, length)
      this.#credit -= length
    }
    const grant = this.#peerHas === 'open' ? this.#window.grant(this.#inbox.unread) : 0
    // The end has a frame of its own: with data in the same one, hashicorp's reader may see the end first, and stop there.
    const flags = this.#greeting() | (ends ? Flag.fin : 0)
    if (grant > 0 || flags > 0) batch.addHeader({ type: Type.windowUpdate, flags, id, length: grant })
    if (ends) this.#endOnSent()
    return this.#queue.left > 0 && this.#credit > 0
  }

  /** Data come unasked. But Node is about to hand on what waits here, and when our turn comes there may be more to grant. */
  override _read(): void {
    this.#inbox.ask()
    if (this.#peerHas === 'open' && this.#window.isLow) this.#wake()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#write([chunk], chunk.length, done)
  }

  override _writev(chunks: { chunk: Buffer }[], done: Done): void {
    let size = 0
    const buffers = chunks.map(({ chunk }) => {
      size += chunk.length
      return chunk
    })
    this.#write(buffers, size, done)
  }

  override _final(done: Done): void {
    if (this.#end === 'sent') {
      done()
    } else {
      this.#end = 'due'
      this.#onEndSent = done
      this.#wake()
    }
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const { sender } = this.#context
    sender.forget(this)
    const isKnown = this.#opening === 'ack' || this.#opening === 'done'
    const isOver = this.#peerHas === 'reset' || (this.#peerHas === 'ended' && this.#end === 'sent')
    if (isKnown && !isOver) sender.send({ type: Type.windowUpdate, flags: Flag.rst, id: this.id, length: 0 })
    this.#window.release()
    this.#queue.finish()
    this.#context.onGone(this)
    done(error)
  }

  #write(chunks: Buffer[], size: number, done: Done): void {
    this.#queue.fill(chunks, size, done)
    if (size === 0) this.#queue.finish()
    else if (this.#credit > 0) this.#wake()
  }

  /** Whether nothing follows behind so many bytes of the queue: the end goes with them, also where Node has not asked for it yet. */
  #isLast(length: number): boolean {
    if (this.#end === 'sent' || length < this.#queue.left) return false
    return this.#end === 'due' || (this.writableEnded && this.writableLength === this.#queue.size)
  }

  #greeting(): number {
    const flags = this.#opening === 'syn' ? Flag.syn : this.#opening === 'ack' ? Flag.ack : 0
    this.#opening = 'done'
    return flags
  }

  #endOnSent(): void {
    this.#end = 'sent'
    if (this.#onEndSent) process.nextTick(this.#onEndSent)
  }

  #wake(): void {
    if (this.#opening !== 'held' && !this.destroyed) this.#context.sender.schedule(this)
  }
}

/** Without a listener it would be thrown. */
function streamOnError() {}
