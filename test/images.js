/**
 * Makes the pictures of docs/images: the inspector's page, light, dark, and on a phone. Needs dist/ and Debian's chromium.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import http from 'node:http'
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
await browser.close()
pipe.kill('SIGKILL')
target.close()
target.closeAllConnections()
