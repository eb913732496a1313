import type { Client } from './client.js'
import type { OpenOptions } from './client-tunnels.js'
import type { LocalTunnel } from './local-tunnel.js'

/** Tunnels over one control connection, which ends behind the last of them once no more will come. */
export class TunnelGroup {
  readonly #client: Client
  /** Closes what the control connection was made for. */
  readonly #onEnd: () => Promise<void>
  /** The tunnels that are open or being opened, and one for whoever may want more. */
  #holders = 1

  constructor(client: Client, onEnd: () => Promise<void>) {
    this.#client = client
    this.#onEnd = onEnd
  }

  /** Opens a tunnel; resolves when visitors get through. Rejects with the server's refusal or the signal's reason. */
  async open(options: Omit<OpenOptions, 'release'>, aborted: AbortSignal): Promise<LocalTunnel> {
    this.#holders++
    const tunnel = await this.#open(options, aborted)
    try {
      await tunnel.reach(aborted)
      return tunnel
    } catch (error) {
      // Not awaited: a server that does not answer may not keep the caller beyond the timeout.
      tunnel.close()
      throw error
    }
  }

  async #open(options: Omit<OpenOptions, 'release'>, aborted: AbortSignal): Promise<LocalTunnel> {
    try {
      return await this.#client.open({ ...options, release: () => this.release() }, aborted)
    } catch (error) {
      await this.release()
      throw error
    }
  }

  /** A tunnel is closed, or no more will come. */
  async release(): Promise<void> {
    this.#holders--
    if (this.#holders > 0) return
    await this.#client.close()
    await this.#onEnd()
  }
}
