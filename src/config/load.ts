import { readFile } from 'node:fs/promises'
import module from 'node:module'
import { basename, relative, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { ParseError } from 'jsonc-parser'
import { untilAborted, withDeadline } from '../deadline.js'
import { reasonOf, TunnelError } from '../errors.js'
import type { Config } from './define.js'
import { endings } from './find.js'
import { schema } from './schema.js'
import { validate } from './validate.js'

/** Longest that a module may take, in milliseconds: it may wait for what never comes. */
const LOAD_TIMEOUT = 10_000

/** A configuration file that was read. */
export interface LoadedConfig {
  /** Its path. */
  path: string
  /** As complaints call it. */
  name: string
  config: Config
}

/** Reads a configuration file, and checks its shape. Rejects with `invalid-option` and all that is wrong. */
export async function loadConfig(file: string): Promise<LoadedConfig> {
  const path = resolve(file)
  const name = relative('', path).startsWith('..') ? path : relative('', path)
  const value = await parse(path, name)
  const mistakes = mistakesIn(value, name)
  if (mistakes.length > 0) {
    throw new TunnelError('invalid-option', mistakes.map((one) => `${name}: ${one}`).join('\n'))
  }
  return { path, name, config: value as Config }
}

/** What a module exports may throw when it is read. */
function mistakesIn(value: unknown, name: string): string[] {
  // Of a module alone.
  if (value === undefined) return ['it has no default export: write export default { … }']
  try {
    return validate(value, schema)
  } catch (cause) {
    throw new TunnelError('invalid-option', `${name}: ${reasonOf(cause)}`, { cause })
  }
}

async function parse(path: string, name: string): Promise<unknown> {
  const ending = endings.find((one) => path.endsWith(`.${one}`))
  if (!ending) {
    throw new TunnelError('invalid-option', `${name} must end in one of .${endings.join(', .')}`)
  }
  if (ending !== 'json' && ending !== 'toml') return loadModule(path, name)
  // Editors of Windows put a mark in front.
  const text = (await readText(path, name)).replace(/^\uFEFF/, '')
  return ending === 'json' ? parseJson(text, name) : parseToml(text, name)
}

async function readText(path: string, name: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new TunnelError('invalid-option', `${name} can't be read (${reasonOf(error)})`, { cause: error })
  }
}

/** By Node's own parser. Where it fails, which names no place in all versions, another one looks for that. */
async function parseJson(text: string, name: string): Promise<unknown> {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const mistake = (await firstMistake(text)) ?? ` ${reasonOf(cause)}`
    throw new TunnelError('invalid-option', `${name}:${mistake}`, { cause })
  }
}

/** Line, column and what is wrong there, where it can be made out: text may be nested deeper than the stack. */
async function firstMistake(text: string): Promise<string | undefined> {
  const { parse, printParseErrorCode } = await import('jsonc-parser')
  const errors: ParseError[] = []
  try {
    parse(text, errors, { disallowComments: true })
  } catch {
    return undefined
  }
  const [first] = errors
  if (!first) return undefined
  const before = text.slice(0, first.offset).split('\n')
  // `CommaExpected` are words, too.
  const words = printParseErrorCode(first.error).replace(/\B[A-Z]/g, (letter) => ` ${letter}`)
  return `${before.length}:${(before.at(-1) ?? '').length + 1}: ${words.toLowerCase()}`
}

async function parseToml(text: string, name: string): Promise<unknown> {
  const { parse, TomlError } = await import('smol-toml')
  try {
    return parse(text)
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause
    const reason = cause.message.split('\n')[0]?.replace('Invalid TOML document: ', '')
    throw new TunnelError('invalid-option', `${name}:${cause.line}:${cause.column}: ${reason}`, { cause })
  }
}

/** How often a module was loaded: Node keeps one for each address. */
let loads = 0

/** What a module exports by default, as it is now. */
async function loadModule(path: string, name: string): Promise<unknown> {
  await readText(path, name)
  // Those of CommonJS are kept by their path.
  delete module.createRequire(path).cache[path]
  const load =
    /\.m?ts$/.test(path) && !canStripTypes()
      ? typeScriptLoader(path, name)
      : async () => (await import(`${pathToFileURL(path)}?${++loads}`)).default
  try {
    return await withDeadline('loading it', { timeout: LOAD_TIMEOUT }, (aborted) =>
      untilAborted(load(), aborted),
    )
  } catch (error) {
    throw new TunnelError(
      'invalid-option',
      `${placeIn(error, name)}: ${reasonOf(error).split('\n')[0]?.trim()}`,
      { cause: error },
    )
  }
}

/** Newer versions of Node leave the types of TypeScript out by themselves. */
function canStripTypes(): boolean {
  return Boolean((process.features as { typescript?: unknown }).typescript)
}

/** jiti, as the project has it that the file belongs to. */
function typeScriptLoader(path: string, name: string): () => Promise<unknown> {
  const require = module.createRequire(path)
  let jiti: typeof import('jiti')
  try {
    jiti = require('jiti')
  } catch (cause) {
    throw new TunnelError(
      'invalid-option',
      `${name} needs jiti where Node is older than 22.18 (${process.version}): npm install --save-dev jiti, or call it pipe.config.js`,
      { cause },
    )
  }
  return () => jiti.createJiti(path, { moduleCache: false }).import(path, { default: true })
}

/** The file, with line and column where the error's stack has them. */
function placeIn(error: unknown, name: string): string {
  const stack = error instanceof Error ? (error.stack ?? '') : ''
  const file = basename(name).replaceAll('.', '\\.')
  const [, place = ''] = new RegExp(`${file}(?:\\?\\d+)?(:\\d+(?::\\d+)?)`).exec(stack) ?? []
  return `${name}${place}`
}
