import { cp } from 'node:fs/promises'
import path from 'node:path'
import { openTunnel } from 'pipe-tunnel'
import { test as base, expect } from 'vitest'
import packageJson from '../package.json' with { type: 'json' }
import { start, temporaryFolder } from './helpers/command.js'
import { compile, type Installed, install, link, modulesOf, node, npm } from './helpers/installed.js'
import { echoTarget } from './helpers/targets.js'
import { ask } from './helpers/visitor.js'

const test = base.extend<{ installed: Installed }>({
  installed: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads which fixtures this one needs from the pattern.
    async ({}, use) => {
      await using installed = await install()
      await use(installed)
    },
    { scope: 'file' },
  ],
})

test('the package holds what it names, a README, a licence and a changelog, and nothing else', ({
  installed,
}) => {
  const named = JSON.stringify([packageJson.bin, packageJson.exports]).match(/dist\/[\w.-]+/g) ?? []
  const wanted = ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'dist/page/index.html', ...named]
  const more =
    /^docs\/\w+\.md$|^docs\/deploy\/[\w.-]+$|^dist\/page\/\w+\.(html|css|js)$|^dist\/[\w-]+-[\w-]{8}\.(js|cjs|d\.ts|d\.cts)$/

  expect(installed.packed).toEqual(expect.arrayContaining(wanted))
  expect(installed.packed.filter((file) => !wanted.includes(file) && !more.test(file))).toEqual([])
})

test('nothing is installed with it but its dependencies, and no test tool', async ({ installed }) => {
  const dependencies = [...Object.keys(packageJson.dependencies), 'is-network-error']
  expect(await modulesOf(installed)).toEqual([...dependencies, 'pipe-tunnel'].sort())
})

test('an ES module imports it, uses a tunnel and ends by itself', async ({ installed }) => {
  expect((await node(installed, 'use.mjs')).stdout).toBe('hello')
})

test('a CommonJS module requires it, uses a tunnel and ends by itself', async ({ installed }) => {
  expect((await node(installed, 'use.cjs')).stdout).toBe('hello')
})

test('it can be required where ES modules can not', async ({ installed, skip }) => {
  const flag = '--no-experimental-require-module'
  skip(!process.allowedNodeEnvironmentFlags.has(flag), `this Node has no ${flag}`)

  for (const file of ['use.cjs', 'webhooks.cjs'])
    expect((await node(installed, flag, file)).stdout).toBe('hello')
})

test('pipe-tunnel/webhooks works in both kinds of modules', async ({ installed }) => {
  for (const file of ['webhooks.mjs', 'webhooks.cjs'])
    expect((await node(installed, file)).stdout).toBe('hello')
})

test('both builds work together in one process', async ({ installed }) => {
  expect((await node(installed, 'both.mjs')).stdout).toBe('hello')
})

test('npx finds the command by its name and by that of the package', async ({ installed }) => {
  for (const name of ['pipe', 'pipe-tunnel']) {
    const { stdout } = await npm(installed.path, 'exec', '--offline', '--', name, '--version')
    expect(stdout).toBe(`${packageJson.version}\n`)
  }
})

test.for([
  ['nodenext', 'nodenext', 'types/module.mts', 'types/common.cts'],
  ['bundler', 'esnext', 'types/module.mts'],
])(
  'its types compile under moduleResolution %s',
  async ([moduleResolution, module, ...files], { installed }) => {
    await compile(installed, { moduleResolution, module, skipLibCheck: false }, files)
  },
)

test('pipe-tunnel/testcontainers loads as both kinds of module, and its types compile', async ({
  installed,
}) => {
  await link(installed, 'testcontainers')

  for (const file of ['use.mjs', 'use.cjs']) {
    expect((await node(installed, `testcontainers/${file}`)).stdout).toBe('PipeContainer')
  }
  for (const [moduleResolution, module, ...files] of [
    ['nodenext', 'nodenext', 'module.mts', 'common.cts'],
    ['bundler', 'esnext', 'module.mts'],
  ]) {
    const samples = files.map((file) => `testcontainers/${file}`)
    await compile(installed, { moduleResolution, module, skipLibCheck: true }, samples)
  }
})

test('the server runs where nothing is installed, as in a container', async ({ installed }) => {
  await using folder = await temporaryFolder()
  for (const one of ['dist', 'package.json']) {
    const from = path.join(installed.path, 'node_modules', 'pipe-tunnel', one)
    await cp(from, path.join(folder.path, one), { recursive: true })
  }
  const command = path.join(folder.path, 'dist', 'cli.js')

  await using server = start(process.execPath, [command, 'server', '--port', '0'])
  await using target = await echoTarget()
  await using tunnel = await openTunnel(target.port, { server: await server.stdout.line(/^pipe:/) })
  expect(String(await ask(tunnel, 'hello'))).toBe('hello')
})
