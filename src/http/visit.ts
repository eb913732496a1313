import type http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { isAuthorized } from '../basic-auth.js'
import { TunnelError } from '../errors.js'
import type { HttpSettings } from '../http-options.js'
import type { SocketAddress } from '../listener.js'
import { PROBE_PATH } from '../protocol.js'
import { socketAddress } from '../socket.js'
import { type Refusal, refuse } from './answers.js'
import { type Origin, originOf, valuesOf } from './headers.js'
import type { Names, Site } from './names.js'
import { type Exchange, hasBody, passOn } from './pass-on.js'
import { passUpgrade } from './upgrade.js'
import { Way } from './way.js'

/** Requests that may wait behind one that is being answered: few visitors send the next before that. */
const MAX_WAITING = 64
/** Connections to targets that a visitor connection keeps: one of a proxy is for many visitors. */
const MAX_WAYS = 16

export interface VisitOptions {
  http: typeof http
  names: Names
  settings: HttpSettings
  /** Whether no more requests are taken. */
  isStopped(): boolean
}

/** A connection to the HTTP port. Its requests take turns, and each is for the tunnel that it names. */
export class Visit {
  readonly #options: VisitOptions
  readonly #peer: SocketAddress
  readonly #cameTo: SocketAddress
  readonly #socket: Socket
  /** What is to be done when the request before it is answered. */
  readonly #waiting: (() => void)[] = []
  #isBusy = false
  /** By tunnel and visitor, that which was used last at the end. */
  readonly #ways = new Map<string, Way>()

  constructor(socket: Socket, options: VisitOptions) {
    this.#options = options
    this.#socket = socket
    this.#peer = socketAddress(socket.remoteAddress, socket.remotePort)
    this.#cameTo = socketAddress(socket.localAddress, socket.localPort)
    socket.once('close', () => {
      for (const way of this.#ways.values()) way.close()
    })
  }

  /** Whether a request is not answered yet. */
  get isBusy(): boolean {
    return this.#isBusy
  }

  /** A request, or one for another protocol with what came behind it. */
  take(request: IncomingMessage, response: ServerResponse, upgrade?: { socket: Duplex; head: Buffer }): void {
    response.once('close', () => this.#next())
    const serve = () => this.#serve(request, response, upgrade)
    if (!this.#isBusy) {
      this.#isBusy = true
      serve()
    } else if (this.#waiting.length < MAX_WAITING) {
      this.#waiting.push(serve)
    } else {
      this.#socket.destroy()
    }
  }

  #next(): void {
    const next = this.#waiting.shift()
    this.#isBusy = next !== undefined
    if (next) next()
    else if (this.#options.isStopped()) this.#socket.end()
  }

  #serve(
    request: IncomingMessage,
    response: ServerResponse,
    upgrade?: { socket: Duplex; head: Buffer },
  ): void {
    if (this.#socket.destroyed) return
    const { names, settings } = this.#options
    const [host = '', ...others] = valuesOf(request.rawHeaders, 'host')
    const site = names.find(host)
    const refusal = whyUnclear(request, host, others) ?? (site && whyNot(request, site))
    if (refusal || !site) {
      // Who shows no password is asked for one first: that is no attempt.
      if (site && refusal?.status === 401 && request.headers.authorization !== undefined) {
        const { address } = originOf(
          request.rawHeaders,
          this.#peer.address,
          settings.scheme,
          settings.isTrusted,
        )
        const wrong = new TunnelError('visitor-denied', 'it gave a wrong name or password')
        site.turnedAway(this.#visitorAt(address), wrong)
      }
      refuse(request, response, refusal ?? unknown(host))
    } else if (isProbe(request)) {
      answerProbe(response, site)
    } else {
      const origin = originOf(request.rawHeaders, this.#peer.address, settings.scheme, settings.isTrusted)
      const exchange: Exchange = { request, response, origin, way: () => this.#wayFor(site, origin) }
      if (upgrade) passUpgrade(exchange, upgrade.socket, upgrade.head)
      else passOn(exchange)
    }
  }

  /** Of one behind a proxy, the port is not known. */
  #visitorAt(address: string): SocketAddress {
    return address === this.#peer.address ? this.#peer : { address, port: 0 }
  }

  /** Connections are never shared between visitors: a target may tell them apart by the connection. */
  #wayFor(site: Site, { address }: Origin): Way {
    const key = `${address} ${site.probe}`
    const known = this.#ways.get(key)
    this.#ways.delete(key)
    if (known?.isFresh) {
      this.#ways.set(key, known)
      return known
    }
    known?.close()
    const visitor = this.#visitorAt(address)
    const way = new Way({ http: this.#options.http, site, visitor, cameTo: this.#cameTo })
    this.#ways.set(key, way)
    for (const [oldest, unused] of this.#ways) {
      if (this.#ways.size <= MAX_WAYS) break
      unused.close()
      this.#ways.delete(oldest)
    }
    return way
  }
}

/** Why two readers could take a request for different ones, if so. Node has refused already what it can't make out itself. */
function whyUnclear(request: IncomingMessage, host: string, others: string[]): Refusal | undefined {
  const codings = valuesOf(request.rawHeaders, 'transfer-encoding')
  const unclear = (sentence: string) => ({ status: 400, sentence, ends: true })
  if (others.length > 0) return unclear('It has several Host headers.')
  if (!/^[\w.-]{1,255}(?::\d{0,5})?$/.test(host))
    return unclear('It has no Host header, or one that is no host.')
  if (!/^(?:\/|\*$)/.test(request.url ?? '')) return unclear('What it asks for is no path.')
  if (codings.length > 0 && codings.join().toLowerCase() !== 'chunked')
    return unclear('It has a Transfer-Encoding other than chunked.')
  if (codings.length > 0 && request.httpVersion !== '1.1')
    return unclear('It is chunked, and not of HTTP/1.1.')
  return undefined
}

/** Why a request does not get to the tunnel, if so. */
function whyNot(request: IncomingMessage, { basicAuth, hostname }: Site): Refusal | undefined {
  if (!basicAuth || isProbe(request) || isAuthorized(basicAuth, request.headers.authorization))
    return undefined
  return {
    status: 401,
    sentence: `The tunnel ${hostname} asks for a name and a password.`,
    headers: { 'WWW-Authenticate': 'Basic realm="tunnel", charset="UTF-8"' },
    ends: hasBody(request),
  }
}

function unknown(host: string): Refusal {
  return { status: 404, sentence: `No tunnel is open at ${host}.` }
}

function isProbe({ method, url }: IncomingMessage): boolean {
  return url === PROBE_PATH && method === 'GET'
}

function answerProbe(response: ServerResponse, { probe }: Site): void {
  response.writeHead(200, {
    'Content-Type': 'text/plain',
    'Content-Length': probe.length,
    'Cache-Control': 'no-store',
  })
  response.end(probe)
}
