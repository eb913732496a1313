/** What lies between a client and a server, and can be broken. */
import { once } from 'node:events'
import net from 'node:net'
import type { Server } from 'pipe-tunnel'

export interface Link extends AsyncDisposable {
  /** What to give to `openTunnel` as `server`. */
  readonly address: string
  /** How many connections were made so far. */
  readonly count: number
  /** Resets a connection at both ends; the first is the first control connection. */
  cut(index: number): void
  /** Resets all, and every new one at once. */
  breakDown(): void
  /** Lets nothing through any more, without a word, on connections that are there and on new ones. */
  stall(): void
  /** Lets everything through again. */
  heal(): void
}

/** A TCP relay to the server, which a test breaks. */
export async function brokenLink(server: Pick<Server, 'host' | 'port' | 'secret'>): Promise<Link> {
  const pairs: [net.Socket, net.Socket][] = []
  let state: 'whole' | 'stalled' | 'down' = 'whole'

  const listener = net.createServer({ allowHalfOpen: true }, (near) => {
    const far = net.connect({ host: server.host, port: server.port, allowHalfOpen: true })
    const pair: [net.Socket, net.Socket] = [near, far]
    pairs.push(pair)
    join(near, far)
    join(far, near)
    if (state === 'down') cut(pair)
    if (state === 'stalled') for (const socket of pair) socket.pause()
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as net.AddressInfo

  return {
    address: `pipe://${server.secret === undefined ? '' : `${server.secret}@`}127.0.0.1:${port}`,
    get count() {
      return pairs.length
    },
    cut(index) {
      const pair = pairs[index]
      if (!pair) throw new Error(`there is no connection ${index}`)
      cut(pair)
    },
    breakDown() {
      state = 'down'
      for (const pair of pairs) cut(pair)
    },
    stall() {
      state = 'stalled'
      for (const socket of pairs.flat()) socket.pause()
    },
    heal() {
      const wasStalled = state === 'stalled'
      state = 'whole'
      if (wasStalled) for (const socket of pairs.flat()) socket.resume()
    },
    async [Symbol.asyncDispose]() {
      listener.close()
      for (const pair of pairs) cut(pair)
      if (listener.listening) await once(listener, 'close')
    },
  }

  function join(from: net.Socket, to: net.Socket) {
    from.on('data', (chunk) => {
      if (!to.write(chunk)) from.pause()
    })
    from.on('end', () => to.end())
    from.on('error', () => {})
    from.on('close', () => {
      if (from.errored) cut([from, to])
    })
    to.on('drain', () => {
      if (state === 'whole') from.resume()
    })
  }

  function cut(pair: [net.Socket, net.Socket]) {
    for (const socket of pair) {
      if (socket.connecting) socket.destroy()
      else socket.resetAndDestroy()
    }
  }
}
