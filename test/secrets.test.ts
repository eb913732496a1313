/** Secrets with names: what each allows, and that one is taken back without the others. */
import { once } from 'node:events'
import { pEvent } from 'p-event'
import {
  type Connection,
  createServer,
  openTunnel,
  type Refusal,
  type ServerOptions,
  type TunnelInfo,
} from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { freePort } from './helpers/command.js'
import { nonce, prove, RawPeer } from './helpers/raw-peer.js'
import { echoTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

const main = 'correct horse battery staple'
const ci = 'something for the builds'
const guest = 'something for our guests'

describe('a server with named secrets', () => {
  test('lets in who holds any of them, and proves that it holds that one', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ secret: main, secrets: { ci: { secret: ci } } })
    const names: unknown[] = []
    server.on('tunnel', ({ secretName }) => names.push(secretName))

    for (const secret of [main, ci]) {
      await using tunnel = await openTunnel(target.port, { server, secret })
      expect(`${await ask(tunnel, 'hello')}`).toBe('hello')
    }
    expect(names).toEqual(['default', 'ci'])
    expect(server.secret).toBe(main)
  })

  test('tells of each tunnel and of each refusal by which secret it is', async () => {
    await using server = await createServer({ secrets: { ci: { secret: ci } } })
    await using peer = await RawPeer.connect({ host: server.host, port: server.port, secret: ci })
    await peer.logIn(ci)
    await peer.forward()
    const refused = pEvent<'refuse', Refusal>(server, 'refuse')
    peer.send({ type: 'login', proof: null })

    expect(await refused).toMatchObject({ secretName: 'ci', error: { code: 'protocol-violation' } })
    expect(server.secret).toBeUndefined()
  })

  test('has no name for what is open to all', async () => {
    await using server = await createServer()
    const opened = pEvent<'tunnel', TunnelInfo>(server, 'tunnel')
    await using _tunnel = await openTunnel(3000, { server })

    expect((await opened).secretName).toBeUndefined()
  })

  test('refuses who holds none of them', async () => {
    await using server = await createServer({ secrets: { ci: { secret: ci }, guest: { secret: guest } } })

    await expect(openTunnel(3000, { server })).rejects.toMatchObject({ code: 'secret-required' })
    await expect(openTunnel(3000, { server, secret: main })).rejects.toMatchObject({ code: 'secret-wrong' })
  })

  test('may listen where others reach it', async () => {
    await using server = await createServer({ host: '0.0.0.0', secrets: { ci: { secret: ci } } })
    expect(server.port).toBeGreaterThan(0)
  })
})

describe('a named secret', () => {
  test('has its own ports', async () => {
    const [port, other] = [await freePort(), await freePort()]
    const ports = `${port}`
    await using server = await createServer({
      secret: main,
      ports: other,
      secrets: { ci: { secret: ci, ports } },
    })

    await using tunnel = await openTunnel(3000, { server, secret: ci })
    expect(tunnel.port).toBe(port)
    await expect(openTunnel(3000, { server, secret: ci, port: other })).rejects.toMatchObject({
      code: 'port-not-allowed',
    })
    await expect(openTunnel(3000, { server, port })).rejects.toMatchObject({ code: 'port-not-allowed' })
  })

  test('has so many tunnels, of all its clients together, and others have theirs', async () => {
    await using server = await createServer({ secret: main, secrets: { ci: { secret: ci, maxTunnels: 2 } } })
    const first = await openTunnel(3000, { server, secret: ci })
    await using _second = await openTunnel(3000, { server, secret: ci })

    await expect(openTunnel(3000, { server, secret: ci })).rejects.toMatchObject({
      code: 'limit-reached',
      message: 'the secret ci has as many tunnels as it may (2): close one, or raise its maxTunnels',
    })
    await using _other = await openTunnel(3000, { server })
    await first.close()
    await using _third = await openTunnel(3000, { server, secret: ci })
  })

  test('does not lose a place by a tunnel that could not be opened', async () => {
    await using taken = await echoTarget()
    await using server = await createServer({ secrets: { ci: { secret: ci, maxTunnels: 1 } } })
    for (let i = 0; i < 3; i++) {
      const opening = openTunnel(3000, { server, secret: ci, port: taken.port })
      await expect(opening).rejects.toMatchObject({ code: 'port-taken' })
    }
    await using _tunnel = await openTunnel(3000, { server, secret: ci })
  })
})

describe('a secret that is revoked', () => {
  test('closes its tunnels, cuts who is inside, and leaves those of others alone', async () => {
    await using target = await echoTarget()
    await using server = await createServer({ secret: main, secrets: { ci: { secret: ci } } })
    await using tunnel = await openTunnel(target.port, { server, secret: ci })
    await using other = await openTunnel(target.port, { server })
    const [inside, otherInside] = [await visit(tunnel), await visit(other)]
    for (const visitor of [inside, otherInside]) {
      visitor.write('ping')
      await once(visitor, 'data')
    }
    const refused = pEvent<'refuse', Refusal>(server, 'refuse')

    server.revoke('ci')

    expect(await ending(inside)).toBe('reset')
    expect(await tunnel.closed).toMatchObject({ code: 'secret-revoked' })
    expect(await refused).toMatchObject({ secretName: 'ci', error: { code: 'secret-revoked' } })
    await expect.poll(() => server.tunnels.map(({ secretName }) => secretName)).toEqual(['default'])
    otherInside.write('pong')
    expect(`${(await once(otherInside, 'data'))[0]}`).toBe('pong')
    otherInside.destroy()
  })

  test('cuts also who is inside of a tunnel that its client has closed', async () => {
    await using server = await createServer({ secrets: { ci: { secret: ci } } })
    await using peer = await RawPeer.connect({ host: server.host, port: server.port, secret: ci })
    await peer.logIn(ci)
    const address = await peer.forward()
    await using visitor = await RawPeer.connect(address)
    const { id } = await peer.receive('exchange')
    const joined = pEvent<'connection', Connection>(server, 'connection')
    await using stream = await RawPeer.dataStream({ host: server.host, port: server.port, secret: ci }, id)
    const { closed } = await joined
    peer.send({ type: 'close', tunnel: 1 })
    await peer.receive('closed')

    server.revoke('ci')

    expect(await visitor.ended()).toBe('reset')
    expect(await stream.ended()).toBe('reset')
    await closed
  })

  test('lets nobody in any more, and says so to who still holds it', async () => {
    await using server = await createServer({ secret: main, secrets: { ci: { secret: ci } } })
    server.revoke('ci')

    await expect(openTunnel(3000, { server, secret: ci })).rejects.toMatchObject({ code: 'secret-revoked' })
    await using _tunnel = await openTunnel(3000, { server })
  })

  test('stops a login that is under way', async () => {
    await using server = await createServer({ secrets: { ci: { secret: ci } } })
    await using peer = await RawPeer.connect({ host: server.host, port: server.port, secret: ci })
    const mine = nonce()
    peer.send({ type: 'hello', version: 1, nonce: mine })
    const challenge = await peer.receive('challenge')
    server.revoke('ci')
    peer.send({ type: 'login', proof: prove('client', ci, mine, challenge.nonce, peer.binding) })

    expect(await peer.refusal()).toMatchObject({ code: 'secret-revoked' })
  })

  test('does not leave the server open when it was the last', async () => {
    await using server = await createServer({ secret: main })
    server.revoke('default')

    expect(server.secret).toBeUndefined()
    await expect(openTunnel(3000, { server })).rejects.toMatchObject({ code: 'secret-required' })
    await expect(openTunnel(3000, { server, secret: main })).rejects.toMatchObject({ code: 'secret-revoked' })
    expect(() => server.revoke('default')).not.toThrow()
  })

  test('has to be one that there is', async () => {
    await using server = await createServer({ secret: main, secrets: { ci: { secret: ci } } })
    await using open = await createServer()

    expect(() => server.revoke('cd')).toThrow('name must be one of default, ci, not "cd"')
    expect(() => open.revoke('default')).toThrow(expect.objectContaining({ code: 'invalid-option' }))
  })
})

describe('createServer refuses', () => {
  test.each<[string, ServerOptions, string]>([
    [
      'a name in capitals',
      { secrets: { CI: { secret: ci } } },
      'a name in secrets must be 1 to 32 of a-z, 0-9 and -',
    ],
    ['a name that is too long', { secrets: { ['x'.repeat(33)]: { secret: ci } } }, 'a name in secrets'],
    [
      'a short secret',
      { secrets: { ci: { secret: 'short' } } },
      'secrets.ci.secret must have 8 characters or more, not 5',
    ],
    [
      'a name without a secret',
      { secrets: { ci: {} as { secret: string } } },
      'secrets.ci.secret must be a text',
    ],
    [
      'a text for a secret',
      { secrets: { ci: ci as unknown as { secret: string } } },
      "secrets.ci must be an object with the field 'secret'",
    ],
    ['a list', { secrets: [{ secret: ci }] as never }, 'secrets must be an object of secrets by their names'],
    [
      'ports that are none',
      { secrets: { ci: { secret: ci, ports: '9-1' } } },
      'secrets.ci.ports must be a range of ports',
    ],
    [
      'no tunnels at all',
      { secrets: { ci: { secret: ci, maxTunnels: 0 } } },
      'secrets.ci.maxTunnels must be a whole number',
    ],
    [
      'the same secret twice',
      { secrets: { ci: { secret: ci }, cd: { secret: ci } } },
      'secrets.cd must have another secret than ci',
    ],
    [
      'the secret of default again',
      { secret: ci, secrets: { ci: { secret: ci } } },
      'secrets.ci must have another secret than default',
    ],
    [
      'two of the name default',
      { secret: main, secrets: { default: { secret: ci } } },
      'secrets.default must be left out',
    ],
  ])('%s, without the secret in its words', async (_, options, message) => {
    const error = await createServer(options).then(
      () => undefined,
      (reason) => reason,
    )
    expect(error).toMatchObject({ code: 'invalid-option', message: expect.stringContaining(message) })
    expect(error.message).not.toContain(ci)
  })
})
