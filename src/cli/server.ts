import { once } from 'node:events'
import { createServer, type Server } from '../server.js'
import type { ServerOptions } from '../server-options.js'
import { GRACE, onEndSignals, writeLine } from './exit.js'
import { closingLine } from './report.js'
import { readSecret, type SecretOptions } from './secret.js'

/** `pipe server`: runs until it is told to end. */
export async function runServer(options: Omit<ServerOptions, 'secret'> & SecretOptions): Promise<void> {
  const secret = readSecret(options) ?? process.env.PIPE_SECRET
  const server = await createServer({ ...options, secret })
  const closed = once(server, 'close')
  // Before anything is printed: a script may answer the address with a signal at once.
  const stopListening = onEndSignals((count) => {
    if (count === 1 && server.connections > 0) writeLine(process.stderr, closingLine(server.connections))
    server.close({ grace: count === 1 ? GRACE : 0 })
  })
  report(server)
  writeLine(process.stdout, server.address)
  const secrecy = secret === undefined ? 'asks for no secret' : 'asks for the secret'
  writeLine(process.stderr, `${secrecy}; public ports: ${options.ports ?? 'any from 1024 up'}; Ctrl-C closes`)
  await closed
  stopListening()
}

function report(server: Server): void {
  const say = (text: string) => writeLine(process.stderr, `${new Date().toISOString()} ${text}`)
  server.on('tunnel', async (tunnel) => {
    const name = `${tunnel.host}:${tunnel.port} for ${tunnel.client.address}:${tunnel.client.port}`
    say(`opened ${name}`)
    const error = await tunnel.closed
    say(`closed ${name}${error ? `: ${error.message}` : ''}`)
  })
  server.on('reject', ({ visitor, error }, { port }) => {
    say(`turned ${visitor.address}:${visitor.port} away from port ${port}: ${error.message}`)
  })
  server.on('refuse', ({ client, error }) => {
    say(`refused ${client.address}:${client.port}: ${error.message}`)
  })
}
