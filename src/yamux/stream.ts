import { Duplex } from 'node:stream'
import type { Batch } from './batch.js'
import { Crumbs } from './crumbs.js'
import { YamuxError } from './errors.js'
import { Flag, INITIAL_WINDOW, MAX_UINT32, Type } from './frame.js'
import { ReceiveWindow, type Windows } from './receive-window.js'
import { type Done, SendQueue } from './send-queue.js'
import type { Sendable, Sender } from './sender.js'

/** The longest frame, which is also a stream's turn. Longer ones would hold up the other streams, shorter ones cost more. */
const TURN = 65_536

/** A chunk that is smaller than this part of the memory it lies in is copied: whoever keeps it would keep all of that. */
const MIN_SHARE = 1 / 8

/**
 * A chunk of fewer bytes, behind others that nobody has read, is gathered with its like: a peer that sends bytes one by one could make each
 * window take forty times its size.
 */
const CRUMB = 1_024

const options = { readableHighWaterMark: 65_536, writableHighWaterMark: 65_536 }

/** What a stream has from its session. */
export interface StreamContext {
  readonly sender: Sender
  readonly windows: Windows
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
  /** Small chunks behind those that wait to be read. */
  readonly #crumbs = new Crumbs()
  #isSweeping = false
  /** Whether more was asked for than has been pushed since. */
  #isAsked = false
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

  /** @internal Bytes have come. */
  receive(bytes: Buffer): void {
    if (this.destroyed) return
    if (this.#peerHas === 'ended') {
      this.destroy(new YamuxError('protocol-violation', 'the peer sent data behind the end of the stream'))
      return
    }
    this.#window.received(bytes.length)
    if (bytes.length < CRUMB && this.#unread > 0) {
      this.#crumbs.add(bytes)
      this.#sweepSoon()
    } else {
      this.#sweep()
      const isSmall = bytes.length < bytes.buffer.byteLength * MIN_SHARE
      this.#push(isSmall ? Buffer.from(bytes) : bytes)
    }
  }

  /** @internal The peer has ended its direction. */
  receiveEnd(): void {
    if (this.#peerHas !== 'open' || this.destroyed) return
    this.#peerHas = 'ended'
    this.#sweep()
    this.#push(null)
    // Its end is seen also by who reads nothing, where there is nothing to read.
    this.read(0)
  }

  /** @internal The peer has reset the stream. */
  receiveReset(): void {
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
  send(batch: Batch): boolean {
    const { id } = this
    const length = Math.min(this.#queue.left, this.#credit, TURN)
    const ends = this.#isLast(length)
    if (length > 0) {
      batch.addHeader({ type: Type.data, flags: this.#greeting(), id, length })
      this.#queue.moveTo(batch, length)
      this.#credit -= length
    }
    const grant = this.#peerHas === 'open' ? this.#window.grant(this.#unread) : 0
    // The end has a frame of its own: with data in the same one, hashicorp's reader may see the end first, and stop there.
    const flags = this.#greeting() | (ends ? Flag.fin : 0)
    if (grant > 0 || flags > 0) batch.addHeader({ type: Type.windowUpdate, flags, id, length: grant })
    if (ends) this.#endOnSent()
    return this.#queue.left > 0 && this.#credit > 0
  }

  /** Data come unasked. But Node is about to hand on what waits here, and when our turn comes there may be more to grant. */
  override _read(): void {
    this.#isAsked = true
    this.#sweep()
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

  /** Bytes that nobody has read. */
  get #unread(): number {
    return this.readableLength + this.#crumbs.length
  }

  /** What came in one turn goes on together, where it is asked for; the rest waits until it is. */
  #sweepSoon(): void {
    if (!this.#isAsked || this.#isSweeping) return
    this.#isSweeping = true
    process.nextTick(() => {
      this.#isSweeping = false
      this.#sweep()
    })
  }

  #sweep(): void {
    if (this.#crumbs.length > 0 && !this.destroyed) this.#push(this.#crumbs.take())
  }

  /** A listener that throws has a bug, which surfaces behind our own work: there may be frames of other streams in the same chunk. */
  #push(bytes: Buffer | null): void {
    this.#isAsked = false
    try {
      this.push(bytes)
    } catch (error) {
      process.nextTick(() => {
        throw error
      })
    }
  }
}

/** Without a listener it would be thrown. */
function streamOnError() {}
