// @ts-check
/** The ways from a visitor to a target that are compared, in the order of the tables. */
import { bareRelays } from './bare-relays.js'
import { direct } from './direct.js'
import { pipeTunnel } from './pipe-tunnel.js'
import { socat } from './socat.js'
import { ssh } from './ssh.js'

/**
 * @typedef {object} StartOptions
 * @property {number} target Its port, of 127.0.0.1.
 * @property {'tcp' | 'udp'} [protocol] Default: tcp.
 * @property {(port: number) => Promise<number>} [link] Where what connects to a port is to connect instead: what lies
 *   between its two processes.
 */

/**
 * A way that is open.
 *
 * @typedef {object} Running
 * @property {number} port Where visitors connect, at 127.0.0.1.
 * @property {readonly number[]} pids Its processes.
 * @property {() => Promise<void>} stop
 * @property {number} [readyAfter] How many milliseconds `openTunnel` took.
 * @property {(count: number, keep: boolean) => Promise<number[]>} [openTunnels] Opens more tunnels, and closes them unless
 *   they are to be kept; resolves with how many milliseconds each took.
 */

/** @typedef {{ start(options: StartOptions): Promise<Running> }} Way */

/** @satisfies {Record<string, Way>} */
export const ways = {
  direct,
  'two socats': socat,
  'ssh -R': ssh,
  'bare relays': bareRelays,
  plain: pipeTunnel({}),
  TLS: pipeTunnel({ tls: true }),
  mux: pipeTunnel({ mux: true }),
  'mux TLS': pipeTunnel({ tls: true, mux: true }),
  /** One process, as `openTunnel` does where no server is named. */
  embedded: pipeTunnel({ embedded: true }),
}

/** @typedef {keyof typeof ways} WayName */
