import { randomBytes } from 'node:crypto'

/** What takes a session over: its keys, in the map of all sessions of a server. */
export class ResumeKeys<Session> {
  readonly #session: Session
  readonly #sessions: Map<string, Session>
  /** The last that was given out, and the one that was used to get it, until the client is known to have the last. */
  #keys: string[] = []

  constructor(session: Session, sessions: Map<string, Session>) {
    this.#session = session
    this.#sessions = sessions
  }

  /** A new key, for a client that comes with the used one. That one goes on: the very answer with the new one may be lost. */
  renew(used: string | undefined): string {
    const key = randomBytes(32).toString('hex')
    const isOurs = used !== undefined && this.#sessions.get(used) === this.#session
    this.#set(isOurs ? [key, used] : [key])
    return key
  }

  /** The client has the last. */
  forgetUsed(): void {
    if (this.#keys.length > 1) this.#set(this.#keys.slice(0, 1))
  }

  clear(): void {
    this.#set([])
  }

  #set(keys: string[]): void {
    for (const key of this.#keys) this.#sessions.delete(key)
    for (const key of keys) this.#sessions.set(key, this.#session)
    this.#keys = keys
  }
}
