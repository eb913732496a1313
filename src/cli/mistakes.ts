/** What the parser of the command line complains of, and what was meant. */
import type { Option } from 'commander'
import { conditionOptions } from './conditions.js'

/** What to do about a mistake at `pipe expose`: where a list or a command may have been taken for something else, how they are told apart. */
export function exposeHint(args: string[]): string {
  const words = args.slice(3)
  const firstOption = words.findIndex((word) => word.startsWith('-'))
  const inFront = firstOption < 0 ? words : words.slice(0, firstOption)
  const hasCommand = inFront.slice(1).some((word) => /^[^:]*[^:\d][^:]*$/.test(word))
  if (hasCommand || words.some((word) => /^--(allow|deny)\b/.test(word)))
    return '(such as: pipe expose 3000 --allow 10.0.0.0/8 -- npm test, with targets before options and a command behind --; pipe expose --help lists them)'
  return '(such as: pipe expose 3000; pipe expose --help lists the options)'
}

/** What other tunnels call their commands, with a target behind it. */
const habits = ['http', 'https', 'tcp', 'tls', 'udp', 'start', 'tunnel']

/** The command that was meant, where other tunnels have none in front of the target, or another. */
function meantCommand(args: string[]): string | undefined {
  const [, , word = '', next = '3000'] = args
  const isTarget = /^(?:[\w.-]*:)?\d+$/.test(word)
  if (!isTarget && !habits.includes(word)) return undefined
  const target = isTarget ? word : next.startsWith('-') ? '3000' : next
  const scheme = word === 'tcp' || word === 'udp' ? `${word}://` : ''
  return `pipe expose ${scheme && /^\d+$/.test(target) ? `${scheme}localhost:${target}` : `${scheme}${target}`}`
}

/**
 * A complaint of the parser, with what was meant instead: where an option is one of `pipe expose`, that it is to stand in the file, and where a
 * target is missing, what became of it.
 */
export function explain(message: string, args: string[], exposeOptions: readonly Option[]): string {
  const said = message.replace(/^error: /, 'pipe: ')
  const meant = /^pipe: unknown command/.test(said) ? meantCommand(args) : undefined
  if (meant !== undefined) return `${said.split('\n')[0]}: did you mean ${meant}?\n`
  if (/^pipe: unknown option '--subdomain'/.test(said))
    return `${said.split('\n')[0]}: did you mean --hostname?\n`
  const [, unknown] = /^pipe: unknown option '(--[\w-]+)/.exec(said) ?? []
  const ofTunnel = args[2] === 'up' && exposeOptions.find(({ long }) => long === unknown)
  if (ofTunnel)
    return `pipe: unknown option '${unknown}': the file says it of each tunnel, as ${nameInFile(ofTunnel)} beside its target\n`
  const [, taken] = /^pipe: missing required argument/.test(said)
    ? (/ --wait[ =](\S+)/.exec(args.join(' ')) ?? [])
    : []
  if (taken === undefined) return said
  return said.replace(/\n$/, `: ${taken} was taken as the seconds of --wait, so write the target first\n`)
}

/** How a configuration file calls what is an option of `pipe expose`. */
function nameInFile(option: Option): string {
  const name = option.attributeName()
  if (conditionOptions.includes(option)) return `conditions.${name}`
  return name === 'wait' ? 'waitForTarget' : name
}
