// A server of the CommonJS build, a tunnel of the ES module build.
import { once } from 'node:events'
import http from 'node:http'
import { createRequire } from 'node:module'
import { openTunnel } from 'pipe-tunnel'

const { createServer } = createRequire(import.meta.url)('pipe-tunnel')

const target = http.createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1')
await once(target, 'listening')

const server = await createServer({ secret: 'correct-horse-battery' })
const tunnel = await openTunnel(target.address().port, { server })
const response = await fetch(tunnel.url)
process.stdout.write(await response.text())

await tunnel.close()
await server.close()
target.close()
