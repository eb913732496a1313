import type { Duplex } from 'node:stream'
import { type ServerChannel, serverChannel } from './channel.js'
import { type Aborted, whenAborted } from './deadline.js'
import { TunnelError } from './errors.js'
import { endWithControl } from './multiplex.js'
import { violation } from './protocol.js'
import { YamuxSession } from './yamux/session.js'

/** Far more streams than there are sockets for: what a client may have is limited by its visitors, as without this. */
const MAX_STREAMS = 65_536

/** The server's end of a connection that carries all streams of a client. */
export interface AcceptedMux {
  /** The control connection. */
  readonly channel: ServerChannel
  /** The client has logged in: what it opens from now on is taken so. */
  takeStreams(take: (stream: Duplex) => void): void
}

/**
 * Takes the connection of a client that carries streams. It ends with its control connection. Rejects with why there is none, or the
 * signal's reason.
 */
export function acceptMux(link: Duplex, aborted: Aborted): Promise<AcceptedMux> {
  return new Promise((resolve, reject) => {
    let channel: ServerChannel | undefined
    let take = (_stream: Duplex) => session.destroy(violation('opened a data stream before its login'))
    // A process that ends, however badly, leaves a FIN. This hears it before the session does, to which it is a loss of all streams.
    link.once('end', () => channel?.leave())
    const session = new YamuxSession(link, {
      role: 'server',
      onStream: sessionOnStream,
      onBytes: () => channel?.hear(),
      maxStreams: MAX_STREAMS,
    })
    const forget = whenAborted(aborted, (reason) => session.destroy(reason))
    session.closed.then((error) => {
      forget()
      reject(error ?? new TunnelError('connection-lost', 'the connection ended before its first stream'))
    })

    function sessionOnStream(stream: Duplex) {
      if (channel) return take(stream)
      forget()
      channel = serverChannel(stream)
      endWithControl(session, link, stream, (error) => session.destroy(error ?? undefined))
      resolve({
        channel,
        takeStreams(next) {
          take = next
        },
      })
    }
  })
}
