// @ts-check
/** A process that passes connections on to a port, with as little as Node needs for it: what a tunnel adds to is this. */
import { once } from 'node:events'
import net from 'node:net'
import { answerParent } from './answer.js'

answerParent(async ({ target }) => {
  const listener = net.createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const far = net.connect({ host: '127.0.0.1', port: target, allowHalfOpen: true, noDelay: true })
    near.pipe(far).pipe(near)
    near.on('error', () => far.destroy())
    far.on('error', () => near.destroy())
  })
  listener.listen({ port: 0, host: '127.0.0.1', backlog: 1_024 })
  await once(listener, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (listener.address())
  return { port }
})
