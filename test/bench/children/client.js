// @ts-check
/** A process with the client's side of tunnels. Where no server is named, it has that as well. */
import { openTunnel } from 'pipe-tunnel'
import { answerParent } from './answer.js'

/** Opens tunnels one after the other; answers the last port, and how many milliseconds each took. */
answerParent(async ({ target, options, count, keep }) => {
  const times = []
  let port
  for (let i = 0; i < count; i++) {
    const start = performance.now()
    const tunnel = await openTunnel(target, options)
    times.push(performance.now() - start)
    port = tunnel.port
    if (!keep) await tunnel.close()
  }
  return { port, times }
})
