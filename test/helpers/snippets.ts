/** Runs what README and docs show, in a project like a reader's. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { basename, delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import getPort, { portNumbers } from 'get-port'
import { createServer } from 'pipe-tunnel'
import { expect, vi } from 'vitest'
import { type Ending, start } from './command.js'
import { image } from './docker.js'
import { echoTarget, httpTarget } from './targets.js'

const repository = fileURLToPath(new URL('../..', import.meta.url))
const packages = ['@types', 'jiti', 'p-event', 'testcontainers', 'typescript', 'vitest']
const secret = 'correct-horse-battery'

/** How long a snippet may take to show what it is to show, in milliseconds. */
const DEADLINE = 40_000

/** A fenced block. */
export interface Snippet {
  /** As in `README.md:12`. */
  place: string
  language: string
  code: string
  /** The text of the nearest heading above. */
  heading: string
  /** Why it is not run: from a comment `<!-- not run: … -->` right above it. */
  notRun?: string
  /** What it prints: the `text` block that comes next under the same heading. */
  output?: Snippet
}

/** The fenced blocks of a Markdown file of the repository, in their order. */
export async function snippetsOf(file: string): Promise<Snippet[]> {
  const lines = (await readRepository(file)).split(/\r?\n/)
  const snippets: Snippet[] = []
  let heading = ''
  let notRun: string | undefined
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] as string
    const [, language] = /^```(\w*)/.exec(line) ?? []
    if (language === undefined) {
      heading = /^#+ (.+)/.exec(line)?.[1] ?? heading
      if (line) notRun = /^<!-- not run: (.+) -->$/.exec(line)?.[1]
      continue
    }
    const end = lines.indexOf('```', i + 1)
    const code = lines.slice(i + 1, end).join('\n')
    const snippet: Snippet = { place: `${file}:${i + 1}`, language, code, heading, notRun }
    const above = snippets.at(-1)
    if (language === 'text' && above?.language === 'sh' && above.heading === heading) above.output = snippet
    snippets.push(snippet)
    notRun = undefined
    i = end
  }
  return snippets
}

export function readRepository(file: string): Promise<string> {
  return readFile(join(repository, file), 'utf8')
}

/** The rows of one of the tables under a heading, without its head; each cell without its backticks. */
export async function tableUnder(file: string, heading: string, number = 0): Promise<string[][]> {
  const [, section = ''] = (await readRepository(file)).split(new RegExp(`^#+ ${heading}$`, 'm'))
  const tables = section.split(/^#/m)[0]?.match(/(?:^\|.+\|\n)+/gm) ?? []
  const rows = tables[number]?.trim().split('\n').slice(2) ?? []
  return rows.map((row) =>
    row
      .split(/(?<!\\)\|/)
      .slice(1, -1)
      .map(cellText),
  )
}

function cellText(cell: string): string {
  return cell.trim().replaceAll('`', '').replaceAll('\\|', '|')
}

/** The reader's project, and what listens where the docs say that something does. */
export interface World extends AsyncDisposable {
  readonly folder: string
  /** The code with this world's addresses in place of those that the docs name. */
  place(code: string): string
}

/**
 * A folder where the build of this package is installed, a web server for the docs' port 3000, an echo server
 * for 5432, a tunnel server with a secret for tunnel.example.com:8910, and free ports for the public ones.
 */
export async function startWorld(): Promise<World> {
  const web = await httpTarget((_request, response) => response.end('ok'))
  const echo = await echoTarget()
  const server = await createServer({ secret })
  const addresses = new Map([
    ['3000', web.port],
    ['5173', web.port],
    ['5432', echo.port],
    ['8910', server.port],
  ])
  for (const port of ['8080', '8081', '8082', '8083', '20007']) {
    addresses.set(port, await freePort([...addresses.values()]))
  }

  const folder = await realpath(await mkdtemp(join(tmpdir(), 'pipe-tunnel-docs-')))
  const modules = join(folder, 'node_modules')
  await mkdir(join(modules, '.bin'), { recursive: true })
  await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }')
  await writeFile(join(folder, 'secret.txt'), `${secret}\n`)
  await writeFile(join(folder, 'tunnels.json'), `{ "tunnels": { "web": ${web.port} } }`)
  await symlink(repository, join(modules, 'pipe-tunnel'), 'junction')
  for (const name of packages) {
    await symlink(join(repository, 'node_modules', name), join(modules, name), 'junction')
  }
  // npm makes another kind of file of it there, and no shell snippet is run.
  if (process.platform !== 'win32') await symlink('../pipe-tunnel/dist/cli.js', join(modules, '.bin', 'pipe'))

  return {
    folder,
    place: (code) =>
      code
        .replace(/\b\d+\b/g, (number) => String(addresses.get(number) ?? number))
        .replaceAll('tunnel.example.com', '127.0.0.1')
        .replaceAll('/tmp/', `${folder}/`)
        // An image that no registry is needed for.
        .replaceAll('new PipeContainer()', `new PipeContainer('${image}')`)
        .replaceAll("'node:22-alpine'", `'${image}'`)
        // What would be open to the network, and what takes the well-known port.
        .replaceAll('0.0.0.0', '127.0.0.1')
        .replace(/\bpipe(-tunnel)? server\b/g, '$& --port 0'),
    async [Symbol.asyncDispose]() {
      await Promise.all([server.close(), web[Symbol.asyncDispose](), echo[Symbol.asyncDispose]()])
      await rm(folder, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

/**
 * A port where nothing listens. It is below those that systems choose by themselves, because one of these could be
 * given to another program in the next moment.
 */
export function freePort(exclude: number[] = []): Promise<number> {
  const from = 10_000 + Math.floor(Math.random() * 20_000)
  return getPort({ host: '127.0.0.1', port: portNumbers(from, from + 1_000), exclude })
}

/** How a test of a snippet file went. */
export interface FileResult {
  /** The place of its snippet. */
  place: string
  passed: boolean
  message: string
}

/**
 * Compiles all `ts` snippets and runs them with vitest, each as a test file of its own. One that holds no test
 * is run as a module. Rejects where they do not compile.
 */
export async function runTypeScript(world: World, snippets: Snippet[]): Promise<FileResult[]> {
  const { folder } = world
  const places = new Map<string, string>()
  for (const snippet of snippets) {
    const file = `${snippet.place.replace(/\W/g, '-')}.test.ts`
    places.set(file, snippet.place)
    const isTest = /^(?:test|it)\(/m.test(snippet.code)
    const ran = isTest ? '' : "\nimport { test as ran } from 'vitest'\nran('ran', () => {})"
    await writeFile(join(folder, file), `${world.place(snippet.code)}${ran}\nexport {}\n`)
  }
  const compilerOptions = {
    ...JSON.parse(await readRepository('tsconfig.json')).compilerOptions,
    paths: {},
  }
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }))

  const tsc = await runNode(world, ['node_modules/typescript/bin/tsc'])
  if (tsc.code !== 0) throw new Error(`the snippets do not compile:\n${tsc.stdout}`)

  const vitest = ['node_modules/vitest/vitest.mjs', 'run', '--reporter=json', '--outputFile=results.json']
  const { stdout, stderr } = await runNode(world, [...vitest, '--testTimeout=30000'], 100_000)
  const report = await readFile(join(folder, 'results.json'), 'utf8').catch(() => {
    throw new Error(`vitest did not run:\n${stdout}${stderr}`)
  })
  const { testResults }: { testResults: VitestResult[] } = JSON.parse(report)
  return testResults.map(({ name, status, message, assertionResults }) => ({
    place: places.get(basename(name)) ?? name,
    passed: status === 'passed' && assertionResults.length > 0,
    message: [message, ...assertionResults.flatMap((one) => one.failureMessages)].join('\n'),
  }))
}

/** What is used of a file's part of vitest's JSON report. */
interface VitestResult {
  name: string
  status: string
  message: string
  assertionResults: { failureMessages: string[] }[]
}

/** Runs a `js` snippet with Node, by its test runner where it has tests. */
export async function runJavaScript(world: World, { place, code }: Snippet): Promise<Ending> {
  const file = `${place.replace(/\W/g, '-')}.${/\brequire\(/.test(code) ? 'cjs' : 'mjs'}`
  await writeFile(join(world.folder, file), world.place(code))
  return runNode(world, code.includes("'node:test'") ? ['--test', file] : [file])
}

async function runNode({ folder }: World, args: string[], timeout = DEADLINE): Promise<Ending> {
  await using program = start(process.execPath, args, { cwd: folder, timeout })
  return await program.ended()
}

/**
 * Runs a `sh` snippet with bash. Where it goes on, as `pipe expose` does, it is visited at the addresses that it
 * prints until all of `shown` has appeared, and then gets a Ctrl-C.
 */
export async function runShell(world: World, commands: string, shown = ''): Promise<Ending> {
  const child = spawn('bash', ['-euo', 'pipefail', '-c', world.place(commands)], {
    cwd: world.folder,
    env: readerEnvironment(world),
    // A group of its own, so that a Ctrl-C can reach all of it.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
  })
  const closed = once(child, 'close')
  const said = () => `${stdout}${stderr}`
  const signal = (name: NodeJS.Signals) => {
    try {
      process.kill(-(child.pid as number), name)
    } catch {
      // The whole group has ended already.
    }
  }
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null
  try {
    await vi.waitUntil(() => hasEnded() || addressesIn(stdout).length > 0, { timeout: DEADLINE })
    if (!hasEnded()) {
      for (const url of addressesIn(stdout).filter((one) => one.startsWith('http:'))) {
        const response = await fetch(url, { headers: { connection: 'close' } })
        expect(response.status).toBe(200)
      }
      for (const url of addressesIn(stdout).filter((one) => one.startsWith('unix:'))) {
        const visitor = net.connect(url.replace('unix:', '')).end('hello')
        expect(String((await once(visitor, 'data'))[0])).toBe('hello')
      }
      await vi.waitFor(() => expectShown(said(), shown), { timeout: DEADLINE })
      signal('SIGINT')
    }
    await vi.waitFor(() => expect(hasEnded(), said()).toBe(true), { timeout: DEADLINE })
    // What it left in the background would hold its outputs open.
    signal('SIGKILL')
    const [code, endSignal] = await closed
    expectShown(said(), shown)
    // npx lets the Ctrl-C end it, whatever the command that it runs makes of it.
    const byCtrlC = endSignal === 'SIGINT' && /^npx /m.test(commands)
    return { code: byCtrlC ? 0 : code, stdout, stderr }
  } finally {
    signal('SIGKILL')
    await closed
  }
}

/** The environment of a reader's shell: not what npm tells the programs that it runs, such as these tests. */
function readerEnvironment({ folder }: World): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(([name]) => !/^(npm_|PIPE_)/i.test(name))
  // As npm does for its scripts.
  const PATH = [join(folder, 'node_modules', '.bin'), process.env.PATH].join(delimiter)
  return { ...Object.fromEntries(own), PATH }
}

/** Fails unless every line of `shown` was said, in this order, with whatever numbers. */
function expectShown(said: string, shown: string): void {
  const lines = mask(said).split('\n')
  let from = 0
  for (const line of mask(shown).split('\n').filter(Boolean)) {
    const at = lines.indexOf(line, from)
    if (at < 0) throw new Error(`no line «${line}» behind the first ${from} of:\n${said}`)
    from = at + 1
  }
}

/** The text with what differs from run to run made the same. */
export function mask(text: string): string {
  return text
    .replace(/[\d.]+ m?s\b/g, 'N ms')
    .replace(/[\d.]+k?B\b/gi, 'NB')
    .replace(/\d+/g, 'N')
}

function addressesIn(stdout: string): string[] {
  return stdout.match(/\b(?:http|https|tcp|pipe):\/\/[\d.]+:\d+|\bunix:\S+/g) ?? []
}
