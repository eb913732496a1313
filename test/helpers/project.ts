/** A project with a configuration file. */
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Program, temporaryFolder } from './command.js'

const repository = fileURLToPath(new URL('../..', import.meta.url))

/** A folder with these files, objects as JSON, where these packages are installed. */
export async function project(files: Record<string, unknown>, packages = ['jiti']) {
  const folder = await temporaryFolder()
  await mkdir(path.join(folder.path, 'node_modules'))
  await symlink(repository, path.join(folder.path, 'node_modules/pipe-tunnel'), 'junction')
  for (const name of packages) {
    const from = path.join(repository, 'node_modules', name)
    await symlink(from, path.join(folder.path, 'node_modules', name), 'junction')
  }
  const write = async (name: string, content: unknown) => {
    const file = path.join(folder.path, name)
    await mkdir(path.dirname(file), { recursive: true })
    await writeFile(file, typeof content === 'string' ? content : JSON.stringify(content))
  }
  for (const [name, content] of Object.entries(files)) await write(name, content)
  return { ...folder, write }
}

interface Ready {
  url: string
  target: string
  host: string
  port: number
  inspector: string | null
}

/** The first that `pipe up --json` said of a tunnel that is ready. */
export async function ready(program: Program, name: string) {
  const line = await program.stdout.line(new RegExp(`"event":"ready","name":"${name}"`))
  const { url, target, host, port, inspector } = JSON.parse(line)
  return { url, target, host, port, inspector } as Ready
}
