/** A process with the client's side of tunnels. */
import { openTunnel } from 'pipe-tunnel'
import { answerParent, tell } from './child.js'

const tunnels = new Map()

answerParent({
  async open({ name, target, options }) {
    const tunnel = await openTunnel(target, options)
    tunnels.set(name, tunnel)
    tunnel.on('disconnect', ({ message }) => tell({ event: 'disconnect', name, message }))
    tunnel.on('reconnect', () => tell({ event: 'reconnect', name }))
    tunnel.closed.then((error) => {
      tunnels.delete(name)
      if (error) tell({ event: 'lost', name, code: error.code, message: error.message })
    })
    return tunnel.port
  },
  close: ({ name, grace }) => tunnels.get(name)?.close({ grace }),
  closeAll: () => Promise.all([...tunnels.values()].map((tunnel) => tunnel.close())),
  connections: () => [...tunnels.values()].reduce((sum, { connections }) => sum + connections, 0),
})
