/** What senders of webhooks do. */
import type { WebhookReceiver } from 'pipe-tunnel/webhooks'

/** Sends by Node's own `fetch`. */
export function post(
  url: string,
  body: string | Buffer,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(url, { method: 'POST', body, headers })
}

/** Where to connect by hand. */
export function placeOf({ url }: WebhookReceiver): { port: number } {
  return { port: Number(new URL(url).port) }
}
