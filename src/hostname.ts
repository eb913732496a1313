/** Names of HTTP tunnels: the label in front of the server's domain. */
import { randomInt } from 'node:crypto'
import { invalidOption } from './options.js'

/** Characters of the longest name. */
const MAX_LABEL = 63
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/
const PATTERN = /^(?=.{1,63}$)[a-z0-9*](?:[a-z0-9-]*[a-z0-9*])?$/
/** What it is made of, for complaints. */
export const LABEL_WORDS = '1 to 63 of a-z, 0-9 and -, with no - at either end, such as shop'

/** Whether it is one label of a host name (RFC 1123, 2.1), in lower case. */
export function isLabel(value: unknown): value is string {
  return typeof value === 'string' && LABEL.test(value)
}

/** Understands the option: a name in lower case, or true where the server is to choose one. */
export function readHostname(value: unknown): string | true | undefined {
  if (value === undefined || value === false) return undefined
  if (value === true) return true
  const label = typeof value === 'string' ? value.toLowerCase() : value
  if (!isLabel(label)) throw invalidOption('hostname', `true, or ${LABEL_WORDS}`, value)
  return label
}

/** Understands a list of names, of which each may have a `*` for any characters. */
export function readPatterns(name: string, value: unknown): readonly string[] {
  if (!Array.isArray(value) || value.length === 0) throw invalidOption(name, 'a list of names', value)
  return value.map((entry, index) => {
    const pattern = typeof entry === 'string' ? entry.toLowerCase() : ''
    const isPattern = PATTERN.test(pattern) && pattern.indexOf('*') === pattern.lastIndexOf('*')
    if (!isPattern)
      throw invalidOption(`${name}[${index}]`, `${LABEL_WORDS}, or with one * such as api-*`, entry)
    return pattern
  })
}

/** Whether the name is one of these, or fits one that has a `*`. */
export function fits(label: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => {
    const [head = '', tail] = pattern.split('*')
    if (tail === undefined) return label === pattern
    return label.length > head.length + tail.length && label.startsWith(head) && label.endsWith(tail)
  })
}

/** A name that fits the pattern, by chance where that leaves a choice. */
export function nameFor(pattern: string): string {
  const room = MAX_LABEL - pattern.length + 1
  return pattern.replace('*', randomName().slice(0, room)).replace(/-+$/, '')
}

/** A name such as `quiet-otter-4821`. It is easy to read out, and no secret: 100 million of them are not many. */
function randomName(): string {
  return `${one(ADJECTIVES)}-${one(NOUNS)}-${randomInt(1_000, 100_000)}`
}

/** An address for browsers: the port is left out where the scheme means it. */
export function urlOf(scheme: string, host: string, port: number): string {
  return new URL(`${scheme}://${host}:${port}`).origin
}

function one(words: string): string {
  const list = words.split(' ')
  return list[randomInt(list.length)] as string
}

const ADJECTIVES =
  'amber bold brave brisk calm clear clever cosy crisp eager early fair fast fond fresh gentle glad golden grand happy keen kind late light lively lucky mellow merry mild neat new nimble noble open patient plain proud quick quiet rapid ready round sharp shy silver small smart snug soft solid spry steady still sunny swift tidy tiny true warm wide wild wise young'
const NOUNS =
  'acorn badger bay beaver birch bison brook canyon cedar cliff clover comet crane creek dune eagle ember falcon fern finch fjord fox glade grove harbor hare hawk hazel heron hill island ivy lake lark leaf lynx maple marsh meadow moon moss oak ocean orchid otter owl pebble pine plum pond rain raven reef river robin sparrow spring star stone thistle tiger trail tulip valley willow wren'
