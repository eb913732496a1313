// Opens a tunnel, is a visitor of it, closes it, and ends by itself.
import { once } from 'node:events'
import http from 'node:http'
import { openTunnel } from 'pipe-tunnel'

const target = http.createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1')
await once(target, 'listening')

const tunnel = await openTunnel(target.address().port)
const response = await fetch(tunnel.url)
process.stdout.write(await response.text())

await tunnel.close()
target.close()
