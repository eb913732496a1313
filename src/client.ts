import type { ClientChannel } from './channel.js'
import { ClientTunnels, type OpenOptions } from './client-tunnels.js'
import { whenAborted } from './deadline.js'
import { errorFromPeer, TunnelError, toTunnelError } from './errors.js'
import type { LocalTunnel } from './local-tunnel.js'
import type { FromServer } from './protocol.js'
import { mayPass } from './retry.js'
import type { Control, ServerLink } from './server-link.js'
import { reset } from './stream.js'

export interface ClientOptions {
  /** Attempts in a row to reconnect; 0 for none. */
  maxReconnects: number
  unref: boolean
}

/** The client's half of a session: its tunnels, over one control connection after the other. */
export class Client {
  readonly #link: ServerLink
  readonly #options: ClientOptions
  /** The last control connection; it may be lost. */
  #control: Control
  readonly #tunnels: ClientTunnels
  readonly #closing = new AbortController()
  readonly #done: Promise<void>
  /** Why there will be no control connection any more. */
  #ended: TunnelError | undefined

  constructor(link: ServerLink, control: Control, options: ClientOptions) {
    this.#link = link
    this.#control = control
    this.#options = options
    this.#tunnels = new ClientTunnels({
      ...options,
      host: link.server.host,
      send: (message) => this.#channel.send(message),
      exchangeTimeout: () => this.#control.welcome.exchangeTimeout,
      openDataStream: (id, aborted) => link.openDataStream(id, aborted),
      dropControl: () => this.#dropControl(),
    })
    this.#done = this.#run()
  }

  /** Opens a tunnel; resolves when visitors get through. Rejects with the server's refusal or the signal's reason. */
  async open(options: OpenOptions, aborted: AbortSignal): Promise<LocalTunnel> {
    // A server may end the connection right behind the login.
    if (this.#ended) throw this.#ended
    return this.#tunnels.open(options, aborted)
  }

  /** Ends the control connection, or the attempts to have one; resolves when its socket is closed. */
  async close(): Promise<void> {
    this.#closing.abort(new TunnelError('closed', 'the client was closed'))
    await this.#done
  }

  /** It is lost, as if the network had done it. */
  #dropControl(): void {
    this.#channel.interrupt(
      new TunnelError('connection-lost', 'the control connection was dropped on purpose'),
    )
    reset(this.#channel.stream)
  }

  get #channel(): ClientChannel {
    return this.#control.channel
  }

  /** Handles the server's messages, over one control connection after the other, until it is closed or gives up. Never rejects. */
  async #run(): Promise<void> {
    let error: TunnelError
    for (;;) {
      const start = performance.now()
      error = await this.#listen()
      const isLost = error.code === 'connection-lost'
      const { channel } = this.#control
      // A FIN would tell the server that this client has left.
      if (isLost && this.#mayReconnect(error)) reset(channel.release())
      else await channel.finish()
      if (!this.#mayReconnect(error)) break
      this.#tunnels.lose(error, this.#patience)
      try {
        this.#control = await this.#reconnect(performance.now() - start)
      } catch (final) {
        error = final as TunnelError
        break
      }
      this.#tunnels.askAgain()
    }
    this.#ended = error
    this.#tunnels.end(error)
  }

  /** Handles the messages of a control connection; gives back why it ended. */
  async #listen(): Promise<TunnelError> {
    const { channel, welcome } = this.#control
    // It may be closed just as it is back.
    const forget = whenAborted(this.#closing.signal, (reason) => channel.interrupt(reason))
    try {
      for await (const message of channel.messages(welcome.heartbeatTimeout)) this.#handle(message)
    } catch (error) {
      return toTunnelError(error, 'connection-lost', 'the control connection broke')
    } finally {
      forget()
    }
    return new TunnelError('connection-lost', 'the server ended the control connection')
  }

  #mayReconnect(error: TunnelError): boolean {
    if (this.#closing.signal.aborted || this.#options.maxReconnects === 0) return false
    // A server that was given as an object is gone with it.
    if (error.code === 'server-closed' && !this.#link.server.comesBack) return false
    return mayPass(error) && this.#tunnels.areWanted
  }

  /** Rejects with a {@link TunnelError}. */
  async #reconnect(life: number): Promise<Control> {
    const { maxReconnects } = this.#options
    const { signal } = this.#closing
    const { resume } = this.#control.welcome
    return this.#link.logInAgain({ resume, life, attempts: maxReconnects, signal }).catch((caught) => {
      if (signal.aborted) throw signal.reason
      const error = toTunnelError(caught, 'connection-lost', 'the client could not reconnect')
      if (!mayPass(error)) throw error
      const { code, message, cause } = error
      throw new TunnelError(code, `${message}; gave up after ${maxReconnects} attempts to reconnect`, {
        cause,
      })
    })
  }

  /** How long after a loss the other end may still be there. */
  get #patience(): number {
    const { resumeTimeout = 0, heartbeatTimeout } = this.#control.welcome
    return Math.max(resumeTimeout, heartbeatTimeout)
  }

  #handle(message: FromServer): void {
    if (message.type === 'heartbeat') this.#channel.send({ type: 'heartbeat' })
    else if (message.type === 'refuse') throw errorFromPeer(message.code, message.message)
    else this.#tunnels.handle(message)
  }
}
