// @ts-check
/** Two relays in Node, one after the other, that know of nothing else: what can be had at the most where bytes go by Node's streams and datagrams. */
import { startChild } from '../processes.js'

/** @type {import('./index.js').Way} */
export const bareRelays = {
  async start({ target, protocol = 'tcp', link = async (port) => port }) {
    const isUdp = protocol === 'udp'
    const file = isUdp ? 'datagram-relay.js' : 'relay.js'
    const client = await startRelay(file, { target })
    const server = await startRelay(file, {
      target: await link(client.port),
      ...(isUdp && { isOutside: true }),
    })
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
