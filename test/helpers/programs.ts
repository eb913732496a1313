/** Real programs that nobody here wrote: finds them, runs them with a deadline, starts servers and ends them. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { accessSync, constants, createReadStream, existsSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, chown, mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import getPort from 'get-port'
import type { TestContext } from 'vitest'
import { answers } from './answers.js'

/** The programs and the Debian package that has each; `test/apt-packages.txt` lists the packages. */
export const packages = {
  ab: 'apache2-utils',
  caddy: 'caddy',
  chromium: 'chromium',
  curl: 'curl',
  dig: 'bind9-dnsutils',
  dnsmasq: 'dnsmasq-base',
  'docker-compose': 'docker-compose',
  git: 'git',
  go: 'golang-go',
  gtlsclient: 'ngtcp2-client',
  gtlsserver: 'ngtcp2-server',
  initdb: 'postgresql',
  ip: 'iproute2',
  iperf3: 'iperf3',
  'nc.openbsd': 'netcat-openbsd',
  nginx: 'nginx',
  openssl: 'openssl',
  perl: 'perl',
  postgres: 'postgresql',
  psql: 'postgresql',
  'redis-benchmark': 'redis-tools',
  'redis-cli': 'redis-tools',
  'redis-server': 'redis-server',
  socat: 'socat',
  sort: 'coreutils',
  ss: 'iproute2',
  'systemd-analyze': 'systemd',
}

export type Program = keyof typeof packages

/** Sources for Go: where Debian puts them, and the package that has each. */
export const goPath = '/usr/share/gocode'
export const goPackages = { 'github.com/hashicorp/yamux': 'golang-github-hashicorp-yamux-dev' }

/** How long a program may run, in milliseconds, where its caller says nothing else. */
const RUN_TIMEOUT = 50_000
/** How long a server program may take to start, and to end before it is killed. */
const START_TIMEOUT = 20_000
const END_TIMEOUT = 5_000
/** Times that another port is tried where somebody took the one that was free a moment ago. */
const ATTEMPTS = 3

/** Folders beside those of PATH: where Debian keeps servers, which only root has in PATH, and PostgreSQL's own. */
const folders = [
  ...(process.env.PATH ?? '').split(delimiter).filter(Boolean),
  '/usr/sbin',
  '/usr/local/sbin',
  ...entries('/usr/lib/postgresql').map((version) => `/usr/lib/postgresql/${version}/bin`),
]

/** First in a test that runs programs: skips it, with the reason, where one of these is missing. */
export function needs(context: TestContext, ...programs: Program[]): void {
  if (process.platform === 'win32') context.skip('these programs are tried on Linux and macOS')
  const missing = programs.filter((program) => !find(program))
  if (missing.length > 0) {
    const names = missing.map((program) => `${program} (Debian package ${packages[program]})`)
    context.skip(`missing: ${names.join(', ')}`)
  }
  context.onTestFinished(cleanUp)
}

/** Next in a test that builds a program which imports one of these. */
export function needsSource(context: TestContext, source: keyof typeof goPackages): void {
  if (existsSync(`${goPath}/src/${source}`)) return
  context.skip(`missing: the sources of ${source} (Debian package ${goPackages[source]})`)
}

/** A test that runs into its timeout never leaves its scope: what it opened is here. */
const running = new Set<ChildProcess>()
const temporary = new Set<Folder>()

async function cleanUp(): Promise<void> {
  for (const child of running) child.kill('SIGKILL')
  for (const folder of temporary) await folder[Symbol.asyncDispose]()
}

export function find(program: Program): string | undefined {
  return folders.map((folder) => join(folder, program)).find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function entries(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : []
}

/** How a run went. */
export interface Run {
  stdout: Buffer
  stderr: string
}

/** Options of {@link run}. */
export interface RunOptions extends SpawnOptions {
  /** What the program reads; it reads an empty input where this is left out. */
  input?: Buffer | string
  /** Milliseconds until it is killed. Default 50,000. */
  timeout?: number
}

/** Runs a program to its end. Rejects where it fails or takes too long, with what it wrote to stderr. */
export async function run(
  program: Program,
  args: string[],
  { input = '', ...options }: RunOptions = {},
): Promise<Run> {
  await using child = start(program, args, options)
  child.stdin.end(input)
  const [stdout] = await Promise.all([readOutput(child.stdout), child.exited])
  return { stdout, stderr: child.stderr() }
}

/** A program that runs. */
export interface Running extends AsyncDisposable {
  readonly process: ChildProcess
  readonly stdin: Writable
  readonly stdout: Readable
  /** What it wrote to stderr so far. */
  stderr(): string
  /** Resolves when it has ended by itself without complaint; rejects where it failed, was killed or takes too long. */
  readonly exited: Promise<void>
}

/** Starts a program whose input and output the test drives. It is killed at the end of the scope. */
export function start(
  program: Program,
  args: string[],
  { timeout = RUN_TIMEOUT, ...options }: Omit<RunOptions, 'input'> = {},
): Running {
  const child = spawn(find(program) ?? program, args, { ...options, stdio: 'pipe' })
  running.add(child)
  let stderr = ''
  child.stderr.on('data', (chunk) => {
    // The end says what is wrong.
    stderr = (stderr + chunk).slice(-100_000)
  })
  // A program that ends early need not have read its input.
  child.stdin.on('error', () => {})
  let late = false
  const timer = setTimeout(() => {
    late = true
    child.kill('SIGKILL')
  }, timeout)
  const exited = new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      running.delete(child)
      if (code === 0) return resolve()
      const how = late ? `took longer than ${timeout} ms` : `ended with ${signal ?? `status ${code}`}`
      reject(new Error(`${program} ${args.join(' ')} ${how}: ${stderr.slice(-2_000)}`))
    })
  })
  exited.catch(() => {})
  return {
    process: child,
    stdin: child.stdin,
    stdout: child.stdout,
    stderr: () => stderr,
    exited,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await exited.catch(() => {})
    },
  }
}

/** All bytes of a program's output. */
async function readOutput(stdout: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stdout) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** A temporary folder, removed at the end of the scope. */
export interface Folder extends AsyncDisposable {
  readonly path: string
  /** The path of a file inside. */
  file(name: string): string
}

export async function temporaryFolder(): Promise<Folder> {
  const path = await mkdtemp(join(tmpdir(), 'pipe-tunnel-'))
  const folder = {
    path,
    file: (name: string) => join(path, name),
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true, maxRetries: 3 })
      temporary.delete(folder)
    },
  }
  temporary.add(folder)
  return folder
}

/** A server program that answers, in a temporary folder of its own. */
export interface ServerProgram extends AsyncDisposable {
  readonly port: number
  readonly folder: Folder
}

/** Options of {@link startNginx}. */
export interface NginxOptions {
  /** Whether its port takes connections with a PROXY header alone. Default false. */
  proxyProtocol?: boolean
}

/**
 * nginx that serves the files of its folder, and takes new ones by PUT. It also listens on the socket `nginx.sock` in
 * there. At `/visitor` it answers what a PROXY header says: address and port of the visitor, then where that came to.
 */
export function startNginx({ proxyProtocol = false }: NginxOptions = {}): Promise<ServerProgram> {
  const visitor = ['addr', 'port', 'server_addr', 'server_port'].map((name) => `$proxy_protocol_${name}`)
  return runNginx(
    (port, folder) => `sendfile on; keepalive_requests 100000; default_type application/octet-stream;
      server {
        listen 127.0.0.1:${port} backlog=1024 ${proxyProtocol ? 'proxy_protocol' : ''};
        listen unix:${folder.file('nginx.sock')};
        location = /visitor { return 200 '${visitor.join(' ')}'; }
        root .; dav_methods PUT DELETE;
      }`,
  )
}

/** nginx in front of another server, with connections to it that it uses again. */
export function startProxy(upstream: number): Promise<ServerProgram> {
  return runNginx(
    (port) => `upstream tunnels { server 127.0.0.1:${upstream}; keepalive 1; }
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass http://tunnels; proxy_http_version 1.1; proxy_set_header Connection "";
          proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
      }`,
  )
}

function runNginx(http: (port: number, folder: Folder) => string): Promise<ServerProgram> {
  return startServer(async (port, folder) => {
    // One process, so that whoever ends it has ended it all.
    await writeFile(
      folder.file('nginx.conf'),
      `daemon off; master_process off; pid nginx.pid; error_log stderr;
      events { worker_connections 1024; }
      http {
        access_log off; client_max_body_size 0;
        client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
        uwsgi_temp_path uwsgi; scgi_temp_path scgi;
        ${http(port, folder)}
      }`,
    )
    const args = ['-p', folder.path, '-c', folder.file('nginx.conf'), '-e', 'stderr']
    return { program: 'nginx', args, end: 'SIGTERM' }
  })
}

/** Redis that keeps nothing. */
export function startRedis(): Promise<ServerProgram> {
  return startServer(async (port, folder) => {
    const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', folder.path]
    return { program: 'redis-server', args: [...args, '--save', ''], end: 'SIGTERM' }
  })
}

/** PostgreSQL with a fresh cluster, whose superuser is `postgres`; it trusts everybody. */
export function startPostgres(): Promise<ServerProgram> {
  return startServer(async (port, folder) => {
    // It refuses to run as root.
    const owner = process.getuid?.() === 0 ? account('postgres') : undefined
    if (owner) await chown(folder.path, owner.uid, owner.gid)
    await chmod(folder.path, 0o700)
    const options = { ...owner, cwd: folder.path }
    const data = folder.file('data')
    await run('initdb', ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync'], options)
    const args = ['-D', data, '-p', `${port}`, '-h', '127.0.0.1', '-k', folder.path, '-c', 'fsync=off']
    // SIGINT is its fast shutdown: it does not wait for clients.
    return { program: 'postgres', args, options, end: 'SIGINT', ready: /ready to accept connections/ }
  })
}

/**
 * dnsmasq that knows these records, `dig`'s way of writing them, and asks nobody else. It receives on 127.0.0.1, unless
 * told otherwise.
 */
export function startDnsmasq(records: string[], host = '127.0.0.1'): Promise<ServerProgram> {
  return startServer(async (port, folder) => {
    await writeFile(
      folder.file('dnsmasq.conf'),
      [
        `port=${port}`,
        `listen-address=${host}`,
        'bind-interfaces',
        'no-resolv',
        'no-hosts',
        'edns-packet-max=4096',
        ...records,
      ].join('\n'),
    )
    // Debug mode is the one in which it stays the user that it is, and a single process.
    const args = ['--no-daemon', '--pid-file=', '--log-facility=-', '-C', folder.file('dnsmasq.conf')]
    return { program: 'dnsmasq', args, host, end: 'SIGTERM' }
  })
}

/** iperf3, which serves one client at a time. */
export function startIperf(): Promise<ServerProgram> {
  return startServer(async (port) => {
    return { program: 'iperf3', args: ['-s', '-B', '127.0.0.1', '-p', `${port}`], end: 'SIGTERM' }
  })
}

/** A QUIC server that serves the files of its folder, with a certificate that it made. */
export function startQuic(): Promise<ServerProgram> {
  return startServer(async (port, folder) => {
    const [key, certificate] = [folder.file('key.pem'), folder.file('certificate.pem')]
    const made = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
    await run('openssl', ['req', ...made, '-subj', '/CN=localhost', '-keyout', key, '-out', certificate])
    const args = ['--quiet', '-d', folder.path, '127.0.0.1', `${port}`, key, certificate]
    // It says this before it binds the port, so a client's first datagram may be lost: QUIC sends it again.
    return { program: 'gtlsserver', args, end: 'SIGTERM', ready: /Using document root/, isUdp: true }
  })
}

/** Whom the system knows by this name, as `spawn` takes it. The package made the account. */
function account(name: string): { uid: number; gid: number } {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((one) => one.startsWith(`${name}:`))
  if (!line) throw new Error(`there is no account ${name} to run as`)
  const [, , uid, gid] = line.split(':')
  return { uid: Number(uid), gid: Number(gid) }
}

interface ServerCommand {
  program: Program
  args: string[]
  options?: SpawnOptions
  /** The signal by which it ends in order. */
  end: NodeJS.Signals
  /** What it writes to stderr when it serves, where an open port does not tell. */
  ready?: RegExp
  /** Where it listens. Default 127.0.0.1. */
  host?: string
  /** No TCP port of it tells: what it writes does. */
  isUdp?: boolean
}

/** Starts a server program on a free port; `prepare` writes its files and gives its command line. */
async function startServer(
  prepare: (port: number, folder: Folder) => Promise<ServerCommand>,
): Promise<ServerProgram> {
  for (let attempt = 1; ; attempt++) {
    const port = await getPort({ host: '127.0.0.1' })
    const folder = await temporaryFolder()
    try {
      const command = await prepare(port, folder)
      const { program, args, options, end } = command
      // It is ended by the test, which has a deadline of its own.
      const server = start(program, args, { ...options, timeout: 2 ** 31 - 1 })
      server.stdout.resume()
      const stop = async () => {
        server.process.kill(end)
        const timer = setTimeout(() => server.process.kill('SIGKILL'), END_TIMEOUT)
        await server.exited.catch(() => {})
        clearTimeout(timer)
      }
      try {
        await Promise.race([server.exited.then(ended), whenServing(server, port, command)])
      } catch (error) {
        await stop()
        throw error
      }
      return {
        port,
        folder,
        async [Symbol.asyncDispose]() {
          await stop()
          await folder[Symbol.asyncDispose]()
        },
      }
    } catch (error) {
      await folder[Symbol.asyncDispose]()
      if (attempt === ATTEMPTS) throw error
    }
  }
}

function ended(): never {
  throw new Error('the program ended without complaint where it should serve')
}

/** Resolves when the port takes connections, and the program has said that it is ready where it does that. */
async function whenServing(
  server: Running,
  port: number,
  { ready, host = '127.0.0.1', isUdp = false }: ServerCommand,
): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT
  for (;;) {
    if ((!ready || ready.test(server.stderr())) && (isUdp || (await answers({ host, port })))) return
    if (server.process.exitCode !== null || server.process.signalCode) return
    if (performance.now() > deadline) {
      throw new Error(`nothing answers at port ${port} after ${START_TIMEOUT} ms: ${server.stderr()}`)
    }
    await wait(20)
  }
}

/** A pseudorandom file that no two seeds share a block of, and its SHA-256. Never in memory as a whole. */
export async function pseudorandomFile(path: string, size: number, seed = 1): Promise<string> {
  const iv = Buffer.alloc(16)
  iv.writeUInt32BE(seed)
  // AES in counter mode is the fastest source of bytes here: over 1 GB a second.
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 'pipe-tunnel'), iv)
  const zeros = Buffer.alloc(Math.min(size, 1_048_576))
  const hash = createHash('sha256')
  await using file = await open(path, 'w')
  for (let left = size; left > 0; left -= zeros.length) {
    const bytes = cipher.update(left < zeros.length ? zeros.subarray(0, left) : zeros)
    hash.update(bytes)
    await file.write(bytes)
  }
  return hash.digest('hex')
}

/** SHA-256 of a file or of a stream, as hex. */
export async function sha256(source: string | Readable): Promise<string> {
  const hash = createHash('sha256')
  const stream = typeof source === 'string' ? createReadStream(source, { highWaterMark: 1_048_576 }) : source
  for await (const chunk of stream) hash.update(chunk)
  return hash.digest('hex')
}
