import { TunnelError } from '../errors.js'
import type { Server } from '../server-info.js'
import { readAdminSecret } from './administration.js'

/** How `pipe server` is told to serve its administration. */
export interface ServerAdminArguments {
  adminPort?: number
  adminHost: string
  adminSecretFile?: string
}

/** What opens the administration, if there is to be one. It is loaded before the server is there: it counts from the first client on. */
export async function adminOpener({ adminPort, adminHost, adminSecretFile }: ServerAdminArguments) {
  if (adminPort === undefined) {
    if (adminSecretFile === undefined) return async () => undefined
    throw new TunnelError('invalid-option', '--admin-secret-file is for --admin-port: give that too')
  }
  const secret = readAdminSecret(adminSecretFile)
  const { openAdmin } = await import('../admin/admin.js')
  return async (server: Server) => {
    try {
      return await openAdmin(server, { host: adminHost, port: adminPort, secret })
    } catch (error) {
      await server.close()
      throw error
    }
  }
}
