/** Visitors of the HTTP port that have finished sending: some wait for their answer, and some have left. */
import { once } from 'node:events'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import { pEvent } from 'p-event'
import { expect, test } from 'vitest'
import { openFront } from '../src/http/front.js'
import { readHttpOptions } from '../src/http-options.js'
import { readAll } from './helpers/targets.js'

const REQUEST = 'GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n'

test('a visitor that has finished sending gets its answer', async () => {
  await using place = await siteWith(60_000)
  const visitor = net.connect({ port: place.port, allowHalfOpen: true })
  visitor.end(REQUEST)
  const target = await place.connection
  await once(target, 'data')
  target.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere')

  expect(String(await readAll(visitor))).toMatch(/\r\n\r\nhere$/)
})

test('a target that does not answer is told that its visitor has left, once that was silent for long', async () => {
  await using place = await siteWith(100)
  const visitor = net.connect(place.port)
  visitor.write(REQUEST)
  const target = await place.connection
  await once(target, 'data')
  const closed = pEvent(target, 'close', { rejectionEvents: [], timeout: 30_000 })
  visitor.destroy()

  await closed
})

/** An HTTP port with one name, and the first connection that comes to its target. */
async function siteWith(halfCloseTimeout: number) {
  const front = await openFront(readHttpOptions({ port: 0 }, ['127.0.0.1']), {
    maxConnections: 10,
    unref: false,
    aborted: AbortSignal.timeout(30_000),
    halfCloseTimeout,
  })
  const connection = new Promise<Duplex>((resolve) => {
    front.names.listen({
      hostname: 'app',
      basicAuth: undefined,
      take: (stream) => resolve(stream),
      turnedAway() {},
    })
  })
  return {
    port: front.port,
    connection,
    async [Symbol.asyncDispose]() {
      front.stop()
      await front.finish(0)
    },
  }
}
