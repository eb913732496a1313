const net = require('node:net')
const { useTunnels } = require('pipe-tunnel/jest')

const { tunnel, webhook } = useTunnels()

test('fails', async () => {
  const nowhere = await tunnel('127.0.0.1:1')
  await turnedAway(nowhere)
  const closed = await tunnel(3000, { deny: ['127.0.0.1'] })
  await turnedAway(closed)
  const app = await tunnel((_, response) => response.end('hello'))
  await fetch(app.url, { headers: { connection: 'close' } })
  const hook = await webhook()
  await fetch(`${hook.url}/paid`, { method: 'POST', body: '{}' })
  throw new Error('this one fails')
})

/** Connects, and waits until it is reset: `fetch` of Node 20 may miss that. */
function turnedAway({ host, port }) {
  return new Promise((resolve) =>
    net
      .connect(port, host)
      .on('error', () => {})
      .on('close', resolve),
  )
}
