import { readdir, readFile } from 'node:fs/promises'
import { extname } from 'node:path'

/** A file of the page. */
export interface PageFile {
  type: string
  bytes: Buffer
}

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
}

/** The files of the page by their names. They lie in a folder beside this code, built or not. */
export async function readPage(): Promise<Map<string, PageFile>> {
  const folder = new URL('./page/', import.meta.url)
  const names = (await readdir(folder)).filter((name) => extname(name) in TYPES)
  return new Map(
    await Promise.all(
      names.map(async (name) => {
        const type = TYPES[extname(name)] as string
        return [name, { type, bytes: await readFile(new URL(name, folder)) }] as const
      }),
    ),
  )
}
