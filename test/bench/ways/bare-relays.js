// @ts-check
/** Two relays in Node, one after the other, that know of nothing else: what can be had at the most where bytes go by streams. */
import { startChild } from '../processes.js'

/** @type {import('./index.js').Way} */
export const bareRelays = {
  async start({ target, link = async (port) => port }) {
    const client = await startRelay(target)
    const server = await startRelay(await link(client.port))
    return {
      port: server.port,
      pids: [server.pid, client.pid],
      async stop() {
        await Promise.all([server.stop(), client.stop()])
      },
    }
  },
}

/** @param {number} target */
async function startRelay(target) {
  const child = await startChild('relay.js')
  const { port } = await child.ask({ target })
  return { port, pid: child.pid, stop: child.stop }
}
