// @ts-check
/** Two relays in Node, one after the other, that know of nothing else: what can be had at the most where bytes go by Node's streams and datagrams. */
import { startChild } from '../processes.js'

/** @type {import('./index.js').Way} */
export const bareRelays = {
  async start({ target, protocol = 'tcp', link = async (port) => port }) {
    const isUdp = protocol === 'udp'
    const client = await startRelay(isUdp ? 'datagram-relay.js' : 'relay.js', { target })
    const question = { target: await link(client.port), isOutside: true }
    const server = await startRelay(isUdp ? 'datagram-relay.js' : 'relay.js', question)
    return {
      port: server.port,
      pids: [server.pid, client.pid],
      async stop() {
        await Promise.all([server.stop(), client.stop()])
      },
    }
  },
}

/**
 * @param {string} file
 * @param {{ target: number, isOutside?: boolean }} question
 */
async function startRelay(file, question) {
  const child = await startChild(file)
  const { port } = await child.ask(question)
  return { port, pid: child.pid, stop: child.stop }
}
