/**
 * Both halves of the login. Each side shows that it holds the secret by an HMAC over two fresh nonces, so the
 * secret never travels and a recorded login is worth nothing. The client proves itself first: a server answers
 * with its own proof only to who holds the secret, so that nobody else gets material to guess it from.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { ClientChannel, ServerChannel } from './channel.js'
import { errorFromPeer, TunnelError } from './errors.js'
import {
  type FromServer,
  type fromClient,
  type fromServer,
  type Message,
  PROTOCOL_VERSION,
  violation,
} from './protocol.js'
import { type Permit, type Secrets, secretRevoked } from './secrets.js'

type Hello = Message<typeof fromClient, 'hello'>
export type Welcome = Message<typeof fromServer, 'welcome'>

/** A client that may come in: `welcome` is still to be sent to it. */
export interface Admission {
  /** What its secret gives it. */
  permit: Permit
  /** The server's own proof. */
  proof: string | null
  /** The key of the session that the client wants to take over. */
  resume: string | undefined
}

/** What a client logs in with. */
interface Credentials {
  secret: string | undefined
  /** The key of the session to take over, where there was one. */
  resume: string | undefined
  /** What ties the proofs to the connection that carries the channel, where it is encrypted. */
  binding: string | undefined
}

/**
 * The server's half, but for its last word: rejects a client of another version or without the secret. `binding` ties the proofs to
 * the connection that carries the channel, where it is encrypted.
 */
export async function admit(
  channel: ServerChannel,
  hello: Hello,
  { secrets, binding }: { secrets: Secrets; binding: string | undefined },
): Promise<Admission> {
  if (hello.version !== PROTOCOL_VERSION) {
    throw new TunnelError(
      'version-mismatch',
      `the server speaks version ${PROTOCOL_VERSION} of the protocol and the client version ${hello.version}: install the same pipe-tunnel on both sides`,
    )
  }
  const nonce = newNonce()
  channel.send({ type: 'challenge', nonce, secret: secrets.isAsked })

  const login = await channel.receive()
  if (!login) throw new TunnelError('connection-lost', 'the client left in the middle of the login')
  if (login.type !== 'login') throw violation(`sent ${login.type} where login was due`)
  const { resume, proof: theirs } = login
  if (secrets.isAsked && theirs === null) {
    throw new TunnelError(
      'secret-required',
      'the server asks for a secret: give it as the option secret, as PIPE_SECRET, or with --secret-file',
    )
  }
  const permit = secrets.permitFor(
    (secret) => theirs !== null && equal(theirs, proof('client', secret, hello.nonce, nonce, binding)),
  )
  if (!permit) throw secretWrong()
  if (permit.isRevoked) throw secretRevoked()
  const { secret } = permit.settings ?? {}
  const mine = secret === undefined ? null : proof('server', secret, hello.nonce, nonce, binding)
  return { permit, proof: mine, resume }
}

/** Why the other side does not take a secret for its own. */
export function secretWrong(cause?: unknown): TunnelError {
  const message = 'the secret is not the one that the server holds: give the one that it was started with'
  return new TunnelError('secret-wrong', message, { cause })
}

/**
 * The client's half: rejects a server that refuses it, or that does not hold the client's secret. With the key of a session,
 * it takes that over.
 */
export async function logIn(
  channel: ClientChannel,
  { secret, resume, binding }: Credentials,
): Promise<Welcome> {
  const nonce = newNonce()
  channel.send({ type: 'hello', version: PROTOCOL_VERSION, nonce })

  const challenge = expectType(await channel.receive(), 'challenge')
  if (secret !== undefined && !challenge.secret) {
    throw new TunnelError(
      'server-unproven',
      'the server asks for no secret, so nothing shows that it is yours: start it with the secret, or connect without one',
    )
  }
  const mine = secret !== undefined ? proof('client', secret, nonce, challenge.nonce, binding) : null
  channel.send({ type: 'login', proof: mine, resume })

  const welcome = expectType(await channel.receive(), 'welcome')
  if (secret !== undefined) {
    const theirs = proof('server', secret, nonce, challenge.nonce, binding)
    if (welcome.proof === null || !equal(welcome.proof, theirs)) {
      throw new TunnelError(
        'server-unproven',
        'the server did not prove that it holds the secret: it is not yours',
      )
    }
  }
  return welcome
}

function expectType<T extends FromServer['type']>(message: FromServer | undefined, type: T) {
  if (message?.type === type) return message as Message<typeof fromServer, T>
  if (message?.type === 'refuse') throw errorFromPeer(message.code, message.message)
  if (!message) {
    throw new TunnelError('connection-lost', 'it ended the connection during the login')
  }
  throw violation(`sent ${message.type} where ${type} was due`)
}

const newNonce = () => randomBytes(32).toString('hex')

/**
 * HMAC-SHA256 (RFC 2104) over who proves, the version, both nonces, and what only the two ends of an encrypted
 * connection know: no proof serves in another place, nor on another connection.
 */
function proof(
  side: 'client' | 'server',
  secret: string,
  clientNonce: string,
  serverNonce: string,
  binding: string | undefined,
): string {
  const words = ['pipe-tunnel', PROTOCOL_VERSION, side, clientNonce, serverNonce]
  if (binding !== undefined) words.push(binding)
  return createHmac('sha256', secret).update(words.join(' ')).digest('hex')
}

function equal(a: string, b: string): boolean {
  return timingSafeEqual(Buffer.from(a, 'hex'), Buffer.from(b, 'hex'))
}
