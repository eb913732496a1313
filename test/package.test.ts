import { cp, mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { openTunnel } from 'pipe-tunnel'
import { test as base, expect } from 'vitest'
import packageJson from '../package.json' with { type: 'json' }
import { type Ending, runToEnd, start, temporaryFolder } from './helpers/command.js'
import { echoTarget } from './helpers/targets.js'
import { ask } from './helpers/visitor.js'

const repository = fileURLToPath(new URL('..', import.meta.url))
/** How long npm and compilers may take on a slow machine, in milliseconds. */
const SLOW = 50_000

/** A folder with the samples, in which nothing is installed but the packed package. */
interface Installed {
  path: string
  /** The files of the package. */
  packed: string[]
}

const test = base.extend<{ installed: Installed }>({
  installed: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads which fixtures this one needs from the pattern.
    async ({}, use) => {
      await using folder = await temporaryFolder()
      const { stdout } = await npm(
        repository,
        'pack',
        '--ignore-scripts',
        '--json',
        '--pack-destination',
        folder.path,
      )
      const [packed] = Object.values<{ files: { path: string }[] }>(JSON.parse(stdout))
      await cp(path.join(repository, 'test', 'samples'), folder.path, { recursive: true })
      await writeFile(path.join(folder.path, 'package.json'), '{ "private": true }')
      const tarball = path.join(folder.path, `pipe-tunnel-${packageJson.version}.tgz`)
      await npm(folder.path, 'install', '--prefer-offline', '--no-audit', '--no-fund', tarball)
      await use({ path: folder.path, packed: packed?.files.map((file) => file.path) ?? [] })
    },
    { scope: 'file' },
  ],
})

test('the package holds what it names, a README, a licence and a changelog, and nothing else', ({
  installed,
}) => {
  const named = JSON.stringify([packageJson.bin, packageJson.exports]).match(/dist\/[\w.-]+/g) ?? []
  const wanted = ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'docs/Dockerfile', ...named]
  const more = /^docs\/\w+\.md$|^dist\/[\w-]+-[\w-]{8}\.(js|cjs|d\.ts|d\.cts)$/

  expect(installed.packed).toEqual(expect.arrayContaining(wanted))
  expect(installed.packed.filter((file) => !wanted.includes(file) && !more.test(file))).toEqual([])
})

test('nothing is installed with it but its dependencies, and no test tool', async ({ installed }) => {
  const modules = await readdir(path.join(installed.path, 'node_modules'))

  const dependencies = [...Object.keys(packageJson.dependencies), 'is-network-error']
  expect(modules.filter((name) => !name.startsWith('.')).sort()).toEqual(
    [...dependencies, 'pipe-tunnel'].sort(),
  )
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

test('pipe-tunnel/vitest works, and its types compile', async ({ installed }) => {
  await link(installed, 'vitest')

  await node(installed, 'node_modules/vitest/vitest.mjs', 'run', '--config', 'vitest/vitest.config.mjs')
  for (const [moduleResolution, module] of [
    ['nodenext', 'nodenext'],
    ['bundler', 'esnext'],
  ]) {
    // The types of vitest itself need more than these settings have.
    await compile(installed, { moduleResolution, module, skipLibCheck: true }, ['vitest/tunnel.spec.ts'])
  }
})

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

/** Runs Node in the folder. */
function node(installed: Installed, ...args: string[]): Promise<Ending> {
  return runToEnd(process.execPath, args, { cwd: installed.path, timeout: SLOW })
}

function npm(cwd: string, ...args: string[]): Promise<Ending> {
  // On Windows npm is a script that only a shell can start; whoever runs us says where its code is.
  const script = process.env.npm_execpath
  return script?.endsWith('npm-cli.js')
    ? runToEnd(process.execPath, [script, ...args], { cwd, timeout: SLOW })
    : runToEnd('npm', args, { cwd, timeout: SLOW })
}

/** Checks files with TypeScript as a user with these settings does. */
async function compile(installed: Installed, settings: object, files: string[]): Promise<void> {
  const compilerOptions = {
    ...settings,
    target: 'es2022',
    lib: ['es2022', 'esnext.disposable'],
    strict: true,
    noEmit: true,
    types: ['node'],
    typeRoots: [path.join(repository, 'node_modules', '@types')],
  }
  const project = path.join(installed.path, 'tsconfig.json')
  await writeFile(project, JSON.stringify({ compilerOptions, files }))
  const tsc = path.join(repository, 'node_modules', 'typescript', 'bin', 'tsc')
  await node(installed, tsc, '--project', project)
}

/** Makes a package of the repository's known in the folder. */
async function link(installed: Installed, name: string): Promise<void> {
  const modules = path.join(installed.path, 'node_modules')
  await mkdir(modules, { recursive: true })
  await symlink(path.join(repository, 'node_modules', name), path.join(modules, name), 'junction')
}
