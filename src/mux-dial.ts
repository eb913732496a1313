import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { errorFromPeer, type TunnelError } from './errors.js'
import { endWithControl, isMessage } from './multiplex.js'
import { decode, fromServer, HEADER, MAX_MESSAGE } from './protocol.js'
import { reset } from './stream.js'
import { YamuxSession } from './yamux/session.js'

/** The client's end of a connection that carries all streams to a server. */
export interface MuxLink {
  /** The control connection. */
  readonly control: Duplex
  /** A stream that becomes a data stream. */
  open(): Duplex
  /** Is called whenever the server sends something, on whatever stream. */
  onHeard: () => void
  /** Why the server refused the connection before it had a look at its streams, if it did. */
  refusal(): TunnelError | undefined
}

/** Makes a connection carry streams. It ends with its control connection. */
export function dialMux(socket: Socket): MuxLink {
  let first: Buffer | undefined
  const session = new YamuxSession(socket, {
    role: 'client',
    onBytes(bytes) {
      first ??= Buffer.from(bytes.subarray(0, HEADER + MAX_MESSAGE))
      mux.onHeard()
    },
  })
  const control = session.open()
  endWithControl(session, socket, control, (error) => {
    // A FIN would tell the server that this client has left.
    reset(socket)
    session.destroy(error ?? undefined)
  })
  const mux: MuxLink = {
    control,
    open: () => session.open(),
    onHeard() {},
    refusal: () => (first && isMessage(first) ? readRefusal(first) : undefined),
  }
  return mux
}

/** The refusal in the first bytes of a server; undefined where they are not all of one. */
function readRefusal(bytes: Buffer): TunnelError | undefined {
  try {
    const message = decode(bytes.subarray(HEADER, HEADER + bytes.readUInt32BE()), fromServer)
    return message.type === 'refuse' ? errorFromPeer(message.code, message.message) : undefined
  } catch {
    return undefined
  }
}
