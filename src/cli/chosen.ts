import { TunnelError, type TunnelErrorCode } from '../errors.js'
import type { WantedTunnel } from '../open-tunnel.js'
import type { Tunnel } from '../tunnel.js'

/** Another address is as good, where the one that was chosen before can't be had. */
const elsewhere = new Set<TunnelErrorCode>([
  'address-unavailable',
  'hostname-not-allowed',
  'hostname-taken',
  'port-not-allowed',
  'port-taken',
])

/** The public addresses that a server has chosen, by the names of tunnels: it is asked for them again, so that URLs stay. */
export class ChosenAddresses {
  readonly #chosen = new Map<string, { hostname: string | undefined; port: number }>()

  note(name: string, wanted: WantedTunnel, { hostname, port }: Tunnel): void {
    if (isLeftToServer(wanted)) this.#chosen.set(name, { hostname, port })
  }

  /** Opens a tunnel where it was before, if the server has chosen that and can, and none of `others` names it; else anywhere. */
  async open(
    name: string,
    wanted: WantedTunnel,
    others: Iterable<WantedTunnel>,
    open: (wanted: WantedTunnel) => Promise<Tunnel>,
  ): Promise<Tunnel> {
    const again = this.#again(name, wanted)
    if (!again || [...others].some((one) => isSame(one, again))) return open(wanted)
    return open({ ...wanted, ...again }).catch((error) => {
      if (error instanceof TunnelError && elsewhere.has(error.code)) return open(wanted)
      throw error
    })
  }

  #again(name: string, wanted: WantedTunnel): Pick<WantedTunnel, 'hostname' | 'port'> | undefined {
    const chosen = this.#chosen.get(name)
    if (!chosen || !isLeftToServer(wanted)) return undefined
    const { hostname, port } = chosen
    if (wanted.hostname) return hostname === undefined ? undefined : { hostname }
    // That of a name is the port of all names.
    return hostname === undefined ? { port } : undefined
  }
}

function isLeftToServer({ hostname, port, listen }: WantedTunnel): boolean {
  return !port && listen === undefined && typeof hostname !== 'string'
}

function isSame(one: WantedTunnel, { hostname, port }: Pick<WantedTunnel, 'hostname' | 'port'>): boolean {
  return port === undefined ? one.hostname === hostname : one.port === port
}
