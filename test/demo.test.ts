import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import packageJson from '../package.json' with { type: 'json' }
import { start } from './helpers/command.js'

const demo = fileURLToPath(new URL('../docs/demo.js', import.meta.url))

test('npm start builds the package and runs the demo', () => {
  expect(packageJson.scripts.start).toBe('npm run --silent build && node docs/demo.js')
})

test('the demo serves its page at the URL that it prints, and ends well at SIGTERM', async (context) => {
  if (process.platform === 'win32') context.skip('Windows has no SIGTERM')
  await using program = start(process.execPath, [demo])
  const url = await program.stdout.line(/./)

  const response = await fetch(`${url}/<b>?q=1`, { headers: { 'x-sample': '<i>', connection: 'close' } })
  const page = await response.text()
  expect(response.status).toBe(200)
  expect(page).toContain('You came through a tunnel')
  expect(page).toContain(url)
  expect(page).toContain('<dt>x-sample</dt><dd>&#60;i&#62;</dd>')
  expect(page).not.toContain('<i>')
  await program.stderr.line(/^visitor 1, 127\.0\.0\.1:\d+: \d+ bytes in, \d+ bytes out$/)

  program.signal('SIGTERM')
  const { code, stdout, stderr } = await program.ended()
  expect(code).toBe(0)
  expect(stdout).toBe(`${url}\n`)
  expect(stderr).not.toContain('gone')
})

test('the demo ends although a visitor is still inside', async (context) => {
  if (process.platform === 'win32') context.skip('Windows has no SIGTERM')
  await using program = start(process.execPath, [demo])
  const url = await program.stdout.line(/./)
  // Without `connection: close` the connection stays open for further requests.
  await (await fetch(url)).text()

  program.signal('SIGTERM')

  expect((await program.ended()).code).toBe(0)
})
