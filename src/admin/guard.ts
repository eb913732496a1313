import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import net from 'node:net'

/** Why a request is not answered. */
export interface Denial {
  status: number
  code: string
  message: string
  headers?: OutgoingHttpHeaders
}

/**
 * Keeps out who was not meant: with a secret, who does not show it; and web pages in a browser on this machine, which may send requests
 * to loopback too. Such a page names itself as `Origin`, or, where its name was made to lead here, as `Host`.
 */
export function guard(request: IncomingMessage, secret: string | undefined): Denial | undefined {
  const { host = '', origin, authorization } = request.headers
  const isOwnPage = origin === undefined || origin === `http://${host}` || origin === `https://${host}`
  const site = request.headers['sec-fetch-site'] ?? 'none'
  if (!isOwnPage || (site !== 'none' && site !== 'same-origin'))
    return forbidden('a page of another site may not ask here: use pipe status, or curl')
  if (secret === undefined) {
    if (isAddress(host)) return undefined
    return forbidden('without a secret, only an IP address or localhost may stand in Host: ask for 127.0.0.1')
  }
  const token = secretIn(authorization)
  if (token === undefined)
    return unauthorized('secret-required', 'the administration asks for its secret: set PIPE_ADMIN_SECRET')
  if (!isEqual(token, secret))
    return unauthorized(
      'secret-wrong',
      'the secret is not that of the administration: look for a typing mistake',
    )
  return undefined
}

/** Programs show it as a bearer token. Browsers ask their user for it as a password, for any name. */
function secretIn(authorization = ''): string | undefined {
  const [, token] = /^Bearer +(.+)$/i.exec(authorization) ?? []
  const [, basic] = /^Basic +(\S+)$/i.exec(authorization) ?? []
  // Headers are read as Latin-1, whatever they were written in.
  if (basic === undefined) return token && Buffer.from(token, 'latin1').toString()
  return Buffer.from(basic, 'base64')
    .toString()
    .replace(/^[^:]*:/, '')
}

/** Whether no name of somebody else's stands there. */
function isAddress(host: string): boolean {
  const name = host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')
  return name === 'localhost' || net.isIP(name) !== 0
}

/** In a time that does not tell how much of it is right. */
function isEqual(one: string, other: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(one), digest(other))
}

function forbidden(message: string): Denial {
  return { status: 403, code: 'refused', message }
}

function unauthorized(code: string, message: string): Denial {
  return {
    status: 401,
    code,
    message,
    headers: { 'www-authenticate': ['Bearer', 'Basic realm="pipe", charset="UTF-8"'] },
  }
}
