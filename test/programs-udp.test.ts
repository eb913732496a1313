/** Real programs that speak UDP, on both ends of a tunnel. */
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { pEvent } from 'p-event'
import { createServer, forward, openTunnel, type Server, type Tunnel, TunnelError } from 'pipe-tunnel'
import { expect, test, vi } from 'vitest'
import { pipe } from './helpers/command.js'
import {
  needs,
  pseudorandomFile,
  run,
  type ServerProgram,
  sha256,
  start,
  startDnsmasq,
  startIperf,
  startQuic,
  temporaryFolder,
} from './helpers/programs.js'

const MiB = 1_048_576

test('dig gets an answer of dnsmasq, at an address of each family', async (context) => {
  needs(context, 'dig', 'dnsmasq')
  await using dnsmasq = await startDnsmasq([
    'host-record=both.test,192.0.2.7,2001:db8::7',
    'txt-record=text.test,"hello"',
  ])
  await using server = await createServer({ host: ['127.0.0.1', '::1'] })
  await using tunnel = await openTunnel(`udp://localhost:${dnsmasq.port}`, { server })

  expect(tunnel.url).toBe(`udp://127.0.0.1:${tunnel.port}`)
  for (const host of ['127.0.0.1', '::1']) {
    const ask = (...question: string[]) => dig({ host, port: tunnel.port }, '+short', ...question)
    expect(await ask('both.test', 'A')).toBe('192.0.2.7\n')
    expect(await ask('both.test', 'AAAA')).toBe('2001:db8::7\n')
    expect(await ask('text.test', 'TXT')).toBe('"hello"\n')
  }
  expect(tunnel.stats).toMatchObject({ connections: 6, drops: 0 })
})

test('dig gets an answer of dnsmasq that receives on ::1 alone, by a forward to localhost', async (context) => {
  needs(context, 'dig', 'dnsmasq')
  await using dnsmasq = await startDnsmasq(['txt-record=text.test,"hello"'], '::1')
  await using tunnel = await forward('udp:127.0.0.1:0', `udp://localhost:${dnsmasq.port}`)

  expect(await dig(tunnel, '+short', '+tries=1', '+timeout=30', 'text.test', 'TXT')).toBe('"hello"\n')
})

test('dig gets an answer by pipe expose', async (context) => {
  needs(context, 'dig', 'dnsmasq')
  await using dnsmasq = await startDnsmasq(['txt-record=text.test,"hello"'])
  await using program = pipe(['expose', `udp://localhost:${dnsmasq.port}`])
  const { hostname, port } = new URL(await program.stdout.line(/^udp:/))

  expect(await dig({ host: hostname, port: Number(port) }, '+short', 'text.test', 'TXT')).toBe('"hello"\n')

  // The flow would go on for a minute of silence: an end does not wait for that.
  program.signal('SIGTERM')
  program.signal('SIGTERM')
  expect(await program.ended()).toMatchObject({ code: 0 })
})

test('an answer that UDP cuts short is asked for again over TCP, at the same public port', async (context) => {
  needs(context, 'dig', 'dnsmasq')
  // Some 50 KB, close to the most that an answer may have.
  const texts = numbered(250, 190)
  await using dnsmasq = await startDnsmasq(texts.map((text) => `txt-record=large.test,"${text}"`))
  await using server = await createServer()
  await using both = await openBoth(dnsmasq, server)

  const cut = await dig(both.udp, '+ignore', 'large.test', 'TXT')
  expect(cut).toMatch(/^;; flags: [^;]*\btc\b/m)
  expect(textsOf(cut).length).toBeLessThan(250)
  expect(both.tcp.stats.connections).toBe(0)

  const whole = await dig(both.udp, 'large.test', 'TXT')
  expect(whole).toContain(';; Truncated, retrying in TCP mode.')
  expect(textsOf(whole)).toEqual(texts)
  expect(both.tcp.stats.connections).toBe(1)
  expect(both.udp.stats).toMatchObject({ connections: 2, drops: 0 })
})

test('an answer of 4,000 bytes comes in one datagram where dig takes such', async (context) => {
  needs(context, 'dig', 'dnsmasq')
  const texts = numbered(18, 200)
  await using dnsmasq = await startDnsmasq(texts.map((text) => `txt-record=large.test,"${text}"`))
  await using server = await createServer()
  await using tunnel = await openTunnel(`udp://localhost:${dnsmasq.port}`, { server })

  const answer = await dig(tunnel, '+notcp', '+ignore', '+bufsize=4096', 'large.test', 'TXT')

  expect(answer).not.toMatch(/^;; flags: [^;]*\btc\b/m)
  expect(textsOf(answer)).toEqual(texts)
  const [, size] = /^;; MSG SIZE {2}rcvd: (\d+)$/m.exec(answer) ?? []
  expect(Number(size)).toBeGreaterThan(3_800)
  // The last bytes are counted by the time that dig has them.
  expect(tunnel.stats.bytesOut).toBe(Number(size))
})

test('100 digs at once all get their own answer', async (context) => {
  needs(context, 'dig', 'dnsmasq')
  const names = Array.from({ length: 100 }, (_, i) => `name${i}`)
  await using dnsmasq = await startDnsmasq(names.map((name) => `txt-record=${name}.test,"I am ${name}"`))
  await using server = await createServer()
  await using tunnel = await openTunnel(`udp://localhost:${dnsmasq.port}`, { server })

  // dig sets SO_REUSEPORT, so Linux may give two of them the same port, where one hears the answer of the other.
  const from = (i: number) => (process.platform === 'linux' ? ['-b', `127.0.0.${i + 1}`] : [])
  const answers = await Promise.all(
    names.map((name, i) => dig(tunnel, ...from(i), '+short', `${name}.test`, 'TXT')),
  )

  expect(answers).toEqual(names.map((name) => `"I am ${name}"\n`))
  expect(tunnel.stats.drops).toBe(0)
  // Each is a flow of its own; one that was slow may have asked again.
  expect(tunnel.stats.connections).toBeGreaterThanOrEqual(100)
})

test.for([
  ['to its server', []],
  ['from its server', ['-R']],
] as const)(
  'iperf3 sends 20 Mbit/s of datagrams %s, and what the tunnel drops is counted',
  async ([, direction], context) => {
    needs(context, 'iperf3')
    const size = 1_400
    await using iperf = await startIperf()
    await using server = await createServer()
    // Its control connection and its datagrams go to the same port.
    await using both = await openBoth(iperf, server)

    const where = ['-c', both.udp.host, '-p', `${both.udp.port}`]
    const how = ['-u', '-b', '20M', '-t', '2', '-l', `${size}`, '--json', ...direction]
    const { stdout } = await run('iperf3', [...where, ...how])

    const { packets, lost_packets: lost, lost_percent: loss } = JSON.parse(`${stdout}`).end.sum
    expect(packets).toBeGreaterThan(1_000)
    // The kernel throws away what a busy machine does not fetch in time.
    expect(loss).toBeLessThan(20)

    // What went in at one end of the tunnel came out at the other.
    const way = direction.length > 0 ? 'bytesOut' : 'bytesIn'
    const atServer = () => server.stats[way] - both.tcp.stats[way]
    await vi.waitFor(() => expect(both.udp.stats[way]).toBe(atServer()), { timeout: 20_000 })
    expect(atServer()).toBeGreaterThanOrEqual((packets - lost) * size)
    expect(server.stats.drops).toBeLessThanOrEqual(both.udp.stats.drops)
    // What never went in is counted, here or by the kernel.
    const { drops } = both.udp.stats
    const thrownAway = await kernelDrops(direction.length > 0 ? iperf.port : both.udp.port)
    expect(Math.floor(atServer() / size) + drops + thrownAway).toBeGreaterThanOrEqual(packets)
  },
)

test('openssl s_client and s_server talk by DTLS', async (context) => {
  needs(context, 'openssl')
  const key = randomBytes(32).toString('hex')
  const dtls = ['-dtls1_2', '-psk', key]
  await using target = start('openssl', ['s_server', ...dtls, '-nocert', '-accept', '127.0.0.1:0'])
  const targetSays = listenTo(target.stdout)
  const [, port] = await targetSays(/ACCEPT 127\.0\.0\.1:(\d+)/)
  await using server = await createServer()
  await using tunnel = await openTunnel(`udp://127.0.0.1:${port}`, { server })

  await using visitor = start('openssl', ['s_client', ...dtls, '-connect', `${tunnel.host}:${tunnel.port}`])
  const visitorSays = listenTo(visitor.stdout)
  visitor.stdin.write('a word of the visitor\n')
  await targetSays(/^a word of the visitor$/m)
  target.stdin.write('a word of the target\n')
  await visitorSays(/^a word of the target$/m)
  // A record of DTLS has 16 KiB at the most, which is a datagram of its own.
  const line = randomBytes(6_000).toString('hex')
  visitor.stdin.write(`${line}\n`)
  await targetSays(new RegExp(`^${line}$`, 'm'))

  visitor.stdin.end()
  await visitor.exited
  await targetSays(/^DONE$/m)
  expect(tunnel.stats).toMatchObject({ connections: 1, drops: 0 })
})

test('a file of 20 MiB comes by QUIC, also where the visitor changes its port midway', async (context) => {
  needs(context, 'gtlsclient', 'gtlsserver', 'openssl')
  await using quic = await startQuic()
  await using folder = await temporaryFolder()
  const hash = await pseudorandomFile(quic.folder.file('large'), 20 * MiB)
  await using server = await createServer()
  await using tunnel = await openTunnel(`udp://127.0.0.1:${quic.port}`, { server })

  const args = ['--quiet', '--no-quic-dump', '--no-http-dump', '--exit-on-all-streams-close']
  const rebinding = ['--change-local-addr=20ms']
  const url = `https://localhost:${tunnel.port}/large`
  await run('gtlsclient', [
    ...args,
    ...rebinding,
    `--download=${folder.path}`,
    tunnel.host,
    `${tunnel.port}`,
    url,
  ])

  expect(await sha256(folder.file('large'))).toBe(hash)
  expect(tunnel.stats.connections).toBe(2)
})

/** What dig prints. It tries three times, and five seconds each, unless it is told otherwise. */
async function dig({ host, port }: { host: string; port: number }, ...args: string[]): Promise<string> {
  // Nothing of the settings of whoever runs the tests.
  const { stdout } = await run('dig', ['-r', `@${host}`, '-p', `${port}`, ...args])
  return `${stdout}`
}

/** Texts of this length that sort by their number. */
function numbered(count: number, length: number): string[] {
  return Array.from({ length: count }, (_, i) => `${i}`.padStart(4, '0').padEnd(length, 'x'))
}

/** The texts of an answer, whose order means nothing. */
function textsOf(answer: string): string[] {
  return [...answer.matchAll(/\sIN\s+TXT\s+"(.*)"$/gm)].map(([, text]) => text as string).sort()
}

/** Datagrams that the kernel threw away at the sockets on or towards this port, because nobody fetched them in time. */
async function kernelDrops(port: number): Promise<number> {
  // Other systems do not tell.
  if (process.platform !== 'linux') return Number.POSITIVE_INFINITY
  const place = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const [, ...lines] = (await readFile('/proc/net/udp', 'utf8')).trim().split('\n')
  return lines
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, remote]) => local?.endsWith(place) || remote?.endsWith(place))
    .reduce((sum, fields) => sum + Number(fields.at(-1)), 0)
}

interface Both extends AsyncDisposable {
  tcp: Tunnel
  udp: Tunnel
}

/** A tunnel for connections and one for datagrams, at the same public port. */
async function openBoth({ port }: ServerProgram, server: Server): Promise<Both> {
  for (let attempt = 1; ; attempt++) {
    const tcp = await openTunnel(`tcp://localhost:${port}`, { server })
    try {
      const udp = await openTunnel(`udp://localhost:${port}`, { server, port: tcp.port })
      return {
        tcp,
        udp,
        async [Symbol.asyncDispose]() {
          await Promise.all([tcp.close(), udp.close()])
        },
      }
    } catch (error) {
      await tcp.close()
      // The system chose a port that somebody has for datagrams.
      if (!(error instanceof TunnelError && error.code === 'port-taken') || attempt === 5) throw error
    }
  }
}

/** Gathers what a program says; the function resolves once that matches. */
function listenTo(stdout: Readable): (pattern: RegExp) => Promise<RegExpExecArray> {
  let text = ''
  stdout.setEncoding('utf8').on('data', (chunk) => {
    text += chunk
  })
  return async (pattern) => {
    for (;;) {
      const match = pattern.exec(text)
      if (match) return match
      if (stdout.closed) throw new Error(`no ${pattern} in ${text}`)
      await pEvent(stdout, ['data', 'close'], { timeout: 30_000 })
    }
  }
}
