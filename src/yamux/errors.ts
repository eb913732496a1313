/** What a stream or a session ended with, for programs. */
export type YamuxErrorCode =
  /** The peer reset the stream. The system's word for it, so that a stream breaks as a socket does. */
  | 'ECONNRESET'
  /** The peer broke the protocol, or says that we did. */
  | 'protocol-violation'
  /** The link broke, or ended where nobody had said that it would. */
  | 'link-lost'
  /** The session was closed or is being closed, by either side. */
  | 'session-closed'
  /** A ping was not answered in time. */
  | 'timeout'

/**
 * It has no stack, which would begin and end in the event loop: Node formats that of every error that a stream is destroyed
 * with, and so a peer that resets streams would cost us several times what it costs itself.
 */
export class YamuxError extends Error {
  override readonly name = 'YamuxError'
  readonly code: YamuxErrorCode

  constructor(code: YamuxErrorCode, message: string, options?: ErrorOptions) {
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    super(message, options)
    Error.stackTraceLimit = stackTraceLimit
    this.code = code
  }
}

/** Who was called and threw has a bug. It surfaces behind our own work: there may be frames of other streams in what is being looked through. */
export function surface(error: unknown): void {
  process.nextTick(() => {
    throw error
  })
}
