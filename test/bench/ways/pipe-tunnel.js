// @ts-check
/** Server and client of pipe-tunnel, each in a process of its own: the built library. */
import { startChild } from '../processes.js'

/** Above what any measure needs. They are bounds, and cost nothing. */
const limits = { visitors: 20_000, waiting: 20_000, waitingTotal: 20_000, tunnels: 2_000, messages: 100_000 }

const secret = 'of the benchmark alone'

/**
 * @param {{ tls?: boolean, mux?: boolean, embedded?: boolean }} options
 * @returns {import('./index.js').Way}
 */
export function pipeTunnel({ tls = false, mux = false, embedded = false }) {
  return {
    async start({ target: port, protocol = 'tcp', link = async (port) => port }) {
      const client = await startChild('client.js')
      const children = [client]
      const stop = async () => {
        await Promise.all(children.map((child) => child.stop()))
      }
      try {
        let server
        if (!embedded) {
          const child = await startChild('server.js')
          children.push(child)
          const options = { limits, host: '127.0.0.1', ...(tls && { secret }) }
          server = `127.0.0.1:${await link((await child.ask(options)).port)}`
        }
        const options = { server, ...(tls && { secret }), ...(mux && { mux }) }
        const target = `${protocol}://127.0.0.1:${port}`
        const opened = await client.ask({ target, options, count: 1, keep: true })
        return {
          port: opened.port,
          pids: children.map(({ pid }) => pid),
          stop,
          readyAfter: opened.times[0],
          async openTunnels(count, keep) {
            return (await client.ask({ target, options, count, keep })).times
          },
        }
      } catch (error) {
        await stop()
        throw error
      }
    },
  }
}
