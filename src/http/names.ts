import { randomBytes } from 'node:crypto'
import { TunnelError } from '../errors.js'
import { urlOf } from '../hostname.js'
import type { HttpSettings } from '../http-options.js'
import type { Listener, SocketAddress, Visitor } from '../listener.js'
import type { StreamEnd } from './stream-pair.js'

/** What a request is passed on to. */
export interface Site {
  readonly hostname: string
  /** What the server answers with at a path of its own, so that the client sees where its URL leads. */
  readonly probe: string
  /** What the name and password of a visitor must hash to. */
  readonly basicAuth: string | undefined
  /** Takes the connection of a visitor; if that can't be joined, it is told why. */
  take(
    stream: StreamEnd,
    visitor: Visitor,
    cameTo: SocketAddress,
    turnAway: (error: TunnelError) => void,
  ): void
  /** Tells of a visitor that was turned away before anything was made of its request. */
  turnedAway(visitor: Visitor, error: TunnelError): void
  /** What ends connections that carry no request, when the tunnel is gone. */
  readonly endIdle: Set<() => void>
}

/** What a client is told of its site, so that it knows the URL. */
export interface SiteInfo extends Pick<Site, 'hostname' | 'probe'> {
  readonly scheme: 'http' | 'https'
  /** Without a path: `https://shop.example.com`. */
  readonly url: string
}

/** The names of HTTP tunnels that are open at a server. */
export class Names {
  readonly #settings: HttpSettings
  /** Where visitors come in. */
  readonly #port: () => number
  readonly #sites = new Map<string, Site>()

  constructor(settings: HttpSettings, port: () => number) {
    this.#settings = settings
    this.#port = port
  }

  /** Whether a tunnel is open under this name, in full: `shop.example.com`. */
  has(host: string): boolean {
    return this.find(host) !== undefined
  }

  /** What requests for this host are for; it may be followed by a port. */
  find(host: string): Site | undefined {
    const name = host.toLowerCase().replace(/\.?(?::\d*)?$/, '')
    const domain = `.${this.#settings.domain}`
    return name.endsWith(domain) ? this.#sites.get(name.slice(0, -domain.length)) : undefined
  }

  isTaken(hostname: string): boolean {
    return this.#sites.has(hostname)
  }

  /** Hands requests for this name over from now on. Throws `hostname-taken`. */
  listen(wanted: Omit<Site, 'probe' | 'endIdle'>): Listener & { site: SiteInfo } {
    const { hostname } = wanted
    const { domain, scheme, publicPort } = this.#settings
    const host = `${hostname}.${domain}`
    if (this.#sites.has(hostname)) {
      throw new TunnelError(
        'hostname-taken',
        `${host} is taken by another tunnel: choose another name, or leave it to the server`,
      )
    }
    const port = publicPort ?? this.#port()
    const probe = randomBytes(16).toString('hex')
    const endIdle = new Set<() => void>()
    this.#sites.set(hostname, { ...wanted, probe, endIdle })
    return {
      host,
      port,
      site: { hostname, probe, scheme, url: urlOf(scheme, host, port) },
      close: async () => {
        this.#sites.delete(hostname)
        for (const end of endIdle) end()
      },
    }
  }
}
