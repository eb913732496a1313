/** The PROXY protocol: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt */
import { createServer, forward, openTunnel, type Tunnel, type TunnelOptions, type Visitor } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import { proxyHeader } from '../src/proxy-header.js'
import { answerAtEndTarget, tcpTarget, unixPath } from './helpers/targets.js'
import { hasIPv6 } from './helpers/udp.js'
import { ask, visit } from './helpers/visitor.js'

/** Twelve bytes that begin each header of version 2, then 2 for the version and 1 for «PROXY». */
const SIGNATURE = '0d0a0d0a000d0a515549540a 21'

const at = (address: string, port: number): Visitor => ({ address, port })
const nobody = at('unix', 0)

describe('a PROXY header', () => {
  test.each([
    [at('192.0.2.1', 56_324), at('198.51.100.2', 443), 'PROXY TCP4 192.0.2.1 198.51.100.2 56324 443'],
    [at('255.255.255.255', 65_535), at('0.0.0.0', 1), 'PROXY TCP4 255.255.255.255 0.0.0.0 65535 1'],
    [at('2001:db8::1', 56_324), at('2001:db8::2', 443), 'PROXY TCP6 2001:db8::1 2001:db8::2 56324 443'],
    [at('::1', 1_234), at('::', 80), 'PROXY TCP6 ::1 :: 1234 80'],
    [at('fe80::1%eth0', 1_234), at('fe80::2%eth0', 80), 'PROXY TCP6 fe80::1 fe80::2 1234 80'],
    [at('::ffff:192.0.2.1', 1_234), at('::1', 80), 'PROXY TCP6 ::ffff:192.0.2.1 ::1 1234 80'],
    [nobody, nobody, 'PROXY UNKNOWN'],
    [at('unknown', 0), at('127.0.0.1', 80), 'PROXY UNKNOWN'],
    [at('192.0.2.1', 1_234), at('::1', 80), 'PROXY UNKNOWN'],
  ])('of version 1 from %o to %o is the line %j', async (from, to, line) => {
    expect(Buffer.from(await proxyHeader(1, from, to)).toString('latin1')).toBe(`${line}\r\n`)
  })

  test.each([
    // 11 is TCP over IPv4; 12 bytes of addresses and ports follow.
    [at('192.0.2.1', 56_324), at('198.51.100.2', 443), '11 000c c0000201 c6336402 dc04 01bb'],
    [at('255.255.255.255', 65_535), at('0.0.0.0', 1), '11 000c ffffffff 00000000 ffff 0001'],
    // 21 is TCP over IPv6; 36 bytes follow.
    [
      at('2001:db8::1', 56_324),
      at('2001:db8:1:2:3:4:5:6', 443),
      '21 0024 20010db8000000000000000000000001 20010db8000100020003000400050006 dc04 01bb',
    ],
    [
      at('::1', 1_234),
      at('::', 80),
      '21 0024 00000000000000000000000000000001 00000000000000000000000000000000 04d2 0050',
    ],
    [
      at('fe80::abcd%eth0', 1_234),
      at('fe80::%2', 80),
      '21 0024 fe80000000000000000000000000abcd fe800000000000000000000000000000 04d2 0050',
    ],
    [
      at('::ffff:192.0.2.1', 1_234),
      at('1:2:3:4:5:6:7::', 80),
      '21 0024 00000000000000000000ffffc0000201 00010002000300040005000600070000 04d2 0050',
    ],
    // 00 is neither.
    [nobody, nobody, '00 0000'],
    [at('unknown', 0), at('127.0.0.1', 80), '00 0000'],
    [at('::1', 1_234), at('127.0.0.1', 80), '00 0000'],
  ])('of version 2 from %o to %o is %s', async (from, to, hex) => {
    const header = Buffer.from(await proxyHeader(2, from, to))
    expect(header.toString('hex')).toBe(`${SIGNATURE}${hex}`.replaceAll(' ', ''))
  })
})

describe('a target with proxyProtocol', () => {
  interface Way {
    name: string
    isUnix?: boolean
    open(target: string, options: Pick<TunnelOptions, 'proxyProtocol'>): Promise<Tunnel>
  }
  const ways: Way[] = [
    { name: 'openTunnel', open: openTunnel },
    { name: 'forward', open: (target, options) => forward(0, target, options) },
    {
      name: 'openTunnel on a unix socket',
      isUnix: true,
      open: (target, options) => openTunnel(target, { ...options, listen: `unix:${unixPath()}` }),
    },
    {
      name: 'forward on a unix socket',
      isUnix: true,
      open: (target, options) => forward(`unix:${unixPath()}`, target, options),
    },
  ]
  const usable = ways.filter(({ isUnix }) => !isUnix || process.platform !== 'win32')

  test.each(usable)('is told its visitor by $name, in front of the first byte', async ({ open, isUnix }) => {
    await using target = await answerAtEndTarget((request) => request)
    for (const proxyProtocol of [1, 2] as const) {
      await using tunnel = await open(target.address, { proxyProtocol })
      for (const request of ['GET / HTTP/1.1', '']) {
        const visitor = await visit(tunnel)
        const from = isUnix ? nobody : at('127.0.0.1', visitor.localPort as number)
        const to = isUnix ? nobody : at('127.0.0.1', tunnel.port)
        const seen: Buffer[] = []
        visitor.on('data', (chunk) => seen.push(chunk)).end(request)
        await new Promise((resolve) => visitor.once('end', resolve))

        const header = Buffer.from(await proxyHeader(proxyProtocol, from, to))
        expect(Buffer.concat(seen).toString('latin1')).toBe(`${header.toString('latin1')}${request}`)
      }
    }
  })

  test('is told visitors over IPv6', async ({ skip }) => {
    skip(!(await hasIPv6()), 'this machine has no IPv6')
    await using target = await answerAtEndTarget((request) => request)
    await using tunnel = await forward('[::1]:0', target.port, { proxyProtocol: 1 })
    const visitor = await visit(tunnel)
    const { localPort } = visitor
    const [line] = await Promise.all([
      new Promise((resolve) => visitor.once('data', (chunk) => resolve(`${chunk}`))),
      visitor.end(),
    ])
    expect(line).toBe(`PROXY TCP6 ::1 ::1 ${localPort} ${tunnel.port}\r\n`)
  })

  test('is told visitors over IPv4 as such where the server listens for both', async ({ skip }) => {
    skip(!(await hasIPv6()), 'this machine has no IPv6')
    await using target = await answerAtEndTarget((request) => request)
    await using server = await createServer({ host: '::', secret: 'correct horse battery staple' })
    await using tunnel = await openTunnel(target.port, { server, proxyProtocol: 1 })
    for (const [host, kind] of [
      ['127.0.0.1', 'TCP4'],
      ['::1', 'TCP6'],
    ] as const) {
      const line = `${await ask({ host, port: tunnel.port }, '')}`
      expect(line).toMatch(new RegExp(`^PROXY ${kind} ${host} ${host} \\d+ ${tunnel.port}\r\n$`))
    }
  })

  test('may speak first, and what is counted is the bytes of the visitor', async () => {
    await using target = await tcpTarget((socket) => {
      socket.write('220 ready ')
      socket.pipe(socket)
    })
    await using tunnel = await openTunnel(target.port, { proxyProtocol: 1 })

    expect(`${await ask(tunnel, 'bye')}`).toMatch(
      /^220 ready PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 \d+ \d+\r\nbye$/,
    )
    expect(tunnel.stats.bytesIn).toBe(3)
  })

  test.each([0, 3, '1', true, null, Number.NaN])('is not given version %j', async (value) => {
    const options = { proxyProtocol: value as unknown as 1 }
    for (const opening of [openTunnel(3000, options), forward(0, 3000, options)]) {
      await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
      const shown = typeof value === 'string' ? JSON.stringify(value) : String(value)
      await expect(opening).rejects.toThrow(`proxyProtocol must be 1 or 2, not ${shown}`)
    }
  })

  test('receives no datagrams', async () => {
    const options = { proxyProtocol: 2 as const }
    for (const opening of [openTunnel('udp:53', options), forward('udp:0', 'udp:53', options)]) {
      await expect(opening).rejects.toMatchObject({ code: 'invalid-option' })
      await expect(opening).rejects.toThrow('proxyProtocol must be left out for a udp target')
    }
  })
})
