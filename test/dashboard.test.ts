/** The page of a server's administration, in a real browser. */
import { openTunnel } from 'pipe-tunnel'
import { expect, test } from 'vitest'
import { useChromium } from './helpers/browser.js'
import { pipe } from './helpers/command.js'
import { echoTarget } from './helpers/targets.js'
import { ask } from './helpers/visitor.js'

const SECRET = 'of the dashboard alone'

const browser = useChromium()

test('tunnels appear as they come, show who is inside, and are closed by who confirms it', async () => {
  await using server = await startServer()
  await using view = await openPage(server.url)
  await view.page.getByText('No tunnels are open').waitFor()
  await using target = await echoTarget()
  await using tunnel = await openTunnel(target.port, { server: server.address })
  await using other = await openTunnel(target.port, { server: server.address })
  await ask(tunnel, 'hello')

  const row = (port: number) => view.page.getByRole('button', { name: new RegExp(`127.0.0.1:${port} `) })
  await row(tunnel.port).filter({ hasText: '5 B in · 5 B out' }).click()
  await view.page.getByText('open since').waitFor()
  await view.page.keyboard.press('/')
  await view.page.keyboard.type(`:${other.port}`)
  await row(tunnel.port).waitFor({ state: 'hidden' })
  await view.page.keyboard.press('Escape')
  await view.page.keyboard.press('Escape')
  await row(tunnel.port).click()

  view.answers.push(false, true)
  await view.page.keyboard.press('x')
  await row(tunnel.port).waitFor()
  expect(view.answers).toEqual([true])
  await view.page.getByRole('button', { name: 'Close tunnel' }).click()
  expect((await tunnel.closed)?.code).toBe('closed-by-server')
  await row(tunnel.port).waitFor({ state: 'detached' })
  await row(other.port).waitFor()
  expect(view.errors).toEqual([])
})

test('a browser asks for the secret, where there is one', async () => {
  await using server = await startServer({ PIPE_ADMIN_SECRET: SECRET })
  await expect(openPage(server.url)).rejects.toThrow('ERR_INVALID_AUTH_CREDENTIALS')
  await using view = await openPage(server.url, { username: 'anybody', password: SECRET })
  await view.page.getByText('No tunnels are open').waitFor()
})

async function startServer(env: Record<string, string> = {}) {
  const program = pipe(['server', '--port', '0', '--admin-port', '0'], { env })
  const address = await program.stdout.line(/^pipe:/)
  const line = await program.stderr.line(/dashboard and administration at/)
  const url = /administration at (http:\S+?)(;|$)/.exec(line)?.[1] ?? ''
  return { address, url, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() }
}

/** A page, and what it is answered when it asks whether a tunnel is to be closed. */
async function openPage(url: string, httpCredentials?: { username: string; password: string }) {
  const context = await browser().newContext(httpCredentials ? { httpCredentials } : {})
  const page = await context.newPage()
  const answers: boolean[] = []
  const errors: string[] = []
  page.on('pageerror', (error) => errors.push(error.message))
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()))
  page.on('dialog', (dialog) => (answers.shift() ? dialog.accept() : dialog.dismiss()))
  await page.goto(`${url}/`)
  return { page, answers, errors, [Symbol.asyncDispose]: () => context.close() }
}
