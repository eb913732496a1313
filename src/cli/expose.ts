import { TunnelError } from '../errors.js'
import { isLabel, LABEL_WORDS } from '../hostname.js'
import { openTunnels, type WantedTunnel } from '../open-tunnel.js'
import { invalidOption, show } from '../options.js'
import { readConfig } from './config.js'
import { type LinkArguments, parseWanted, readLink } from './config-tunnels.js'
import { type LocalArguments, readLocalArguments, run } from './run.js'

interface ExposeOptions extends LinkArguments, LocalArguments {
  port?: number
  hostname?: string | true
  basicAuth?: string
  listen?: string
}

/** `pipe expose`: runs until it is told to end, the link is lost for good, or the command behind `--` has ended. */
export function expose(targets: string[], options: ExposeOptions, command?: string[]): Promise<void> {
  let listensHere = false
  const open = async (signal: AbortSignal) => {
    const { hostname, basicAuth, listen } = options
    if (command?.length === 0) {
      throw new TunnelError(
        'invalid-option',
        'a command must follow --, such as: pipe expose 3000 -- npm test',
      )
    }
    if (listen !== undefined && targets.length > 1) {
      throw invalidOption('--listen', 'given with one target alone', listen)
    }
    checkHostname(targets, options)
    const local = { ...readLocalArguments(options), hostname, basicAuth, listen }
    const wanted = readTargets(targets, options.port).map((one) => ({ ...local, ...one }))
    const link = readLink(options, await readConfig(options.config))
    listensHere = link.server === undefined
    return openTunnels(wanted, { ...link, signal })
  }
  return run(options, { many: targets.length > 1, open, listensHere: () => listensHere, command })
}

/** In the words of the command line, for which the library has others. */
function checkHostname(targets: string[], { hostname, port, listen }: ExposeOptions): void {
  if (hostname === undefined) return
  const refuse = (complaint: string) => new TunnelError('invalid-option', complaint)
  const other = Object.entries({ '--port': port, '--listen': listen }).find(
    ([, given]) => given !== undefined,
  )
  if (other) throw refuse(`--hostname leaves no room for ${other[0]}: leave one of them out`)
  const numbered = targets.find((target) => parseWanted(target).port !== undefined)
  if (numbered)
    throw refuse(
      `--hostname leaves no room for a public port, which ${numbered} names: leave one of them out`,
    )
  if (hostname === true) return
  if (!isLabel(hostname.toLowerCase())) throw invalidOption('--hostname', LABEL_WORDS, hostname)
  if (targets.length > 1)
    throw refuse(
      `--hostname ${hostname} is one name for ${targets.length} targets: write --hostname alone, or use pipe up`,
    )
}

function readTargets(targets: string[], port: number | undefined): WantedTunnel[] {
  // Behind the first, a word is most often a command.
  const word = targets.findIndex((text, index) => index > 0 && /^[^:]*[^:\d][^:]*$/.test(text))
  if (word > 0) {
    const line = `pipe expose ${targets.slice(0, word).join(' ')} -- ${targets.slice(word).join(' ')}`
    throw new TunnelError(
      'invalid-option',
      `target ${show(targets[word])} has no port: write ${targets[word]}:3000, or where it is a command: ${line}`,
    )
  }
  const wanted = targets.map(parseWanted)
  if (port === undefined) return wanted
  if (wanted.some((one) => one.port !== undefined)) {
    throw invalidOption('--port', 'left out where the target names a public port', port)
  }
  if (wanted.length > 1) throw invalidOption('--port', 'given with one target alone (write 8080:3000)', port)
  return wanted.map(({ target }) => ({ target, port }))
}
