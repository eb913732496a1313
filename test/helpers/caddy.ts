/** A Caddy of its own for a test: its admin API, ports, storage and authority are shared with nobody. */
import { readFile, writeFile } from 'node:fs/promises'
import http from 'node:http'
import https from 'node:https'
import { freePort } from './command.js'
import { type Running, start, temporaryFolder } from './programs.js'

/** How long Caddy may take to answer, in milliseconds. */
const START_TIMEOUT = 20_000

export interface CaddyProgram extends AsyncDisposable {
  /** URL of the admin API. */
  readonly admin: string
  readonly ports: { http: number; https: number }
  /** Its whole configuration, as it prints it. */
  config(): Promise<string>
  /** Replaces it. */
  load(config: unknown): Promise<void>
  /** Puts an element at the end of the list there, such as `apps/http/servers/srv0/routes`. */
  append(path: string, value: unknown): Promise<void>
  /** The certificate of its own authority, in PEM. */
  authority(): Promise<string>
  /** A request by https for this name, with a certificate of Caddy's authority. */
  get(hostname: string, path?: string): Promise<string>
  /** Ends it without warning. */
  kill(): Promise<void>
  /** Starts it again, as at first, or with the configuration that it had. */
  start(how?: 'resume'): Promise<void>
}

/** The rest of a Caddyfile: what else holds for all of it, and the sites. */
export type Sites = (ports: { http: number; https: number }) => string

/** Caddy with these sites of a Caddyfile. */
export async function startCaddy(sites: Sites): Promise<CaddyProgram> {
  const folder = await temporaryFolder()
  const [adminPort, httpPort, httpsPort] = await Promise.all([freePort(), freePort(), freePort()])
  const ports = { http: httpPort, https: httpsPort }
  const admin = `http://127.0.0.1:${adminPort}`
  const storage = folder.file('storage')
  const configuration = folder.file('Caddyfile')
  const head = `admin 127.0.0.1:${adminPort}\nhttp_port ${httpPort}\nhttps_port ${httpsPort}
    skip_install_trust\nstorage file_system ${storage}`
  await writeFile(configuration, `{\n${head}\n${sites(ports)}`)
  const env = {
    ...process.env,
    HOME: folder.path,
    XDG_CONFIG_HOME: folder.path,
    XDG_DATA_HOME: folder.path,
  }
  let running: Running | undefined

  const call = async (method: string, path: string, body?: unknown) => {
    const sent = http.request(`${admin}/${path}`, {
      method,
      headers: { 'content-type': 'application/json' },
      agent: false,
      timeout: START_TIMEOUT,
    })
    sent.end(body === undefined ? undefined : JSON.stringify(body))
    const { status, text } = await answerTo(sent)
    if (status !== 200) throw new Error(`Caddy answers ${status}: ${text}`)
    return text
  }

  const caddy: CaddyProgram = {
    admin,
    ports,
    config: () => call('GET', 'config/'),
    async load(config) {
      await call('POST', 'load', config)
    },
    async append(path, value) {
      await call('POST', `config/${path}`, value)
    },
    authority: () => readFile(`${storage}/pki/authorities/local/root.crt`, 'utf8'),
    async get(hostname, path = '/') {
      const sent = https.get({
        host: '127.0.0.1',
        port: httpsPort,
        path,
        servername: hostname,
        headers: { host: hostname },
        ca: await caddy.authority(),
        agent: false,
      })
      const { text } = await answerTo(sent)
      return text
    },
    async kill() {
      await running?.[Symbol.asyncDispose]()
    },
    async start(how) {
      const from = how === 'resume' ? ['--resume'] : ['--config', configuration, '--adapter', 'caddyfile']
      running = start('caddy', ['run', ...from], { env, timeout: 2 ** 31 - 1 })
      running.stdout.resume()
      const deadline = Date.now() + START_TIMEOUT
      while (
        !(await caddy.config().then(
          () => true,
          () => false,
        ))
      ) {
        if (Date.now() > deadline || running.process.exitCode !== null) throw new Error(running.stderr())
      }
    },
    async [Symbol.asyncDispose]() {
      await caddy.kill()
      await folder[Symbol.asyncDispose]()
    },
  }
  await caddy.start()
  return caddy
}

async function answerTo(sent: http.ClientRequest): Promise<{ status: number; text: string }> {
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    sent.on('response', resolve).on('error', reject)
  })
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) text += chunk
  return { status: response.statusCode ?? 0, text }
}
