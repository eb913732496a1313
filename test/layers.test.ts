/** What the shape of the source promises: imports go one way, and the library is silent. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (file: string) => readFileSync(join(root, file), 'utf8')

/** Files below a folder, named from the root with forward slashes. */
const files = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => `${folder}/${name.replaceAll('\\', '/')}`)

/** What a file imports, as it is written. */
const imports = (file: string) =>
  [...read(file).matchAll(/(?:from|import)\(?\s*'([^']+)'/g)].map(([, name]) => name ?? '')

/** The files of the source that a file imports, by types too. */
function importedFiles(file: string): string[] {
  return imports(file)
    .filter((name) => name.startsWith('.'))
    .map((name) =>
      relative(root, join(root, dirname(file), name.replace(/\.js$/, '.ts'))).replaceAll('\\', '/'),
    )
}

/** The files of the table of layers in docs/design.md, from the top. A folder stands in front of its files. */
const layers = (/## Layers\n(.*?)\n## /s.exec(read('docs/design.md'))?.[1] ?? '')
  .split('\n')
  .map((line) => /^\| (?:`([\w-]+\/)`: )?(`.+?`) \|/.exec(line))
  .flatMap((row) =>
    [...(row?.[2] ?? '').matchAll(/`([\w-]+)`/g)].map(([, name]) => `src/${row?.[1] ?? ''}${name}.ts`),
  )

/** Everything that a file reaches by imports. */
function reach(file: string, seen = new Set<string>()): Set<string> {
  for (const next of importedFiles(file)) {
    if (!seen.has(next)) reach(next, seen.add(next))
  }
  return seen
}

describe('imports', () => {
  test.each([...files('src'), ...files('fixtures')])('of %s never lead back to it', (file) => {
    expect(reach(file)).not.toContain(file)
  })

  test('go up the table of layers, which has all files', () => {
    const source = files('src').filter((file) => !file.startsWith('src/cli/'))
    expect([...layers].sort()).toEqual(source.sort())
    const upwards = (file: string) =>
      importedFiles(file).filter((other) => layers.indexOf(other) > layers.indexOf(file))
    expect(source.map((file) => [file, ...upwards(file)]).filter((row) => row.length > 1)).toEqual([])
  })

  test('keep server and client apart', () => {
    expect(reach('src/server.ts')).not.toContain('src/client.ts')
    expect(reach('src/client.ts')).not.toContain('src/server.ts')
  })

  test('of yamux stay within it, but for how a socket is read: it knows nothing of tunnels', () => {
    const reached = new Set(files('src/yamux').flatMap((file) => [...reach(file)]))
    expect([...reached].filter((file) => !file.startsWith('src/yamux/'))).toEqual(['src/socket-reader.ts'])
  })

  test('of the library do not reach the command, nor its argument parser', () => {
    const library = reach('src/index.ts')
    expect([...library].filter((file) => file.startsWith('src/cli/'))).toEqual([])
    expect([...library].flatMap(imports)).not.toContain('commander')
  })

  test.each(files('fixtures'))('of %s are the public API and one tool at most', (file) => {
    const others = imports(file).filter((name) => !/^(pipe-tunnel(\/webhooks)?$|\.\.?\/|node:)/.test(name))
    expect(new Set(others).size).toBeLessThanOrEqual(1)
  })
})

describe('the library', () => {
  test.each([...files('src').filter((file) => !file.startsWith('src/cli/')), ...files('fixtures')])(
    '%s neither prints nor ends the process nor listens to its signals',
    (file) => {
      expect(read(file)).not.toMatch(/console\.|process\.(exit|on|once|stdout|stderr)\b/)
    },
  )

  test('reads the environment in one place', () => {
    const readers = files('src').filter(
      (file) => read(file).includes('process.env') && !file.startsWith('src/cli/'),
    )
    expect(readers).toEqual(['src/endpoint.ts'])
  })
})
