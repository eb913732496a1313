import type { ServerResponse } from 'node:http'

/** Pages that may listen at a time. */
const MAX_LISTENERS = 32
/** Bytes that one of them may leave unread; it is cut then, and asks again. */
const MAX_UNREAD = 4_194_304
/** Milliseconds between two signs of life, so that an end that vanished is noticed. */
const HEARTBEAT = 15_000

/** Server-sent events, for any number of pages up to a bound. */
export class EventStreams {
  readonly #open = new Set<ServerResponse>()
  readonly #timer = setInterval(() => this.#write(': still here\n\n'), HEARTBEAT).unref()

  /** Makes an answer a stream of events, and tells whether there was room. */
  add(response: ServerResponse): boolean {
    if (this.#open.size >= MAX_LISTENERS) return false
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    // It is silent for longer than a connection without a use may be.
    response.socket?.setTimeout(0)
    // Told at once, so that the page knows that it is connected.
    response.write(': hello\n\n')
    this.#open.add(response)
    response.once('close', () => this.#open.delete(response))
    return true
  }

  send(event: string, data: unknown): void {
    if (this.#open.size > 0) this.#write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  }

  close(): void {
    clearInterval(this.#timer)
    for (const response of this.#open) response.end()
  }

  #write(text: string): void {
    for (const response of this.#open) {
      if (response.writableLength > MAX_UNREAD) response.destroy()
      else response.write(text)
    }
  }
}
