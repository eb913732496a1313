/** The fixtures of each test runner, in a project of that runner where the packed package is installed. */
import { cp, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { compile, type Installed, install, isAtLeast, link, nodeToEnd } from './helpers/installed.js'
import { snippetsOf } from './helpers/snippets.js'
import { visit } from './helpers/visitor.js'

/** How long npm and a runner may take on a slow machine, in milliseconds. */
const SLOW = 120_000

/** How a project comes to a runner, and runs files with it. */
interface Runner {
  /** What npm installs for it. */
  install?: string
  /** What is linked, as it is in this repository already. */
  link?: string
  /** The oldest Node that it runs on, where that is not ours. */
  node?: [major: number, minor: number]
  run: string[]
  passes: string
  fails: string
  /** Where snippets of the docs are run that import its fixtures. */
  snippet?: { imports: string; file: string }
}

const jest: Runner = {
  run: ['node_modules/jest/bin/jest.js', '--rootDir', 'jest'],
  passes: 'tunnel.test.js',
  fails: 'fails.test.js',
  snippet: { imports: 'pipe-tunnel/jest', file: 'jest/docs.test.js' },
}

const vitest: Runner = {
  run: ['node_modules/vitest/vitest.mjs', 'run', '--config', 'vitest/vitest.config.mjs'],
  passes: 'tunnel.spec.ts',
  fails: 'fails.spec.ts',
}

const runners: Record<string, Runner> = {
  'vitest 3': { ...vitest, install: 'vitest@3' },
  'vitest 4': { ...vitest, link: 'vitest' },
  'vitest 5': { ...vitest, install: 'vitest@5', node: [22, 12] },
  playwright: {
    link: '@playwright/test',
    run: ['node_modules/@playwright/test/cli.js', 'test', '--config', 'playwright'],
    passes: 'tunnel.spec.ts',
    fails: 'fails.spec.ts',
    snippet: { imports: 'pipe-tunnel/playwright', file: 'playwright/docs.spec.ts' },
  },
  'node:test': { run: ['--test'], passes: 'node-test/tunnel.mjs', fails: 'node-test/fails.cjs' },
  'jest 29': { ...jest, install: 'jest@29' },
  'jest 30': { ...jest, install: 'jest@30' },
}

describe.each(Object.entries(runners))('the fixtures for %s', (_name, runner) => {
  const { run, passes, fails, snippet, node } = runner
  const isOld = node !== undefined && !isAtLeast(...node)
  let project: Installed

  beforeEach((context) => {
    if (isOld) context.skip(`needs Node ${node.join('.')}: npm run matrix has it`)
  })

  beforeAll(async () => {
    if (isOld) return
    project = await install(...(runner.install ? [runner.install] : []))
    if (runner.link) await link(project, runner.link)
  }, SLOW)

  afterAll(() => project?.[Symbol.asyncDispose]())

  test(
    'open tunnels and receivers, and nothing of them is left when the run has ended by itself',
    async () => {
      const { code, stdout, stderr } = await nodeToEnd(project, ...run, passes)

      expect(code, `${stdout}${stderr}`).toBe(0)
      await expectFree(`${stdout}${stderr}`, 3)
    },
    SLOW,
  )

  test(
    'show what went through the tunnels where a test fails',
    async () => {
      const { code, stdout, stderr } = await nodeToEnd(project, ...run, fails)
      const report = `${stdout}${stderr}`

      expect(code, report).not.toBe(0)
      expect(report).toContain('this one fails')
      expect(report).toMatch(/\d+ ms {2}http:\S+ {2}open, leads to 127\.0\.0\.1:1\n/)
      expect(report).toMatch(/turned away: the target .+ can't be reached .*\(target-unreachable\)/)
      // Playwright's list shows no more; all of it is in its other reports.
      if (runner.link === '@playwright/test') return
      expect(report).toContain('127.0.0.1 may not visit this tunnel: see allow and deny (visitor-denied)')
      expect(report).toMatch(/127\.0\.0\.1:\d+ ended: \d+ B in, \d+ B out/)
      expect(report).toContain('POST /paid received (2 B)')
    },
    SLOW,
  )

  test.runIf(snippet)(
    'do what docs/testing.md shows',
    async () => {
      const { imports, file } = snippet as { imports: string; file: string }
      const shown = (await snippetsOf('docs/testing.md')).filter(({ code }) => code.includes(`'${imports}'`))
      expect(shown).toHaveLength(1)
      await writeFile(path.join(project.path, file), shown[0]?.code ?? '')
      const { code, stdout, stderr } = await nodeToEnd(project, ...run, path.basename(file))

      expect(code, `${stdout}${stderr}`).toBe(0)
    },
    SLOW,
  )

  test.runIf(runner.link)(
    'have types that compile',
    async () => {
      const files = [`${runner.link === 'vitest' ? 'vitest' : 'playwright'}/tunnel.spec.ts`]
      // The types of the runners themselves need more than these settings have.
      await compile(project, { moduleResolution: 'nodenext', module: 'nodenext', skipLibCheck: true }, files)
      await compile(project, { moduleResolution: 'bundler', module: 'esnext', skipLibCheck: true }, files)
    },
    SLOW,
  )

  test.runIf(run === vitest.run).each(['threads', 'forks'])(
    'never meet in %s that run side by side',
    async (pool) => {
      const files = ['one', 'two', 'three'].map((name) => `vitest/beside-${name}.spec.ts`)
      const sample = path.join(project.path, 'vitest', passes)
      for (const file of files) await cp(sample, path.join(project.path, file))
      const beside = [...run, '--pool', pool, ...files.map((file) => path.basename(file))]
      const { code, stdout, stderr } = await nodeToEnd(project, ...beside)

      expect(code, `${stdout}${stderr}`).toBe(0)
      const servers = [...stdout.matchAll(/ports (\d+) \d+/g)].map(([, port]) => port)
      expect(new Set(servers).size).toBe(files.length)
      await expectFree(`${stdout}${stderr}`, 3 * files.length)
      for (const file of files) await rm(path.join(project.path, file))
    },
    SLOW,
  )

  test.runIf(run === vitest.run)(
    'share a server of the run across its workers',
    async () => {
      const global = ['node_modules/vitest/vitest.mjs', 'run', '--config', 'vitest/global.config.mjs']
      const { code, stdout, stderr } = await nodeToEnd(project, ...global)

      expect(code, `${stdout}${stderr}`).toBe(0)
      const servers = [...stdout.matchAll(/^server (\d+)$/gm)].map(([, port]) => port)
      expect(servers).toHaveLength(2)
      expect(new Set(servers).size).toBe(1)
      await expectFree(stdout, 4)
    },
    SLOW,
  )
})

/** Nobody listens any more on the ports that a run has told. */
async function expectFree(said: string, count: number): Promise<void> {
  const ports = [...said.matchAll(/ports ([\d ]+)/g)].flatMap(([, list = '']) => list.trim().split(' '))
  expect(ports.length, said).toBeGreaterThanOrEqual(count)
  for (const port of ports) {
    await expect(visit({ port: Number(port) })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  }
}
