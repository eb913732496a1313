/** A process with a tunnel server. */
import { createServer } from 'pipe-tunnel'
import { answerParent } from './child.js'

let server

answerParent({
  async listen(options) {
    server = await createServer(options)
  },
  status: () => ({ connections: server.connections, tunnels: server.tunnels.length, stats: server.stats }),
  /** Where control connections come from: what they carry is encrypted, and nobody else can tell them. */
  controlPorts: () => server.tunnels.map(({ client }) => client.port),
  close: (options) => server.close(options),
})
