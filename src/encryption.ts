import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/** What is known of a stream that encrypts. */
interface Encryption {
  /** The TCP socket that carries it. */
  socket: Socket
  /** What both ends of this one connection know and nobody else does, in hexadecimal digits, once it is secure. */
  binding?: string
  /** What the peer showed, in DER. */
  certificate?: Buffer | undefined
}

const encryptions = new WeakMap<Duplex, Encryption>()

/** Remembers what lies under a stream that encrypts. */
export function noteEncryption(stream: Duplex, encryption: Encryption): void {
  encryptions.set(stream, encryption)
}

/** The socket on which this stream's bytes travel: itself, where it does not encrypt. */
export function carrierOf(stream: Duplex): Duplex {
  return encryptions.get(stream)?.socket ?? stream
}

/** What ties a proof to this connection; undefined where the stream does not encrypt. */
export function bindingOf(stream: Duplex): string | undefined {
  return encryptions.get(stream)?.binding
}

/** The certificate of the peer of this stream, where it showed one. */
export function certificateOf(stream: Duplex): Buffer | undefined {
  return encryptions.get(stream)?.certificate
}
