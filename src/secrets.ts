/** The secrets of a server: who holds which, what its holders may open, and that it may be taken back. */
import type { Duplex } from 'node:stream'
import { TunnelError } from './errors.js'
import { fits, readPatterns } from './hostname.js'
import { checkInteger, checkNames, checkSecret, invalidOption } from './options.js'
import { type PortRange, parsePorts } from './ports.js'
import { reset } from './stream.js'

/** Name of the secret that is the option `secret`. */
export const DEFAULT_NAME = 'default'
/** Most secrets of a server: each login tries them all, and each takes a tenth of a second to become a key when the server starts. */
const MAX_SECRETS = 64

/** A secret with a name, and what its holders may open. */
export interface NamedSecret {
  /** 8 characters or more, and not that of another name. */
  secret: string
  /** Ports that its holders may ask for, in place of those of the server. Default: those of the server. */
  ports?: string | number
  /** Tunnels of all its holders together. Default: no bound of its own. */
  maxTunnels?: number
  /**
   * Names for HTTP tunnels, each with a `*` for any characters where it has one. Its holders may ask for these alone, and
   * nobody else for them. Default: all that nobody else has for himself.
   */
  hostnames?: readonly string[]
}

const NAMES: Record<keyof NamedSecret, true> = {
  secret: true,
  ports: true,
  maxTunnels: true,
  hostnames: true,
}

/** A secret as the server works with it. */
export interface SecretSettings {
  name: string
  secret: string
  ports: PortRange | undefined
  maxTunnels: number
  hostnames: readonly string[] | undefined
}

/** Checks the options `secret` and `secrets`. Complaints never quote a secret. */
export function readSecrets(
  secret: string | undefined,
  secrets: Readonly<Record<string, NamedSecret>> = {},
): SecretSettings[] {
  checkSecret('secret', secret)
  if (typeof secrets !== 'object' || secrets === null || Array.isArray(secrets)) {
    throw invalidOption('secrets', 'an object of secrets by their names', typeof secrets)
  }
  const named = Object.entries(secrets).map(([name, value]) => readNamed(name, value))
  if (secret !== undefined && named.some(({ name }) => name === DEFAULT_NAME)) {
    throw new TunnelError(
      'invalid-option',
      'secrets.default must be left out where the option secret is given',
    )
  }
  const all = secret === undefined ? named : [{ ...unbounded(DEFAULT_NAME), secret }, ...named]
  if (all.length > MAX_SECRETS) throw invalidOption('secrets', `at most ${MAX_SECRETS}`, all.length)
  const names = new Map<string, string>()
  for (const one of all) {
    const other = names.get(one.secret)
    if (other !== undefined) {
      throw new TunnelError('invalid-option', `secrets.${one.name} must have another secret than ${other}`)
    }
    names.set(one.secret, one.name)
  }
  return all
}

function readNamed(name: string, value: NamedSecret): SecretSettings {
  if (!/^[a-z0-9-]{1,32}$/.test(name)) {
    throw invalidOption('a name in secrets', '1 to 32 of a-z, 0-9 and -', name)
  }
  if (typeof value !== 'object' || value === null) {
    throw invalidOption(`secrets.${name}`, "an object with the field 'secret'", typeof value)
  }
  checkNames(`secrets.${name}`, value, Object.keys(NAMES))
  const { secret, ports, maxTunnels, hostnames } = value
  if (secret === undefined) throw invalidOption(`secrets.${name}.secret`, 'a text', secret)
  checkSecret(`secrets.${name}.secret`, secret)
  const settings = { ...unbounded(name), secret }
  if (ports !== undefined) settings.ports = parsePorts(ports, `secrets.${name}.ports`)
  if (maxTunnels !== undefined) {
    checkInteger(`secrets.${name}.maxTunnels`, maxTunnels, 1, 1_000_000)
    settings.maxTunnels = maxTunnels
  }
  if (hostnames !== undefined) settings.hostnames = readPatterns(`secrets.${name}.hostnames`, hostnames)
  return settings
}

function unbounded(name: string): Omit<SecretSettings, 'secret'> {
  return { name, ports: undefined, maxTunnels: Number.POSITIVE_INFINITY, hostnames: undefined }
}

/** Names that holders of some of them have for themselves. */
function reservedBy(settings: readonly SecretSettings[]): string[] {
  return settings.flatMap(({ hostnames = [] }) => hostnames)
}

/** The secrets of a server while it runs. */
export class Secrets {
  #permits: readonly Permit[]
  /** What clients of a server without secrets have. */
  readonly #forAll = new Permit(undefined)

  constructor(settings: readonly SecretSettings[]) {
    this.#permits = settings.map((one) => new Permit(one, reservedBy(settings)))
  }

  /** Whether clients have to prove that they hold one. They do also when the last was revoked. */
  get isAsked(): boolean {
    return this.#permits.length > 0
  }

  /** Those that were not revoked. */
  get active(): readonly { name: string; secret: string }[] {
    return this.#permits.flatMap(({ settings, isRevoked }) => (settings && !isRevoked ? [settings] : []))
  }

  /** The one that is the option `secret`. */
  get main(): string | undefined {
    return this.active.find(({ name }) => name === DEFAULT_NAME)?.secret
  }

  /**
   * What a client gets that shows to hold one of them, or none where none is asked for. All are tried, those that were
   * revoked too: how long it takes does not tell which one fits.
   */
  permitFor(fits: (secret: string) => boolean): Permit | undefined {
    if (!this.isAsked) return this.#forAll
    let found: Permit | undefined
    for (const permit of this.#permits) {
      if (permit.settings && fits(permit.settings.secret)) found = permit
    }
    return found
  }

  /** Takes a secret back, at once and for good, and cuts who is inside by it. Throws where there is none of that name. */
  revoke(name: string): void {
    const permit = this.#permits.find(({ settings }) => settings?.name === name)
    if (!permit) {
      const names = this.#permits.map(({ settings }) => settings?.name).join(', ')
      throw invalidOption(
        'name',
        names ? `one of ${names}` : 'that of a secret, of which there is none',
        name,
      )
    }
    permit.revoke()
  }

  /** Puts others in their place. Those that are not among them are revoked; gives back the names of these. */
  replace(settings: readonly SecretSettings[]): string[] {
    const before = this.#permits
    this.#permits = settings.map((one) => {
      const kept = before.find(
        ({ settings }) => settings?.name === one.name && settings.secret === one.secret,
      )
      if (!kept) return new Permit(one, reservedBy(settings))
      kept.settings = one
      kept.reserved = reservedBy(settings)
      return kept
    })
    const gone = before.filter((one) => !this.#permits.includes(one))
    for (const permit of gone) permit.revoke()
    return gone.flatMap(({ name }) => name ?? [])
  }
}

/** What a secret gives its holders: all clients that logged in with it have the same one. */
export class Permit {
  /** None where the server asks for no secret. What it gives may change. */
  settings: SecretSettings | undefined
  /** Names that holders of some secret have for themselves. */
  reserved: readonly string[]
  #isRevoked = false
  #tunnels = 0
  /** The streams of visitors that are inside by it. */
  readonly #inside = new Set<readonly Duplex[]>()

  constructor(settings: SecretSettings | undefined, reserved: readonly string[] = []) {
    this.settings = settings
    this.reserved = reserved
  }

  get name(): string | undefined {
    return this.settings?.name
  }

  get isRevoked(): boolean {
    return this.#isRevoked
  }

  /** Whether its holders may have an HTTP tunnel of this name. */
  mayBeCalled(hostname: string): boolean {
    const own = this.settings?.hostnames
    return own ? fits(hostname, own) : !fits(hostname, this.reserved)
  }

  /** Throws `limit-reached` where there are as many tunnels as there may be; else gives back what ends this one. */
  addTunnel(): () => void {
    const { name, maxTunnels = Number.POSITIVE_INFINITY } = this.settings ?? {}
    if (this.#tunnels >= maxTunnels) {
      throw new TunnelError(
        'limit-reached',
        `the secret ${name} has as many tunnels as it may (${maxTunnels}): close one, or raise its maxTunnels`,
      )
    }
    this.#tunnels++
    return () => {
      this.#tunnels--
    }
  }

  /** A visitor is inside. */
  hold(streams: readonly Duplex[]): void {
    this.#inside.add(streams)
    if (this.#isRevoked) for (const stream of streams) reset(stream)
  }

  /** A visitor is inside no more. */
  release(streams: readonly Duplex[]): void {
    this.#inside.delete(streams)
  }

  revoke(): void {
    this.#isRevoked = true
    for (const stream of [...this.#inside].flat()) reset(stream)
  }
}

/** Why its holders are refused. */
export function secretRevoked(): TunnelError {
  return new TunnelError('secret-revoked', 'the secret was revoked: ask whoever runs the server for another')
}
