import { pEvent } from 'p-event'
import { type Connection, createServer, openTunnel } from 'pipe-tunnel'
import { expect, test } from 'vitest'
import { answerAtEndTarget, echoTarget, httpTarget } from './helpers/targets.js'
import { ask } from './helpers/visitor.js'

test('a local web server is reachable through a tunnel with a server of its own', async () => {
  await using target = await httpTarget((request, response) => response.end(`hello ${request.url}`))
  await using tunnel = await openTunnel(target.port)

  const response = await fetch(`${tunnel.url}/there`)

  expect(await response.text()).toBe('hello /there')
})

test('a connection is told with its visitor, and its end with bytes and duration', async () => {
  await using target = await echoTarget()
  await using tunnel = await openTunnel(target.address)
  const connected = pEvent<'connection', Connection>(tunnel, 'connection')

  expect(await ask(tunnel, 'ping')).toEqual(Buffer.from('ping'))

  const { visitor, closed } = await connected
  expect(visitor).toEqual({ address: '127.0.0.1', port: expect.any(Number) })
  expect(await closed).toEqual({ bytesIn: 4, bytesOut: 4, duration: expect.any(Number) })
})

test('a target that answers after the visitor has finished sending is heard in full', async () => {
  await using target = await answerAtEndTarget((request) => Buffer.alloc(5_000_000, request))
  await using server = await createServer()
  await using tunnel = await openTunnel(target.port, { server })

  expect((await ask(tunnel, 'x')).equals(Buffer.alloc(5_000_000, 'x'))).toBe(true)
})
