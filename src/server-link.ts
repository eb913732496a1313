import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import { type Address, formatAddress } from './address.js'
import { logIn, type Welcome } from './auth.js'
import { type ClientChannel, clientChannel } from './channel.js'
import { type Aborted, whenAborted, withDeadline } from './deadline.js'
import { Dialler } from './dialler.js'
import { bindingOf } from './encryption.js'
import type { KnownEndpoint } from './endpoint.js'
import { errorFromPeer, isError, TunnelError, toTunnelError } from './errors.js'
import { dialMux, type MuxLink } from './mux-dial.js'
import { violation } from './protocol.js'
import { untilItWorks } from './retry.js'
import { reset } from './stream.js'

/**
 * How long the server's machine may take to accept a connection again, in milliseconds: two addresses of a name each get
 * their time, and a SYN that was lost is sent again after one second.
 */
const RECONNECT_TIMEOUT = 3_000

/** How long one of several attempts may take in all, in milliseconds. */
const ATTEMPT_TIMEOUT = 10_000

/**
 * Most milliseconds from a loss until the first attempt to reconnect: all clients of a server that restarts lose it at the same
 * moment. Who lost a connection that lived less than `SHORT_LIFE` is likely to lose the next as well, and waits for longer.
 */
const PAUSE = 50
const SHORT_LIFE = 2_000
const LONG_PAUSE = 1_000

export interface ReconnectOptions {
  /** The key of the session to take over, where the server keeps any. */
  resume: string | undefined
  /** Milliseconds that the last control connection lived. */
  life: number
  /** Most attempts. */
  attempts: number
  /** Gives up. */
  signal: AbortSignal
}

/** A control connection after the login. */
export interface Control {
  channel: ClientChannel
  welcome: Welcome
}

export interface LinkOptions {
  /** One connection carries all streams. */
  mux: boolean
  unref: boolean
}

/** The ways to one server: control connections and data streams. */
export class ServerLink {
  readonly server: KnownEndpoint
  readonly #options: LinkOptions
  readonly #dialler: Dialler
  /** Data streams go where the last control connection went, also where the name has several addresses. */
  #reached: Address
  /** What carries the last control connection, and the data streams with it. */
  #mux: MuxLink | undefined

  constructor(server: KnownEndpoint, options: LinkOptions) {
    this.server = server
    this.#options = options
    this.#dialler = new Dialler(server, options.unref)
    this.#reached = server
  }

  /**
   * Connects to the server and logs in. Rejects with `server-unreachable`, with what the login rejects with, or with the
   * signal's reason.
   */
  async logIn(aborted: AbortSignal): Promise<Control> {
    const socket = await this.#dialler.dial(this.server, aborted).catch((error) => {
      const { host } = this.server
      if (isError(error) && 'syscall' in error && error.syscall === 'getaddrinfo')
        throw toTunnelError(
          error,
          'server-unreachable',
          `the name ${host} was not found`,
          'is it spelled right, and in DNS?',
        )
      const next = 'is it running, and is this its port?'
      const failure = `no server answers at ${formatAddress(this.server)}`
      throw toTunnelError(error, 'server-unreachable', failure, next)
    })
    return this.#logIn(socket, undefined, aborted)
  }

  /**
   * The same where another attempt may follow within `timeout` milliseconds: one has half of them at most, as what accepts the connection may
   * never say anything.
   */
  logInSoon(timeout: number, signal: AbortSignal): Promise<Control> {
    const doing = `logging in at ${formatAddress(this.server)}`
    const timed = { timeout: Math.min(Math.ceil(timeout / 2), ATTEMPT_TIMEOUT), signal }
    return withDeadline(doing, timed, (aborted) => this.logIn(aborted))
  }

  /** The same after a loss, as often as it takes. */
  async logInAgain({ resume, life, attempts, signal }: ReconnectOptions): Promise<Control> {
    const { unref } = this.#options
    const pause = Math.random() * PAUSE + (life < SHORT_LIFE ? LONG_PAUSE : 0)
    await setTimeout(pause, undefined, { signal, ref: !unref })
    const doing = `reconnecting to ${formatAddress(this.server)}`
    const attempt = () =>
      withDeadline(doing, { timeout: ATTEMPT_TIMEOUT, signal, unref }, async (aborted) => {
        const timed = { timeout: RECONNECT_TIMEOUT, signal: aborted, unref }
        const socket = await withDeadline(doing, timed, (connecting) =>
          this.#dialler.dial(this.server, connecting),
        ).catch((error) => {
          throw toTunnelError(error, 'server-unreachable', `${doing} failed`)
        })
        return this.#logIn(socket, resume, aborted)
      })
    return untilItWorks(attempt, { attempts, signal, unref })
  }

  async #logIn(socket: Socket, resume: string | undefined, aborted: AbortSignal): Promise<Control> {
    const { host, port, secret } = this.server
    this.#reached = { host: socket.remoteAddress ?? host, port }
    const mux = this.#options.mux ? dialMux(socket) : undefined
    const stream = mux?.control ?? socket
    const channel = clientChannel(stream)
    const forget = whenAborted(aborted, (reason) => stream.destroy(reason))
    try {
      const welcome = await logIn(channel, { secret, resume, binding: bindingOf(socket) })
      this.#dialler.trust(socket)
      this.#mux = mux
      if (mux) showLife(mux, channel, welcome.heartbeatTimeout)
      return { channel, welcome }
    } catch (caught) {
      socket.destroy()
      const error = mux?.refusal() ?? toTunnelError(caught, 'connection-lost', 'the connection broke')
      if (error.code !== 'protocol-violation' && error.code !== 'connection-lost') throw error
      const failure = `${formatAddress(this.server)} does not answer as a pipe-tunnel server does`
      throw new TunnelError(error.code, `${failure} (${error.message}): is this its port?`, { cause: error })
    } finally {
      forget()
    }
  }

  /** A stream that the server has joined with the visitor of this id. Rejects with its refusal, or why it was given up. */
  async openDataStream(id: string, aborted: Aborted): Promise<Duplex> {
    const stream = this.#mux?.open() ?? (await this.#dialler.dialSame(this.#reached, aborted))
    const forget = whenAborted(aborted, (reason) => stream.destroy(reason))
    const channel = clientChannel(stream)
    try {
      channel.send({ type: 'exchange', id })
      const answer = await channel.receive()
      if (answer?.type === 'refuse') throw errorFromPeer(answer.code, answer.message)
      if (answer?.type !== 'joined') throw violation(`sent ${answer?.type ?? 'nothing'} where joined was due`)
      return channel.release()
    } catch (error) {
      reset(stream)
      throw error
    } finally {
      forget()
    }
  }
}

/**
 * Heartbeats may wait for long behind the bytes of visitors on their way to us. Then the bytes tell that the server is there, and it
 * is told unasked that we are.
 */
function showLife(mux: MuxLink, channel: ClientChannel, heartbeatTimeout: number): void {
  let shown = performance.now()
  mux.onHeard = () => {
    channel.hear()
    if (performance.now() - shown < heartbeatTimeout / 4) return
    shown = performance.now()
    channel.send({ type: 'heartbeat' })
  }
}
