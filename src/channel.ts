import type { Duplex } from 'node:stream'
import { waitForEvent } from './deadline.js'
import { TunnelError } from './errors.js'
import {
  decode,
  decodeLength,
  encode,
  type FromClient,
  type FromServer,
  fromClient,
  fromServer,
  HEADER,
} from './protocol.js'
import { whenTurned } from './turn.js'
import { startWatchdog } from './watchdog.js'

/** Bytes that may wait for a peer that does not read its messages: 1 MiB is some 5,000 visitors. */
const MAX_QUEUED = 1_048_576

/** Bytes that may wait while there is room for many more messages that need not be sent at once. */
const ROOMY = MAX_QUEUED / 2

/** Bytes of messages that may wait for the end of the event loop's turn. */
const MAX_HELD = 16_384

/** How long the peer may take to read the last message and to end the connection, in milliseconds. */
export const LINGER = 1_000

/** The server's end of a connection, and the client's. */
export type ServerChannel = Channel<FromClient, FromServer>
export type ClientChannel = Channel<FromServer, FromClient>

export const serverChannel = (stream: Duplex): ServerChannel =>
  new Channel(stream, (json) => decode(json, fromClient))
export const clientChannel = (stream: Duplex): ClientChannel =>
  new Channel(stream, (json) => decode(json, fromServer))

/**
 * Messages over a byte stream. It takes exactly a message's bytes out of the stream, so that whatever
 * came behind it is still there for whoever gets the stream from {@link release}.
 *
 * Deadlines are the owner's, who ends a wait with {@link interrupt}.
 */
class Channel<In, Out extends FromClient | FromServer> {
  readonly stream: Duplex
  readonly #decode: (json: Buffer) => In
  /** The beginning of the next message, where somebody looked at it. */
  #header: Buffer | undefined
  #interruption: Error | undefined
  #hasLeft = false
  #wake = () => {}
  #heard = () => {}
  #drained: Promise<void> | undefined

  constructor(stream: Duplex, decodeOne: (json: Buffer) => In) {
    this.stream = stream
    this.#decode = decodeOne
    for (const event of ['readable', 'end', 'close']) stream.on(event, this.#streamOnChange)
  }

  /** Queues a message. A peer that lets too many pile up is dropped. */
  send(message: Out): void {
    if (!this.stream.writable) return
    if (this.stream.writableLength > MAX_QUEUED) {
      this.stream.destroy(new TunnelError('limit-reached', 'the peer does not read its messages'))
    } else {
      this.#hold()
      this.stream.write(encode(message))
    }
  }

  /** What is sent in one turn of the event loop goes out together, with what the stream's next owner writes in it. */
  #hold(): void {
    const { stream } = this
    const isHeld = stream.writableCorked > 0
    if (isHeld && stream.writableLength < MAX_HELD) return
    if (isHeld) stream.uncork()
    else whenTurned(() => stream.uncork())
    stream.cork()
  }

  /** Resolves when there is room for more messages, as the peer has read those before; with false, where there never will be. */
  async hasRoom(): Promise<boolean> {
    while (this.stream.writable && this.stream.writableLength > ROOMY) {
      // One wait for all who ask.
      this.#drained ??= waitForEvent(this.stream, ['drain', 'close'], undefined, []).finally(() => {
        this.#drained = undefined
      })
      await this.#drained
    }
    return this.stream.writable
  }

  /**
   * The next message, or undefined when the peer has ended the stream between two messages. Rejects with
   * `protocol-violation`, with `connection-lost`, or with the error of an interruption or of the stream.
   */
  async receive(): Promise<In | undefined> {
    for (;;) {
      const header = this.#header ?? this.#take(HEADER)
      if (header === undefined) return undefined
      this.#header = header ?? undefined
      const json = header && this.#take(decodeLength(header))
      if (json === undefined) throw cutOff()
      if (json) {
        this.#header = undefined
        return this.#decode(json)
      }
      await this.#change()
    }
  }

  /** The four bytes with which the next message begins, and which stay where they are; undefined at the end of the stream. */
  async peek(): Promise<Buffer | undefined> {
    while (!this.#header) {
      const header = this.#take(HEADER)
      if (header === undefined) return undefined
      if (header) this.#header = header
      else await this.#change()
    }
    return this.#header
  }

  /**
   * The messages until the peer ends the stream. Rejects as {@link receive} does, and with `connection-lost` when none
   * has come for `timeout` milliseconds, nor anything else of the peer been told by {@link hear}.
   */
  async *messages(timeout: number): AsyncGenerator<In, void> {
    const watchdog = startWatchdog(timeout, () => {
      this.interrupt(new TunnelError('connection-lost', `the peer was not heard for ${timeout} ms`))
    })
    this.#heard = watchdog.heard
    try {
      for (;;) {
        const message = await this.receive()
        if (!message) return
        watchdog.heard()
        yield message
      }
    } finally {
      watchdog.stop()
    }
  }

  /** Makes a waiting `receive` and all later ones reject with this, and leaves the stream open for a last message. */
  interrupt(error: Error): void {
    this.#interruption ??= error
    this.#wake()
  }

  /** What carries the stream has brought bytes: the peer is there, however long its messages wait behind those of others. */
  hear(): void {
    this.#heard()
  }

  /** What carries the stream was ended by the peer: for who receives, the stream has ended too. */
  leave(): void {
    this.#hasLeft = true
    this.#wake()
  }

  /**
   * Ends the stream behind what was sent. The peer gets a moment to read it and to end too: a stream closed at
   * once would be reset if bytes of the peer are still unread, and a reset can overtake the last message.
   * Resolves when the stream is closed.
   */
  async finish(linger = LINGER): Promise<void> {
    const stream = this.release()
    if (stream.closed) return
    const timer = setTimeout(() => stream.destroy(), linger)
    stream.end()
    stream.resume()
    await new Promise((resolve) => stream.once('close', resolve))
    clearTimeout(timer)
  }

  /** The stream, with every byte that no message has used. */
  release(): Duplex {
    for (const event of ['readable', 'end', 'close']) this.stream.off(event, this.#streamOnChange)
    if (this.#header && !this.stream.readableEnded) this.stream.unshift(this.#header)
    this.#header = undefined
    return this.stream
  }

  /** So many bytes; null where they have not come yet, undefined at the end of the stream. */
  #take(size: number): Buffer | null | undefined {
    if (this.#interruption) throw this.#interruption
    const bytes: Buffer | null = this.stream.read(size)
    // A stream that has ended gives what is left, however little.
    if (bytes && bytes.length < size) throw cutOff()
    if (bytes) return bytes
    if (this.stream.readableEnded || this.#hasLeft) return undefined
    if (this.stream.destroyed) throw this.stream.errored ?? cutOff()
    return null
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  readonly #streamOnChange = () => this.#wake()
}

function cutOff(): TunnelError {
  return new TunnelError('connection-lost', 'the connection ended in the middle of a message')
}
