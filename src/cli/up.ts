import { isDeepStrictEqual } from 'node:util'
import { reasonOf, TunnelError } from '../errors.js'
import { type LinkOptions, type OpenedGroup, openGroup, type WantedTunnel } from '../open-tunnel.js'
import type { Tunnel } from '../tunnel.js'
import { ChosenAddresses } from './chosen.js'
import { readConfig } from './config.js'
import { type LinkArguments, readLink, readTunnels } from './config-tunnels.js'
import { GRACE, writeLine } from './exit.js'
import { run } from './run.js'

interface UpArguments extends LinkArguments {
  json?: boolean
  quiet?: boolean
}

/** `pipe up`: opens the tunnels of the configuration file, those of these names or all. SIGHUP reads it again. */
export async function up(names: string[], options: UpArguments): Promise<void> {
  const tunnels = new FileTunnels(names, options)
  await run(options, {
    many: true,
    names: tunnels.names,
    open: (signal) => tunnels.open(signal),
    listensHere: () => tunnels.listenHere,
    reload: (show, signal) => tunnels.reload(show, signal),
    inspects: (tunnel) => tunnels.inspects(tunnel),
  })
  await tunnels.release()
}

/** What a file says of tunnels. */
interface Wanted {
  /** How complaints call the file. */
  file: string
  link: LinkOptions
  tunnels: Map<string, WantedTunnel>
}

/** The tunnels of a configuration file, over one control connection. */
class FileTunnels {
  /** Also of those that are closed, as long as something is told of them. */
  readonly names = new WeakMap<Tunnel, string>()
  readonly #wantedNames: string[]
  readonly #options: UpArguments
  /** Those that are open, with what they were opened with. */
  readonly #open = new Map<string, { wanted: WantedTunnel; tunnel: Tunnel }>()
  readonly #chosen = new ChosenAddresses()
  #running: { link: LinkOptions; group: OpenedGroup } | undefined
  /** One reading after the other, behind the first tunnels. */
  #reloaded: Promise<unknown> = Promise.resolve()
  /** A reading that has not begun: it will see what others that are asked for meanwhile would. */
  #nextReading: Promise<void> | undefined

  constructor(names: string[], options: UpArguments) {
    this.#wantedNames = names
    this.#options = options
  }

  /** Whether they go through a server of this process. */
  get listenHere(): boolean {
    return this.#running !== undefined && this.#running.link.server === undefined
  }

  /** Opens all of them, or none. */
  open(signal: AbortSignal): Promise<Tunnel[]> {
    const opened = this.#openAll(signal)
    this.#reloaded = opened.catch(() => {})
    return opened
  }

  async #openAll(signal: AbortSignal): Promise<Tunnel[]> {
    const { link, tunnels } = await this.#read()
    const group = await openGroup([...tunnels.values()], { ...link, signal })
    this.#running = { link, group }
    for (const [index, [name, wanted]] of [...tunnels].entries()) {
      this.#add(name, wanted, group.tunnels[index] as Tunnel)
    }
    return group.tunnels
  }

  /** Reads the file again, and changes what has changed there. Never rejects: says what is wrong. */
  reload(show: (tunnel: Tunnel) => Promise<void>, signal: AbortSignal): Promise<void> {
    if (this.#nextReading) return this.#nextReading
    const reading = this.#reloaded.then(async () => {
      this.#nextReading = undefined
      try {
        await this.#change(await this.#read(), show, signal)
      } catch (error) {
        complain(`${reasonOf(error)}\nthe tunnels stay as they are`)
      }
    })
    this.#nextReading = reading
    this.#reloaded = reading
    return reading
  }

  /** Whether the file says that its requests are to be looked at, and there is a place to print the page's URL. */
  inspects(tunnel: Tunnel): boolean {
    const { wanted } = this.#open.get(this.names.get(tunnel) ?? '') ?? {}
    return Boolean(wanted?.inspect) && !this.#options.quiet
  }

  /** The control connection ends with the last tunnel. */
  async release(): Promise<void> {
    await this.#running?.group.release()
  }

  async #read(): Promise<Wanted> {
    const loaded = await readConfig(this.#options.config)
    if (!loaded) {
      throw new TunnelError(
        'invalid-option',
        'there is no configuration file here: write pipe.config.json, such as { "tunnels": { "web": 3000 } }, or name one with --config',
      )
    }
    return {
      file: loaded.name,
      link: readLink(this.#options, loaded),
      tunnels: readTunnels(loaded, this.#wantedNames),
    }
  }

  async #change(
    { file, link, tunnels }: Wanted,
    show: (tunnel: Tunnel) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    // None could be opened, and the process ends.
    const { group, link: linkBefore } = this.#running ?? {}
    if (!group) return
    if (!isDeepStrictEqual(link, linkBefore)) {
      complain(`${file}: what all tunnels share has changed, and holds when pipe up is started again`)
    }
    const closed = [...this.#open].filter(
      ([name, { wanted }]) => !isDeepStrictEqual(wanted, tunnels.get(name)),
    )
    for (const [name, { tunnel }] of closed) {
      this.#open.delete(name)
      // The server gets to know in the order in which it is told: an address may be asked for again at once.
      tunnel.close({ grace: GRACE })
    }
    const kept = [...this.#open.keys()]
    const missing = [...tunnels].filter(([name]) => !this.#open.has(name))
    const opened = missing.map(async ([name, wanted]) => {
      try {
        const tunnel = await this.#chosen.open(name, wanted, tunnels.values(), (one) =>
          group.open(one, { signal }),
        )
        this.#add(name, wanted, tunnel)
        await show(tunnel)
      } catch (error) {
        if (!signal.aborted) complain(`${file}: tunnels.${name}: ${reasonOf(error)}`)
      }
    })
    await Promise.all(opened)
    if (this.#options.quiet || signal.aborted) return
    const before = closed.map(([name]) => name)
    const after = [...this.#open.keys()].filter((name) => !kept.includes(name))
    const counts = `${counted('closed', before)}, ${counted('opened', after)}, ${kept.length} unchanged`
    writeLine(process.stderr, `${file} was read again: ${counts}`)
  }

  #add(name: string, wanted: WantedTunnel, tunnel: Tunnel): void {
    this.names.set(tunnel, name)
    this.#open.set(name, { wanted, tunnel })
    this.#chosen.note(name, wanted, tunnel)
    tunnel.closed.then(() => {
      // One that was lost is opened again by the next reading.
      if (this.#open.get(name)?.tunnel === tunnel) this.#open.delete(name)
    })
  }
}

/** `2 closed (web, db)`. */
function counted(what: string, names: string[]): string {
  return `${names.length} ${what}${names.length > 0 ? ` (${names.join(', ')})` : ''}`
}

function complain(text: string): void {
  writeLine(process.stderr, `pipe: ${text}`)
}
