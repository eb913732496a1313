import { urlOf } from './hostname.js'
import type { LocalTunnelOptions } from './local-settings.js'
import { type fromClient, type fromServer, type Message, violation } from './protocol.js'

/**
 * The public address that the server has opened, where it is what was asked for. `dialled` is the host that the client knows the server
 * by.
 */
export function addressIn(
  { host, port, path, hostname, scheme, probe }: Message<typeof fromServer, 'forwarded'>,
  request: Message<typeof fromClient, 'forward'>,
  dialled: string,
): Pick<LocalTunnelOptions, 'host' | 'port' | 'path' | 'site'> {
  if ((path !== undefined) !== (request.protocol === 'unix'))
    throw violation('opened another kind of address')
  // Of a unix socket the server names the path.
  if (path !== undefined) return { host: '', port: 0, path }
  if (port === 0 || (request.port !== 0 && port !== request.port)) throw violation(`opened port ${port}`)
  if (request.protocol !== 'http') return { host: host ?? dialled, port, path }
  const isComplete = host && hostname && scheme && probe
  if (!isComplete || hostname !== (request.hostname ?? hostname))
    throw violation(`opened the name ${hostname}`)
  return { host, port, path, site: { hostname, probe, url: urlOf(scheme, host, port) } }
}
