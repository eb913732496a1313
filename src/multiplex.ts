/**
 * What client and server know of a connection that carries all the others as streams of yamux: the control connection is
 * the first stream, and each data stream is one more. docs/protocol.md says so at length.
 */
import type { Duplex } from 'node:stream'
import { MAX_TIMEOUT } from './options.js'
import { MAX_MESSAGE } from './protocol.js'
import { watchOver } from './socket.js'
import { hasFinished, whenClosed } from './stream.js'
import type { YamuxSession } from './yamux/session.js'

/** What a frame of a new session begins with: version 0, a type, and the flag that opens. It opens a stream, with bytes or without, or is a ping. */
const OPENING = [0x0000_0001, 0x0001_0001, 0x0002_0001]

/**
 * Whether a connection that begins with these four bytes carries streams. They are not those of a message: as its length they would
 * be too small or too large.
 */
export function beginsSession(head: Buffer): boolean {
  return OPENING.includes(head.readUInt32BE())
}

/** Whether a server that was asked for streams began with a message: it has refused before it looked at them. */
export function isMessage(head: Buffer): boolean {
  const length = head.length < 4 ? 0 : head.readUInt32BE()
  // Less than this are the flags of a frame.
  return length > 0x000f && length <= MAX_MESSAGE
}

/**
 * The connection lives as long as its control connection. When that has ended as it should, visitors inside may finish, and where it
 * broke, they have lost their way too.
 */
export function endWithControl(
  session: YamuxSession,
  link: Duplex,
  control: Duplex,
  cut: (error: Error | null) => void,
): void {
  whenClosed(control, () => {
    if (!hasFinished(control)) return cut(control.errored)
    // There are no heartbeats any more, and a peer that vanishes would never be missed.
    watchOver(link)
    session.close(MAX_TIMEOUT)
  })
}
