import { printable } from '../errors.js'
import { invalidOption } from '../options.js'
import { type AdminArguments, askAdmin, type ShownTunnel } from './administration.js'
import { writeLine } from './exit.js'

/** `pipe close`: takes a tunnel from its client. */
export async function close(id: string, options: AdminArguments): Promise<void> {
  if (!/^[0-9a-z]{1,64}$/.test(id)) throw invalidOption('the id', 'one that pipe status shows', id)
  const answer = await askAdmin<{ tunnel: ShownTunnel }>(options, 'DELETE', `/api/tunnels/${id}`)
  if (!options.json) writeLine(process.stderr, `closed ${printable(answer.tunnel.address)}`)
}
