import type { Duplex } from 'node:stream'
import type { Aborted } from './deadline.js'
import type { TunnelError } from './errors.js'
import type { SocketAddress, Visitor } from './listener.js'

/** A visitor that waits to be joined with the target. */
export interface Arrival {
  id: string
  visitor: Visitor
  /** The address that it came to. */
  cameTo: SocketAddress
  /** Gives its stream. Rejects with why there is none, or was given up. */
  open(aborted: Aborted): Promise<Duplex>
  /** It can't be joined. */
  turnAway(error: TunnelError): void
  /** The request that it sends again, where it is no visitor. */
  replayOf?: number
}
