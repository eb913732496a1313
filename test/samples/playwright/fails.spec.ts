import { test } from 'pipe-tunnel/playwright'

test('fails', async ({ request, tunnel, webhook }) => {
  const nowhere = await tunnel('127.0.0.1:1')
  await request.get(nowhere.url).catch(() => {})
  const closed = await tunnel(3000, { deny: ['127.0.0.1'] })
  await request.get(closed.url).catch(() => {})
  const app = await tunnel((_, response) => response.end('hello'))
  await request.get(app.url, { headers: { connection: 'close' } })
  const hook = await webhook()
  await request.post(`${hook.url}/paid`, { data: '{}' })
  throw new Error('this one fails')
})
