import { Option } from 'commander'
import type { Conditions } from '../conditions/options.js'
import { invalidOption } from '../options.js'

/** A network that is broken on purpose, as options of the command line. */
export interface ConditionArguments {
  latency?: number
  jitter?: number
  bandwidth?: string
  dropRate?: number
  duplicateRate?: number
  reorderRate?: number
  stall?: boolean
  refuse?: boolean
  resetAfter?: number
  closeAfter?: number
  slice?: Conditions['slice']
  seed?: number
}

/** What is no number stays a text, so that the complaint can quote it. */
const number = (text: string) => (/^\d+(\.\d+)?$/.test(text) ? Number(text) : text)

export const conditionOptions = [
  new Option('--latency <ms>', 'break the network on purpose: how long bytes are on their way').argParser(
    number,
  ),
  new Option('--jitter <ms>', 'by how much that differs, more or less').argParser(number),
  new Option('--bandwidth <rate>', 'bytes per second of a slow link, such as 100kb'),
  new Option('--drop-rate <share>', 'share of the datagrams of a udp target that are lost, 0 to 1').argParser(
    number,
  ),
  new Option('--duplicate-rate <share>', 'share that comes twice').argParser(number),
  new Option('--reorder-rate <share>', 'share that the next one overtakes').argParser(number),
  new Option('--stall', 'let visitors in, and let nothing flow'),
  new Option('--refuse', 'turn visitors away at once'),
  new Option('--reset-after <bytes>', 'reset each visitor after so many bytes').argParser(number),
  new Option('--close-after <ms>', 'end each visitor after so long').argParser(number),
  new Option(
    '--slice <bytes>',
    'hand on pieces of so many bytes; 100:10 leaves 10 ms between them',
  ).argParser(slice),
  new Option('--seed <number>', 'what chance comes from, so that a failure repeats').argParser(number),
]

/** The conditions that were asked for; undefined where nothing was said of any. */
export function readConditionArguments(given: ConditionArguments): Conditions | undefined {
  const names = conditionOptions.map((option) => option.attributeName() as keyof ConditionArguments)
  const asked = names.filter((name) => given[name] !== undefined).map((name) => [name, given[name]])
  return asked.length > 0 ? Object.fromEntries(asked) : undefined
}

/** `100` or `100:10`. */
function slice(text: string): Conditions['slice'] {
  const [, size, gap] = /^(\d+)(?::(\d+))?$/.exec(text) ?? []
  if (size === undefined)
    throw invalidOption('--slice', 'bytes such as 100, or with a gap such as 100:10', text)
  return { size: Number(size), gap: Number(gap ?? 0) }
}
