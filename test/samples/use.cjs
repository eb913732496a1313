// Opens a tunnel, is a visitor of it, closes it, and ends by itself.
const { once } = require('node:events')
const http = require('node:http')
const { openTunnel } = require('pipe-tunnel')

async function main() {
  const target = http.createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1')
  await once(target, 'listening')

  const tunnel = await openTunnel(target.address().port)
  const response = await fetch(tunnel.url)
  process.stdout.write(await response.text())

  await tunnel.close()
  target.close()
}

main()
