// Receives a webhook, prints its body, and ends by itself.
import { TunnelError } from 'pipe-tunnel'
import { receiveWebhooks } from 'pipe-tunnel/webhooks'

const hook = await receiveWebhooks()
await fetch(hook.url, { method: 'POST', body: 'hello' })
const request = await hook.waitFor({ method: 'POST' })

// Nothing of an answer that was to come later holds the process up.
hook.reply({ delay: 1_000_000 })
fetch(hook.url).catch(() => {})
await hook.waitForCount(2)

await hook.close()
// Its errors are those of the package, of which there is one.
const error = await hook.waitFor({ method: 'PUT' }).catch((reason) => reason)
process.stdout.write(error instanceof TunnelError ? request.text() : String(error))
