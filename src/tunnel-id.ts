import { randomBytes } from 'node:crypto'

/** Letters and digits that nobody takes for each other. Eight of them are 40 random bits. */
const LETTERS = '0123456789abcdefghjkmnpqrstvwxyz'
const LENGTH = 8

/** An id for people to read and to type. A server that was started anew gives out others. */
export function newTunnelId(): string {
  return [...randomBytes(LENGTH)].map((byte) => LETTERS[byte % LETTERS.length]).join('')
}
