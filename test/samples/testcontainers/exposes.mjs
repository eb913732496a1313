import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { PipeContainer } from 'pipe-tunnel/testcontainers'

const { version } = JSON.parse(
  readFileSync(createRequire(import.meta.url).resolve('testcontainers/package.json'), 'utf8'),
)
const server = await new PipeContainer(process.argv[2]).withPorts(1).start()
const app = await server.expose((_, response) => response.end('hello'))
const response = await fetch(app.mapped.url)
process.stdout.write(`${version.split('.')[0]}: ${await response.text()}\n`)
await server.stop()
