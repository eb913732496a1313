/** What `npm start` runs: serves a sample page, exposes it through a tunnel and prints the public URL. */
import { once } from 'node:events'
import http from 'node:http'
import { openTunnel } from 'pipe-tunnel'

const app = http.createServer((request, response) => {
  response.setHeader('content-type', 'text/html; charset=utf-8')
  response.end(page(request))
})
app.listen(0, '127.0.0.1')
await once(app, 'listening')

const tunnel = await openTunnel(`127.0.0.1:${app.address().port}`)
let visitors = 0

tunnel.on('connection', async ({ visitor, closed }) => {
  const number = ++visitors
  const { bytesIn, bytesOut } = await closed
  say(`visitor ${number}, ${visitor.address}:${visitor.port}: ${bytesIn} bytes in, ${bytesOut} bytes out`)
})
tunnel.on('reject', ({ error }) => say(`a visitor was turned away: ${error.message}`))

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => tunnel.close())
process.stdout.write(`${tunnel.url}\n`)
say(`leads to a sample page at ${tunnel.target}: open it in a browser; Ctrl-C closes the tunnel`)

const error = await tunnel.closed
if (error) {
  say(`the tunnel is gone: ${error.message}`)
  process.exitCode = 1
}
app.close()
app.closeAllConnections()

function say(text) {
  process.stderr.write(`${text}\n`)
}

function page({ method, url, headers }) {
  const rows = Object.entries(headers).map(([name, value]) => `<dt>${name}</dt><dd>${escapeHtml(value)}</dd>`)
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>Through a tunnel</title>
<style>
  :root { --ink: #1c2430; --soft: #5c6878; --paper: #f4f6f8; --card: #fff; --line: #dde3ea; --pipe: #0b7a6f }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e6ebf1; --soft: #97a3b3; --paper: #11161d; --card: #19202a; --line: #2b3542; --pipe: #4fd1c0 }
  }
  *, ::before { box-sizing: border-box; margin: 0 }
  body { background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; padding: 8vh 1.25rem }
  main { margin: auto; max-width: 40rem }
  h1 { font-size: clamp(1.6rem, 6vw, 2.4rem); letter-spacing: -.02em; line-height: 1.15 }
  h2 { font-size: 1rem; margin: 2.5rem 0 .75rem }
  p { color: var(--soft); margin-top: .75rem }
  b, dl { font: .875rem/1.5 ui-monospace, 'DejaVu Sans Mono', monospace; overflow-wrap: anywhere }
  b { display: block; font-weight: 600 }
  ol { list-style: none; margin-top: 2rem; padding: 0 }
  li { padding: 0 0 1.25rem 1.75rem; position: relative }
  li::before { background: var(--paper); border: 3px solid var(--pipe); border-radius: 50%; content: '';
    height: 15px; left: 0; position: absolute; top: 5px; width: 15px }
  li:not(:last-child) { background: linear-gradient(var(--pipe) 0 0) 6px 12px / 3px 100% no-repeat }
  span, dt { color: var(--soft) }
  dl { background: var(--card); border: 1px solid var(--line); border-radius: 10px; display: grid;
    gap: 0 1.25rem; grid-template-columns: max-content 1fr; padding: .5rem 1rem }
  dt, dd { padding: .3rem 0 }
  @media (max-width: 36rem) { dl { grid-template-columns: 1fr } dt { padding-bottom: 0 } dd { padding-top: 0 } }
</style>
<main>
  <h1>You came through a tunnel</h1>
  <p>This page is served on one port. You asked for it on another.</p>
  <ol>
    <li><span>You, in one of ${visitors} visitor connections so far</span><b>${method} ${escapeHtml(url)}</b></li>
    <li><span>Public address</span><b>${tunnel.url}</b></li>
    <li><span>Target, where this page is served</span><b>${tunnel.target}</b></li>
  </ol>
  <p>A visitor connection becomes a line in the terminal when it ends.</p>
  <h2>Your request’s headers, as the target got them</h2>
  <dl>${rows.join('')}</dl>
</main>
</html>
`
}

function escapeHtml(value) {
  return String(value).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
