import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Admission, admit } from './auth.js'
import { LINGER, type ServerChannel, serverChannel } from './channel.js'
import { type Aborted, Deadline, whenAborted } from './deadline.js'
import { reserve } from './descriptors.js'
import { Door, type DoorLimits, type Newcomer } from './door.js'
import { bindingOf } from './encryption.js'
import { TunnelError, toTunnelError } from './errors.js'
import type { SocketAddress } from './listener.js'
import { beginsSession } from './multiplex.js'
import { type AcceptedMux, acceptMux } from './mux-accept.js'
import { errorFields, violation } from './protocol.js'
import type { Secrets } from './secrets.js'
import { reset } from './stream.js'
import { acceptTls, firstByte, HANDSHAKE, withoutTls } from './tls-accept.js'
import type { ServerSecurity } from './tls-options.js'

/**
 * Connections that are not wanted and get a moment to read why, at a time. More are ended at once, so that a flood of
 * them can't hold more sockets than this.
 */
const MAX_LINGERING = 256

export interface ReceptionOptions extends DoorLimits {
  handshakeTimeout: number
  secrets: Secrets
  /** How connections are encrypted; undefined where they are not. */
  security: ServerSecurity | undefined
  /** A client has logged in. The promise may reject with why it is not taken. */
  onClient(channel: ServerChannel, client: SocketAddress, admission: Admission): Promise<void>
  /** A data stream came for the visitor with this id. */
  onDataStream(channel: ServerChannel, id: string): void
  /** A connection was refused. */
  onRefuse(client: SocketAddress, error: TunnelError): void
}

/** Owns connections that a server has accepted until their first message has told what they are. */
export class Reception {
  readonly door: Door
  readonly #options: ReceptionOptions
  readonly #newcomers = new Set<Deadline>()
  #lingering = 0

  constructor(options: ReceptionOptions) {
    this.#options = options
    this.door = new Door(options)
  }

  /** Takes a new connection. */
  async accept(socket: Socket, client: SocketAddress): Promise<void> {
    const { security, onClient, onDataStream, onRefuse } = this.#options
    reserve.spend()
    let channel: ServerChannel | undefined
    let mux: AcceptedMux | undefined
    try {
      const first = await this.#asNewcomer(client, async (newcomer, aborted) => {
        const byte = security && (await firstByte(socket, aborted))
        const isTls = security && byte === HANDSHAKE
        const link = isTls ? await acceptTls(socket, security, aborted) : socket
        const own = serverChannel(link)
        channel = own
        if (security && !isTls && byte !== undefined) throw withoutTls(byte, security)
        const head = await unlessAborted(own, aborted, () => own.peek())
        if (head && beginsSession(head)) {
          mux = await acceptMux(own.release(), aborted)
          channel = mux.channel
        }
        return this.#greet(channel, bindingOf(link), newcomer, aborted)
      })
      if (!channel) return
      if (first?.type === 'hello') {
        mux?.takeStreams((stream) => this.#acceptStream(stream, client))
        await onClient(channel, client, first.admission)
      } else if (first?.type === 'exchange' && !mux) onDataStream(channel, first.id)
      // Somebody looked whether the port is open.
      else if (!first) await this.dismiss(channel)
      else throw violation(`began with ${first.type}`)
    } catch (caught) {
      const error = toTunnelError(caught, 'connection-lost', 'the connection broke')
      // Before the handshake nothing can be told to who expects one.
      if (channel || !security) this.dismiss(channel ?? serverChannel(socket), error)
      else reset(socket)
      if (error.code === 'secret-wrong') this.door.fail(client.address)
      onRefuse(client, error)
    }
  }

  /** Takes a stream that a client has opened since its login, on the connection that carries all of them. */
  async #acceptStream(stream: Duplex, client: SocketAddress): Promise<void> {
    const { onDataStream, onRefuse } = this.#options
    const channel = serverChannel(stream)
    try {
      const first = await this.#asNewcomer(client, (_newcomer, aborted) =>
        unlessAborted(channel, aborted, () => channel.receive()),
      )
      if (first?.type !== 'exchange') throw violation(`began a data stream with ${first?.type ?? 'nothing'}`)
      onDataStream(channel, first.id)
    } catch (caught) {
      const error = toTunnelError(caught, 'connection-lost', 'the data stream broke')
      this.dismiss(channel, error)
      onRefuse(client, error)
    }
  }

  /** Ends a connection that is not wanted, and tells it why. */
  async dismiss(channel: ServerChannel, error?: TunnelError): Promise<void> {
    if (error) channel.send({ type: 'refuse', ...errorFields(error) })
    this.#lingering++
    await channel.finish(this.#lingering > MAX_LINGERING ? 0 : LINGER)
    this.#lingering--
  }

  /** Lets nobody in any more, and tells who is about to come in. */
  close(error: TunnelError): void {
    this.door.close()
    for (const newcomer of this.#newcomers) newcomer.abort(error)
  }

  /** Does what a connection may do that has not said what it is, as far as there is room and time for it. */
  async #asNewcomer<T>(
    { address }: SocketAddress,
    work: (newcomer: Newcomer, aborted: Aborted) => Promise<T>,
  ): Promise<T> {
    const { handshakeTimeout } = this.#options
    const newcomer = this.door.enter(address)
    const aborted = new Deadline(handshakeTimeout + newcomer.pause, () => {
      const message = `the connection did not log in within ${handshakeTimeout} ms`
      return new TunnelError('timeout', message)
    })
    this.#newcomers.add(aborted)
    try {
      // Where it may be a data stream, only a login waits.
      if (!newcomer.isKnown) await newcomer.wait()
      return await work(newcomer, aborted)
    } finally {
      aborted.stop()
      this.#newcomers.delete(aborted)
      newcomer.leave()
    }
  }

  /** The first message of a connection, after the login where it is `hello`. */
  #greet(channel: ServerChannel, binding: string | undefined, newcomer: Newcomer, aborted: Aborted) {
    return unlessAborted(channel, aborted, async () => {
      const first = await channel.receive()
      if (first?.type !== 'hello') return first
      if (newcomer.isKnown) await newcomer.wait()
      const { secrets } = this.#options
      return { ...first, admission: await admit(channel, first, { secrets, binding }) }
    })
  }
}

/** Does what receives of a channel, until it is to be told why it may not any more. */
async function unlessAborted<T>(
  channel: ServerChannel,
  aborted: Aborted,
  work: () => Promise<T>,
): Promise<T> {
  const forget = whenAborted(aborted, (reason) => channel.interrupt(reason))
  try {
    return await work()
  } finally {
    forget()
  }
}
