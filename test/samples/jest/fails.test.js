const { useTunnels } = require('pipe-tunnel/jest')

const { tunnel, webhook } = useTunnels()

test('fails', async () => {
  const nowhere = await tunnel('127.0.0.1:1')
  await fetch(nowhere.url).catch(() => {})
  const closed = await tunnel(3000, { deny: ['127.0.0.1'] })
  await fetch(closed.url).catch(() => {})
  const app = await tunnel((_, response) => response.end('hello'))
  await fetch(app.url, { headers: { connection: 'close' } })
  const hook = await webhook()
  await fetch(`${hook.url}/paid`, { method: 'POST', body: '{}' })
  throw new Error('this one fails')
})
