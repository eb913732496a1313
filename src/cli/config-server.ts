import type { ServerConfig } from '../config/define.js'
import type { LoadedConfig } from '../config/load.js'
import { readServerOptions, type ServerOptions } from '../server-options.js'
import { beside, checked, secretOf } from './config.js'
import { readPem } from './tls.js'

/** The options of a server that stand in the file. */
export function readServer(loaded: LoadedConfig): ServerOptions {
  const { secretFile, secrets, tls, sockets, ...options }: ServerConfig = loaded.config.server ?? {}
  const name = `${loaded.name}: server`
  const secret = secretOf(loaded, 'server.', { secret: options.secret, secretFile })
  const named = Object.entries(secrets ?? {}).map(([key, { secretFile, ...one }]) => {
    const secret = secretOf(loaded, `server.secrets.${key}.`, { secret: one.secret, secretFile })
    return [key, { ...one, secret: secret as string }] as const
  })
  const settings: ServerOptions = {
    ...options,
    secret,
    ...(secrets && { secrets: Object.fromEntries(named) }),
    ...(sockets !== undefined && { sockets: beside(loaded, sockets) }),
    tls: tls && {
      cert: readPem(`${name}.tls.certFile`, beside(loaded, tls.certFile)),
      key: readPem(`${name}.tls.keyFile`, beside(loaded, tls.keyFile)),
    },
  }
  // Whether there is a secret, flags and environment may say too.
  checked(name, () => readServerOptions({ ...settings, insecure: true }))
  return settings
}
