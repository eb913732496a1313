import { pEvent } from 'p-event'
import { createServer, openTunnel, type TunnelInfo } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { startWatchdog } from '../src/watchdog.js'
import { fakeServer, RawPeer } from './helpers/raw-peer.js'
import { echoTarget } from './helpers/targets.js'
import { ask } from './helpers/visitor.js'

describe('a heartbeat', () => {
  test('keeps a silent tunnel open', async () => {
    await using server = await createServer({ heartbeatInterval: 10, heartbeatTimeout: 2_000 })
    await using target = await echoTarget()
    await using tunnel = await openTunnel(target.port, { server })
    await using client = await RawPeer.connect(server)
    await client.logIn()
    for (let i = 0; i < 5; i++) {
      await client.receive('heartbeat')
      client.send({ type: 'heartbeat' })
    }
    expect((await ask(tunnel, 'still here')).toString()).toBe('still here')
  })

  test('that a client does not answer costs it its tunnels', async () => {
    await using server = await createServer({
      heartbeatInterval: 20,
      heartbeatTimeout: 200,
      resumeTimeout: 0,
    })
    await using client = await RawPeer.connect(server)
    await client.logIn()
    const opened = pEvent<'tunnel', TunnelInfo>(server, 'tunnel')
    await client.forward()

    expect(await (await opened).closed).toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining('200 ms'),
    })
    expect(await client.refusal()).toMatchObject({ code: 'connection-lost' })
    expect(server.tunnels).toEqual([])
  })

  test('that a server does not send costs the tunnel', async () => {
    await using server = await fakeServer()
    const opening = openTunnel(3000, { server, reconnect: false })
    const peer = await (await server.accept()).admit(undefined, { heartbeatTimeout: 200 })
    const { tunnel: number } = await peer.receive('forward')
    peer.send({ type: 'forwarded', tunnel: number, host: null, port: 4000 })
    await using tunnel = await opening

    expect(await tunnel.closed).toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining('200 ms'),
    })
  })
})

describe('a watchdog', () => {
  test('barks within its time of silence, and once', () => {
    vi.useFakeTimers()
    try {
      const onSilence = vi.fn()
      const watchdog = startWatchdog(1_000, onSilence)
      vi.advanceTimersByTime(900)
      watchdog.heard()
      vi.advanceTimersByTime(749)
      expect(onSilence).not.toHaveBeenCalled()
      vi.advanceTimersByTime(251)
      expect(onSilence).toHaveBeenCalledOnce()
      vi.advanceTimersByTime(10_000)
      expect(onSilence).toHaveBeenCalledOnce()
      watchdog.stop()
    } finally {
      vi.useRealTimers()
    }
  })

  test('does not blame its peer for its own process being suspended', async () => {
    let silent = false
    const watchdog = startWatchdog(200, () => {
      silent = true
    })
    // The event loop stands still for five timeouts, as at a breakpoint.
    const start = performance.now()
    while (performance.now() - start < 1_000);
    await new Promise((resolve) => setImmediate(resolve))

    expect(silent).toBe(false)
    watchdog.stop()
  })
})
