import { once } from 'node:events'
import { resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { reasonOf } from '../errors.js'
import { createServer } from '../server.js'
import type { Server } from '../server-info.js'
import { changeable, type ServerOptions } from '../server-options.js'
import { adminOpener } from './admin.js'
import { GRACE, onEndSignals, writeLine } from './exit.js'
import { type Log, openLog } from './log.js'
import { closingLine } from './report.js'
import { readSettings, type ServerArguments } from './server-settings.js'

/** `pipe server`: runs until it is told to end. */
export async function runServer(options: ServerArguments): Promise<void> {
  const { settings, file } = await readSettings(options)
  const log = await openLog(options)
  const openAdmin = await adminOpener(options)
  const server = await createServer({ ...settings, logger: log.logger })
  const admin = await openAdmin(server)
  const closed = once(server, 'close')
  // Before anything is printed: a script may answer the address with a signal at once.
  const stopListening = onEndSignals(
    (count) => {
      if (count === 1 && server.connections > 0) log.say(closingLine(server.connections))
      server.close({ grace: count === 1 ? GRACE : 0 })
    },
    file === undefined ? undefined : reloader(server, log, options, settings),
  )
  writeLine(process.stdout, server.address)
  const { host, http, ports, sockets } = settings
  const terms = [
    ...(Array.isArray(host) && host.length > 1 ? [`listens on ${host.join(' and ')}`] : []),
    asking(settings),
    encryption(server),
    ...(http ? [`HTTP tunnels on port ${server.httpPort}, with names in ${http.domain ?? 'localhost'}`] : []),
    ...(http?.caddy === undefined ? [] : ['Caddy takes https for them']),
    `public ports: ${ports ?? 'any from 1024 up'}`,
    ...(sockets === undefined ? [] : [`unix sockets in ${resolve(sockets)}`]),
    ...(admin ? [`dashboard and administration at ${admin.url}`] : []),
    'Ctrl-C closes',
  ]
  log.say(terms.join('; '))
  await closed
  admin?.close()
  stopListening()
}

/** What reads the file again, and changes what may change while the server runs. One reading follows the other. */
function reloader(
  server: Server,
  { logger, say }: Log,
  options: ServerArguments,
  before: ServerOptions,
): () => void {
  let reloaded = Promise.resolve()
  /** Whether a reading has not begun: it will see what others that are asked for meanwhile would. */
  let isDue = false
  const reload = async () => {
    isDue = false
    const { settings, file } = await readSettings(options)
    const names = [...new Set([...Object.keys(before), ...Object.keys(settings)])] as (keyof ServerOptions)[]
    const fixed = names.filter(
      (name) => !isChangeable(name) && !isDeepStrictEqual(settings[name], before[name]),
    )
    await server.update(Object.fromEntries(changeable.map((name) => [name, settings[name]])))
    const rest = fixed.length > 0 ? `; ${fixed.join(', ')} will hold when it is started again` : ''
    say(`${file} was read again${rest}`)
  }
  return () => {
    if (isDue) return
    isDue = true
    reloaded = reloaded.then(reload).catch((error) => {
      logger.error({}, `${reasonOf(error)}; the server stays as it is`)
    })
  }
}

const isChangeable = (name: string) => changeable.some((one) => one === name)

function asking({ secret, secrets }: ServerOptions): string {
  if (secrets) return 'asks for one of the secrets'
  return secret === undefined ? 'asks for no secret' : 'asks for the secret'
}

function encryption({ tls }: Server): string {
  if (tls === false) return 'does not encrypt'
  return tls ? 'encrypts with its certificate' : 'encrypts by the secret'
}
