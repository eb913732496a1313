/** All parts together, as a team runs them: docs/https.md, «How a team runs it». */
import { once } from 'node:events'
import { createServer } from 'node:http'
import https from 'node:https'
import { chromium } from '@playwright/test'
import { pEvent } from 'p-event'
import { openTunnel } from 'pipe-tunnel'
import { expect, test, vi } from 'vitest'
import WebSocket, { WebSocketServer } from 'ws'
import { keepBooks, readMetrics } from './helpers/books.js'
import { pipe } from './helpers/command.js'
import { type Deployment, deploy } from './helpers/compose.js'
import { needsDocker } from './helpers/docker.js'
import { find, needs } from './helpers/programs.js'
import { httpTarget, readAll, track } from './helpers/targets.js'
import { udpEchoTarget, udpVisitor } from './helpers/udp.js'

const secret = 'the-secret-of-who-runs-it'
const adminSecret = 'the-secret-of-who-looks-after-it'
const alice = 'the-secret-of-alice'
const bob = 'the-secret-of-bob'
/** Longest wait for what happens in containers, in milliseconds. */
const DEADLINE = 60_000

test('a team shares a server, which is restarted in the middle', async (context) => {
  needs(context, 'docker-compose', 'caddy', 'chromium')
  await needsDocker(context)
  await using deployment = await deploy({
    secret,
    adminSecret,
    config: {
      secrets: {
        alice: { secret: alice, hostnames: ['chat'] },
        bob: { secret: bob, hostnames: ['shop', 'shop-*'] },
      },
    },
  })
  const { server, domain, publicPort } = deployment

  // Alice has a chat and a game.
  await using chat = await chatTarget()
  await using game = await udpEchoTarget()
  const hers = { server, secret: alice, retry: true, timeout: DEADLINE }
  await using chatTunnel = await openTunnel(chat.port, { ...hers, hostname: 'chat' })
  await using gameTunnel = await openTunnel(game.url, { ...hers, port: publicPort })
  expect(chatTunnel.url).toBe(`https://chat.${domain}`)
  expect(gameTunnel.url).toBe(`udp://127.0.0.1:${publicPort}`)

  // Bob has a shop, and looks at its requests.
  await using shop = await httpTarget(async (request, response) => {
    response.end(`${request.method} ${request.url} ${await readAll(request)}`)
  })
  const named = ['--to', server, '--hostname', 'shop']
  await using expose = pipe(['expose', `${shop.port}`, ...named, '--inspect', '--json'], {
    env: { PIPE_SECRET: bob },
  })
  const ready = JSON.parse(await expose.stdout.line(/"ready"/))
  expect(ready.url).toBe(`https://shop.${domain}`)
  await using browser = await chromium.launch({ executablePath: find('chromium') ?? '' })
  const page = await browser.newPage()
  await page.goto(ready.inspector)

  // Neither can have what is the other's, and a stranger nothing.
  const refused = (given: string, hostname: string) =>
    openTunnel(shop.port, { server, secret: given, hostname }).then(
      () => 'open',
      ({ code }) => code,
    )
  expect(await refused(bob, 'chat')).toBe('hostname-not-allowed')
  expect(await refused(secret, 'shop-2')).toBe('hostname-not-allowed')
  expect(await refused('the-secret-of-nobody', 'shop')).toBe('secret-wrong')

  // Everybody is visited.
  const agent = await visitorsAgent(deployment)
  await using player = await udpVisitor({ host: '127.0.0.1', port: publicPort })
  const visitAll = async (text: string) => {
    const talker = new WebSocket(`wss://chat.${domain}`, { agent })
    await once(talker, 'open')
    talker.send(text)
    expect(`${(await once(talker, 'message'))[0]}`).toBe(text)
    expect(`${await player.ask(text)}`).toBe(text)
    expect(await post(`https://shop.${domain}/orders/${text}`, text, agent)).toBe(
      `POST /orders/${text} ${text}`,
    )
    await page.getByRole('button', { name: `/orders/${text}` }).waitFor()
    return talker
  }
  let books = keepBooks([chat, shop], game)
  const talker = await visitAll('morning')

  // The metrics are what the targets have seen.
  const expectMetrics = (more: object) =>
    vi.waitFor(
      async () =>
        expect(await readMetrics(deployment.admin, adminSecret)).toMatchObject({ ...books(), ...more }),
      { timeout: DEADLINE, interval: 100 },
    )
  const open = {
    'pipe_tunnels{protocol="http"}': 2,
    'pipe_tunnels{protocol="udp"}': 1,
    'pipe_opened_tunnels_total{protocol="http"}': 2,
    'pipe_opened_tunnels_total{protocol="udp"}': 1,
  }
  await expectMetrics({ ...open, 'pipe_refusals_total{code="secret-wrong"}': 1 })

  // The server is restarted: who is inside is cut, and the clients come back by themselves.
  const cut = once(talker, 'close')
  const back = [chatTunnel, gameTunnel].map((one) => pEvent(one, 'reconnect', { timeout: DEADLINE }))
  await deployment.compose('restart', 'pipe')
  books = keepBooks([chat, shop], game)
  await Promise.all([cut, ...back, expose.stdout.line(/"reconnect"/)])
  expect([chatTunnel.url, gameTunnel.url]).toEqual([
    `https://chat.${domain}`,
    `udp://127.0.0.1:${publicPort}`,
  ])

  // All goes on as before, and the metrics count from zero.
  const later = await visitAll('evening')
  await expectMetrics(open)
  expect(await readMetrics(deployment.admin, adminSecret)).not.toHaveProperty(
    'pipe_refusals_total{code="secret-wrong"}',
  )

  // Everybody goes home, and leaves nothing behind.
  later.close()
  await Promise.all([chatTunnel.close(), gameTunnel.close()])
  expose.signal('SIGINT')
  expect(await expose.ended()).toMatchObject({ code: 0 })
  await expectMetrics({
    'pipe_tunnels{protocol="http"}': 0,
    'pipe_tunnels{protocol="udp"}': 0,
    pipe_visitors: 0,
  })
  expect(await readCaddy(deployment)).toContain('pipe-tunnel')
  await deployment.compose('stop', 'pipe')
  expect(await readCaddy(deployment)).toBe('{"admin":{"listen":"0.0.0.0:2019"}}\n')
  await deployment.down()
  expect(await deployment.containers()).toEqual([])
}, 240_000)

/** Sends back what visitors say. */
function chatTarget() {
  const server = createServer()
  new WebSocketServer({ server }).on('connection', (socket) => {
    socket.on('message', (data) => socket.send(`${data}`))
    // Caddy ends it with a frame that only a server may send.
    socket.on('error', () => {})
  })
  return track(server)
}

/** For visitors on this machine, who trust Caddy's own authority. */
async function visitorsAgent({ caddyAdmin }: Deployment): Promise<https.Agent> {
  const answer = await fetch(`${caddyAdmin}/pki/ca/local`)
  const { root_certificate } = (await answer.json()) as { root_certificate: string }
  return new https.Agent({
    ca: root_certificate,
    autoSelectFamily: false,
    // The name server of the machine may not know that these names lead here.
    lookup: (_name, _options, done) => done(null, '127.0.0.1', 4),
  })
}

async function post(url: string, body: string, agent: https.Agent): Promise<string> {
  const request = https.request(url, { method: 'POST', agent }).end(body)
  const [response] = await once(request, 'response')
  return `${await readAll(response)}`
}

async function readCaddy({ caddyAdmin }: Deployment): Promise<string> {
  return await (await fetch(`${caddyAdmin}/config/`)).text()
}
