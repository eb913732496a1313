/**
 * Makes the pictures of docs/images: the inspector's page, light, dark, and on a phone, and the dashboard of a server. Needs dist/ and Debian's chromium.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { gzipSync } from 'node:zlib'
import { chromium } from '@playwright/test'

const root = path.join(import.meta.dirname, '..')
const folder = path.join(root, 'docs', 'images')
mkdirSync(folder, { recursive: true })

const order = { id: 1207, paid: true, total: 49.9, items: [{ sku: 'TEA-12', count: 2 }] }
const answers = {
  '/': [200, { 'Content-Type': 'text/html' }, '<!doctype html><title>Shop</title>'],
  '/app.css': [304, {}, ''],
  '/api/orders/1207': [
    200,
    { 'Content-Type': 'application/json', 'Content-Encoding': 'gzip', 'Set-Cookie': 'sid=8f2c; HttpOnly' },
    gzipSync(JSON.stringify(order)),
  ],
  '/webhooks/payment': [202, { 'Content-Type': 'application/json' }, '{"accepted":true}'],
  '/old': [301, { Location: '/' }, ''],
  '/admin': [403, { 'Content-Type': 'text/plain' }, 'Forbidden'],
  '/api/report': [500, { 'Content-Type': 'application/json' }, '{"error":"no rows"}'],
}
const target = http.createServer((request, response) => {
  const [status, headers, body] = answers[request.url.split('?')[0]] ?? [404, {}, '']
  request.resume().once('end', () => response.writeHead(status, headers).end(body))
})
target.listen(0, '127.0.0.1')
await once(target, 'listening')

const pipe = spawn(process.execPath, [
  path.join(root, 'dist', 'cli.js'),
  'expose',
  String(target.address().port),
  '--inspect',
  '--json',
])
const [line] = await once(createInterface(pipe.stdout), 'line')
const { url, inspector } = JSON.parse(line)

const json = { 'Content-Type': 'application/json', Authorization: 'Bearer eyJhbGciOi' }
for (const [method, where, body] of [
  ['GET', '/'],
  ['GET', '/app.css'],
  ['GET', '/old'],
  ['GET', '/favicon.ico'],
  ['GET', '/admin?token=abc'],
  ['POST', '/webhooks/payment', JSON.stringify({ order: 1207, paid: true })],
  ['DELETE', '/api/report'],
  ['GET', '/api/orders/1207'],
]) {
  await fetch(url + where, { method, body, headers: json, redirect: 'manual' }).then((answer) =>
    answer.text(),
  )
}

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium' })
for (const [name, options] of [
  ['inspector', { viewport: { width: 780, height: 420 } }],
  ['inspector-dark', { viewport: { width: 780, height: 420 }, colorScheme: 'dark' }],
  ['inspector-phone', { viewport: { width: 390, height: 560 }, isMobile: true }],
]) {
  const page = await browser.newPage(options)
  await page.goto(inspector)
  await page.getByRole('button', { name: /payment/ }).click()
  await page.getByText('"accepted"').waitFor()
  await page.mouse.move(0, 0)
  await page.screenshot({ path: path.join(folder, `${name}.png`) })
  await page.close()
}
pipe.kill('SIGKILL')
target.close()
await drawDashboard()
await browser.close()

async function drawDashboard() {
  const cli = path.join(root, 'dist', 'cli.js')
  const start = (...args) => spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const firstLine = async (stream) => (await once(createInterface(stream), 'line'))[0]
  const server = start('server', '--port', '0', '--http-port', '0', '--admin-port', '0')
  const [address, said] = await Promise.all([server.stdout, server.stderr].map(firstLine))
  const [admin] = /http:[^;]+/.exec(said)
  const echo = net.createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(0, '127.0.0.1')
  await once(echo, 'listening')
  const { port } = echo.address()
  const clients = [[`${port}`, '--hostname', 'shop'], [`${port}`], [`udp://127.0.0.1:${port}`]].map((words) =>
    start('expose', ...words, '--to', address, '--json'),
  )
  const opened = await Promise.all(clients.map(async ({ stdout }) => JSON.parse(await firstLine(stdout))))
  const visitors = [2_500, 60_000, 900].map((size) => {
    const visitor = net.connect(opened[1].port, '127.0.0.1').resume()
    visitor.write(Buffer.alloc(size))
    return visitor
  })
  const page = await browser.newPage({ viewport: { width: 780, height: 420 } })
  await page.goto(admin)
  await page.getByRole('button', { name: /3 inside/ }).click()
  await page.getByText('Visitors inside').waitFor()
  await page.mouse.move(0, 0)
  await page.screenshot({ path: path.join(folder, 'dashboard.png') })
  for (const visitor of visitors) visitor.destroy()
  for (const child of [...clients, server]) child.kill('SIGKILL')
  echo.close()
}
target.closeAllConnections()
