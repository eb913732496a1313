// Receives a webhook, prints its body, and ends by itself.
const { receiveWebhooks } = require('pipe-tunnel/webhooks')

async function main() {
  const hook = await receiveWebhooks()
  await fetch(hook.url, { method: 'POST', body: 'hello' })
  const request = await hook.waitFor({ method: 'POST' })
  process.stdout.write(request.text())

  await hook.close()
}

main()
