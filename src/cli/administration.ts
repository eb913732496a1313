import { errorCodes, printable, reasonOf, TunnelError } from '../errors.js'
import { checkSecret, invalidOption } from '../options.js'
import { writeLine } from './exit.js'
import { readSecret } from './secret.js'

/** How `pipe status` and `pipe close` find the administration of a server. */
export interface AdminArguments {
  admin?: string
  adminSecretFile?: string
  json?: boolean
}

/** A tunnel as the administration shows it. */
export interface ShownTunnel {
  id: string
  address: string
  client: { address: string; port: number }
  secretName: string | null
  openedAt: string
  connections: number
  stats: { bytesIn: number; bytesOut: number }
}

const DEFAULT_ADMIN = 'http://127.0.0.1:8912'
/** How long an answer may take, in milliseconds. */
const TIMEOUT = 10_000

/** What the administration asks for, from a file or the environment. */
export function readAdminSecret(file: string | undefined): string | undefined {
  const secret = file === undefined ? process.env.PIPE_ADMIN_SECRET : readSecret({ secretFile: file })
  checkSecret(file === undefined ? 'PIPE_ADMIN_SECRET' : `the secret in ${file}`, secret)
  return secret
}

/** Asks the administration, and prints its answer where that is to be JSON. Rejects with a {@link TunnelError}. */
export async function askAdmin<T extends object>(
  { admin, adminSecretFile, json }: AdminArguments,
  method: string,
  path: string,
): Promise<T> {
  const print = (value: object) => {
    if (json) writeLine(process.stdout, JSON.stringify(value))
  }
  try {
    const base = readUrl(admin ?? (process.env.PIPE_ADMIN || DEFAULT_ADMIN))
    const answer = await request<T>(base, method, path, readAdminSecret(adminSecretFile))
    print(answer)
    return answer
  } catch (error) {
    if (error instanceof TunnelError) print({ error: { code: error.code, message: error.message } })
    throw error
  }
}

async function request<T>(base: URL, method: string, path: string, secret: string | undefined): Promise<T> {
  // A bearer token can't have all that a secret can, and where it can't, what is told of it would show it.
  const credentials = Buffer.from(`:${secret}`).toString('base64')
  const headers: Record<string, string> =
    secret === undefined ? {} : { authorization: `Basic ${credentials}` }
  const signal = AbortSignal.timeout(TIMEOUT)
  // Redirected, the secret would go to somebody else.
  const settings = { method, headers, signal, redirect: 'error' } as const
  const [status, text] = await fetch(new URL(path, base), settings)
    .then(async (response) => [response.status, await response.text()] as const)
    .catch((error) => {
      const failure = `no administration answers at ${base.origin} (${reasonOf(error.cause ?? error)})`
      const next = 'is the server started with --admin-port, and is this its port?'
      throw new TunnelError('server-unreachable', `${failure}: ${next}`, { cause: error })
    })
  const answer = parse(text)
  if (status === 200 && answer) return answer as T
  const { code, message } = answer?.error ?? {}
  if (typeof code === 'string' && typeof message === 'string') {
    const known = errorCodes.find((one) => one === code)
    throw new TunnelError(known ?? 'refused', printable(message))
  }
  const other = `${base.origin} is no administration of a server (status ${status}): look for a typing mistake`
  throw new TunnelError('protocol-violation', other)
}

function readUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url && /^https?:$/.test(url.protocol) && url.username === '') return url
  throw invalidOption('--admin', `a URL such as ${DEFAULT_ADMIN}`, text)
}

function parse(text: string): { error?: { code?: unknown; message?: unknown } } | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}
