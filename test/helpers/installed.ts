/** The package as its users get it: packed, and installed into an empty folder. */
import { cp, mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import packageJson from '../../package.json' with { type: 'json' }
import { type Ending, runToEnd, start, temporaryFolder } from './command.js'

const repository = fileURLToPath(new URL('../..', import.meta.url))
/** How long npm, compilers and test runners may take on a slow machine, in milliseconds. */
const SLOW = 50_000

/** A folder with the samples, in which nothing is installed but the packed package, and what was asked for. */
export interface Installed extends AsyncDisposable {
  path: string
  /** The files of the package. */
  packed: string[]
}

/** Needs dist/. */
export async function install(...packages: string[]): Promise<Installed> {
  const folder = await temporaryFolder()
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
  await npm(folder.path, 'install', '--prefer-offline', '--no-audit', '--no-fund', tarball, ...packages)
  return { ...folder, packed: packed?.files.map((file) => file.path) ?? [] }
}

/** Runs Node in the folder. Rejects where it fails. */
export function node(installed: Installed, ...args: string[]): Promise<Ending> {
  return runToEnd(process.execPath, args, { cwd: installed.path, timeout: SLOW })
}

/** Runs Node in the folder, however it ends. */
export async function nodeToEnd(installed: Installed, ...args: string[]): Promise<Ending> {
  await using program = start(process.execPath, args, { cwd: installed.path, timeout: SLOW })
  return await program.ended()
}

export function npm(cwd: string, ...args: string[]): Promise<Ending> {
  // On Windows npm is a script that only a shell can start; whoever runs us says where its code is.
  const script = process.env.npm_execpath
  return script?.endsWith('npm-cli.js')
    ? runToEnd(process.execPath, [script, ...args], { cwd, timeout: SLOW })
    : runToEnd('npm', args, { cwd, timeout: SLOW })
}

/** What is installed in the folder. */
export async function modulesOf(installed: Installed): Promise<string[]> {
  const modules = await readdir(path.join(installed.path, 'node_modules'))
  return modules.filter((name) => !name.startsWith('.')).sort()
}

/** Checks files with TypeScript as a user with these settings does. */
export async function compile(installed: Installed, settings: object, files: string[]): Promise<void> {
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

/** Whether this Node is of this version or a later one. */
export function isAtLeast(major: number, minor: number): boolean {
  const [ours = 0, oursMinor = 0] = process.versions.node.split('.').map(Number)
  return ours > major || (ours === major && oursMinor >= minor)
}

/** Makes a package of the repository's known in the folder. */
export async function link(installed: Installed, name: string): Promise<void> {
  const place = path.join(installed.path, 'node_modules', name)
  await mkdir(path.dirname(place), { recursive: true })
  await symlink(path.join(repository, 'node_modules', name), place, 'junction')
}
