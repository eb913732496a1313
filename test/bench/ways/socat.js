// @ts-check
/** Two socats, one after the other: as many processes as server and client, and as many sockets. */
import { startServer } from '../programs.js'

/** Bytes that it reads at once. With its default of 8 KiB it is half as fast. */
const BUFFER = 262_144

/** @type {import('./index.js').Way} */
export const socat = {
  async start({ target, link = async (port) => port }) {
    const client = await relay(target)
    const server = await relay(await link(client.port))
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
function relay(target) {
  return startServer('socat', (port) => [
    ...['-b', `${BUFFER}`],
    `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay`,
    `TCP:127.0.0.1:${target},nodelay`,
  ])
}
