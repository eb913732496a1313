import { readFile } from 'node:fs/promises'
import fc from 'fast-check'
import { TunnelError } from 'pipe-tunnel'
import { describe, expect, test } from 'vitest'
import {
  decode,
  decodeLength,
  encode,
  errorFields,
  type FromClient,
  type FromServer,
  fromClient,
  fromServer,
  MAX_MESSAGE,
} from '../src/protocol.js'

type Anything = FromClient | FromServer
type Shapes = typeof fromClient | typeof fromServer

const documentation = await readFile(new URL('../docs/protocol.md', import.meta.url), 'utf8')

const n = (digit: string) => digit.repeat(64)
const id = '6fa459ea-ee8a-4ca4-894e-db77e160355e'

/** Each message, the length in front of it, and its JSON. */
const clientVectors: [FromClient, string, string][] = [
  [
    { type: 'hello', version: 1, nonce: n('0') },
    '00000067',
    `{"type":"hello","version":1,"nonce":"${n('0')}"}`,
  ],
  [{ type: 'login', proof: n('a') }, '0000005b', `{"type":"login","proof":"${n('a')}"}`],
  [{ type: 'login', proof: null }, '0000001d', '{"type":"login","proof":null}'],
  [
    { type: 'forward', tunnel: 1, protocol: 'tcp', port: 0 },
    '00000037',
    '{"type":"forward","tunnel":1,"protocol":"tcp","port":0}',
  ],
  [{ type: 'close', tunnel: 7 }, '0000001b', '{"type":"close","tunnel":7}'],
  [
    { type: 'reject', tunnel: 1, id, code: 'target-unreachable', message: 'zu früh' },
    '00000079',
    `{"type":"reject","tunnel":1,"id":"${id}","code":"target-unreachable","message":"zu früh"}`,
  ],
  [{ type: 'heartbeat' }, '00000014', '{"type":"heartbeat"}'],
  [{ type: 'exchange', id }, '0000003f', `{"type":"exchange","id":"${id}"}`],
]

const serverVectors: [FromServer, string, string][] = [
  [
    { type: 'challenge', nonce: n('f'), secret: true },
    '0000006d',
    `{"type":"challenge","nonce":"${n('f')}","secret":true}`,
  ],
  [
    { type: 'welcome', proof: null, heartbeatTimeout: 15_000, exchangeTimeout: 10_000 },
    '00000050',
    '{"type":"welcome","proof":null,"heartbeatTimeout":15000,"exchangeTimeout":10000}',
  ],
  [
    { type: 'refuse', code: 'timeout', message: 'too late' },
    '00000037',
    '{"type":"refuse","code":"timeout","message":"too late"}',
  ],
  [
    { type: 'forwarded', tunnel: 1, host: '127.0.0.1', port: 41_234 },
    '0000003f',
    '{"type":"forwarded","tunnel":1,"host":"127.0.0.1","port":41234}',
  ],
  [
    { type: 'closed', tunnel: 1, code: 'closed', message: '' },
    '00000039',
    '{"type":"closed","tunnel":1,"code":"closed","message":""}',
  ],
  [
    { type: 'exchange', tunnel: 1, id, address: '::1', port: 50_412, localAddress: '::1', localPort: 80 },
    '0000008b',
    `{"type":"exchange","tunnel":1,"id":"${id}","address":"::1","port":50412,"localAddress":"::1","localPort":80}`,
  ],
  [
    { type: 'dropped', tunnel: 1, count: 3, reason: 'slow' },
    '00000037',
    '{"type":"dropped","tunnel":1,"count":3,"reason":"slow"}',
  ],
  [{ type: 'joined' }, '00000011', '{"type":"joined"}'],
  [{ type: 'heartbeat' }, '00000014', '{"type":"heartbeat"}'],
]

const vectors = [
  ...clientVectors.map(([message, length, json]) => ({ message, length, json, shapes: fromClient })),
  ...serverVectors.map(([message, length, json]) => ({ message, length, json, shapes: fromServer })),
]

describe('on the wire', () => {
  test.each(vectors)('a message is its length and its JSON: $json', ({ message, length, json, shapes }) => {
    const bytes = Buffer.from(length + Buffer.from(json).toString('hex'), 'hex')

    expect(encode(message).toString('hex')).toBe(bytes.toString('hex'))
    expect(decodeLength(bytes)).toBe(bytes.length - 4)
    expect(decode(bytes.subarray(4), shapes)).toEqual(message)
  })

  test('close of tunnel 7 is these bytes', () => {
    expect(encode({ type: 'close', tunnel: 7 }).toString('hex')).toBe(
      '0000001b7b2274797065223a22636c6f7365222c2274756e6e656c223a377d',
    )
  })

  test('close of tunnel 7 is what the documentation shows', () => {
    const hex = encode({ type: 'close', tunnel: 7 }).toString('hex')
    expect(documentation).toContain(`${hex.slice(0, 8)} ${hex.slice(8)}\n`)
  })

  test('every message of both directions has a vector', () => {
    expect([...new Set(clientVectors.map(([{ type }]) => type))]).toEqual(Object.keys(fromClient))
    expect([...new Set(serverVectors.map(([{ type }]) => type))]).toEqual(Object.keys(fromServer))
  })

  test('a sentence too long for a message is shortened', () => {
    const fields = errorFields(new TunnelError('timeout', 'ä'.repeat(70_000)))

    expect(fields).toEqual({ code: 'timeout', message: `${'ä'.repeat(999)}…` })
    expect(decode(encode({ type: 'refuse', ...fields }).subarray(4), fromServer)).toMatchObject(fields)
  })
})

describe('a length', () => {
  const header = (hex: string) => Buffer.from(hex, 'hex')

  test.each([
    ['00000002', 2],
    ['00010000', 65_536],
  ])('%s is allowed', (hex, length) => expect(decodeLength(header(hex))).toBe(length))

  test.each([
    ['00000000', 0],
    ['00000001', 1],
    ['00010001', 65_537],
    ['80000000', 2_147_483_648],
    ['ffffffff', 4_294_967_295],
  ])('%s is refused with what is allowed', (hex, length) => {
    expect(() => decodeLength(header(hex))).toThrow(
      expect.objectContaining({
        code: 'protocol-violation',
        message: expect.stringContaining(`${length} bytes, where 2 to 65536 are allowed`),
      }),
    )
  })
})

test('the limits of the documentation are those of the code', async () => {
  const source = await readFile(new URL('../src/server-options.ts', import.meta.url), 'utf8')
  const limits = tableIn(sectionOf(documentation, '## Limits'))
  const setByServer = limits.flatMap(([, value = '', by = '']) => {
    const [, name] = /^server: `(?:limits\.)?(\w+)`/.exec(by) ?? []
    return name ? [[name, value.replace(' s', '_000').replace(',', '_')]] : []
  })

  expect(limits[0]?.[1]).toBe(`2 to ${MAX_MESSAGE.toLocaleString('en-US')} bytes`)
  expect(setByServer).toHaveLength(13)
  for (const [name, value] of setByServer) expect(source).toMatch(new RegExp(`\\b${name} = ${value}\\b`))
})

describe('decoding refuses', () => {
  test.each([
    ['nothing', ''],
    ['what is no JSON', '{"type":"heartbeat"'],
    ['JSON with something behind it', '{"type":"heartbeat"}{}'],
    ['a byte order mark', '\ufeff{"type":"heartbeat"}'],
    ['a text', '"heartbeat"'],
    ['a number', '17'],
    ['null', 'null'],
    ['an array', '[{"type":"heartbeat"}]'],
    ['an empty object', '{}'],
    ['an unknown type', '{"type":"teleport"}'],
    ['an empty type', '{"type":""}'],
    ['a type in capitals', '{"type":"Heartbeat"}'],
    ['a type that is a number', '{"type":1}'],
    ['a type that is an array', '{"type":["heartbeat"]}'],
    ['the type constructor', '{"type":"constructor"}'],
    ['the type __proto__', '{"type":"__proto__"}'],
    ['the type toString', '{"type":"toString"}'],
    ['the type hasOwnProperty', '{"type":"hasOwnProperty"}'],
    ['a type that a prototype would have', '{"__proto__":{"type":"heartbeat"}}'],
    ['a field that a prototype would have', '{"type":"close","__proto__":{"tunnel":7}}'],
  ])('%s', (_, json) => {
    expect(codeOf(json, fromClient)).toBe('protocol-violation')
    expect(codeOf(json, fromServer)).toBe('protocol-violation')
  })

  test('bytes that are no text', () => {
    expect(codeOf(Buffer.from('fffe00d8', 'hex'), fromClient)).toBe('protocol-violation')
  })

  test('what the other side sends', () => {
    for (const { json } of clientVectors.filter(([{ type }]) => !(type in fromServer)).map(toJson)) {
      expect(codeOf(json, fromServer)).toBe('protocol-violation')
    }
    for (const { json } of serverVectors.filter(([{ type }]) => !(type in fromClient)).map(toJson)) {
      expect(codeOf(json, fromClient)).toBe('protocol-violation')
    }
  })

  test.each(vectors)('$message.type without one of its fields', ({ message, shapes }) => {
    for (const field of Object.keys(message)) {
      const { [field]: _, ...rest } = message as Record<string, unknown>
      expect(codeOf(JSON.stringify(rest), shapes), field).toBe('protocol-violation')
    }
  })
})

describe('a field', () => {
  const objects: unknown[] = [[], [1], {}, { valueOf: 1 }]
  const noNumbers = ['1', '', true, false, null, ...objects]
  const noTexts = [0, 1, true, null, ...objects]
  const range = (min: number, max: number) => ({
    right: [min, max],
    wrong: [min - 1, max + 1, min + 0.5, -1, 1e300, ...noNumbers],
  })
  const text = (max: number) => ({
    right: ['', 'ä'.repeat(max), '\0'],
    wrong: ['x'.repeat(max + 1), ...noTexts],
  })
  const hex = {
    right: [n('0'), '0123456789abcdef'.repeat(4)],
    wrong: [
      '',
      n('0').slice(1),
      `${n('0')}0`,
      n('A'),
      n('g'),
      `${n('0')}\n`,
      ` ${n('0').slice(1)}`,
      ...noTexts,
    ],
  }
  const hexOf = (length: number) => ({
    right: ['0'.repeat(length), 'f'.repeat(length)],
    wrong: ['', '0'.repeat(length - 1), '0'.repeat(length + 1), 'F'.repeat(length), ...noTexts],
  })
  const uuid = {
    right: [id, '00000000-0000-4000-8000-000000000000', 'ffffffff-ffff-4fff-bfff-ffffffffffff'],
    wrong: [
      '',
      id.toUpperCase(),
      id.replaceAll('-', ''),
      `{${id}}`,
      `${id}\n`,
      '6fa459ea-ee8a-1ca4-894e-db77e160355e',
      '6fa459ea-ee8a-4ca4-194e-db77e160355e',
      '00000000-0000-0000-0000-000000000000',
      '__proto__',
      ...noTexts,
    ],
  }
  const address = {
    right: ['127.0.0.1', '::1', 'fe80::1%eth0', 'tunnel.example.com', 'my_service', 'x'.repeat(255)],
    wrong: ['', 'x'.repeat(256), 'a b', 'a\n', 'a/b', '[::1]', 'a@b', '\u001b[2J', 'ä', ...noTexts],
  }
  const optional = ({ right, wrong }: { right: unknown[]; wrong: unknown[] }) => ({
    right: [undefined, ...right],
    wrong: wrong.filter((value) => value !== undefined),
  })
  const time = range(1, 2 ** 31 - 1)
  /** The kinds of docs/protocol.md, each with values in and out of its bounds. */
  const kinds: Record<string, { right: unknown[]; wrong: unknown[] }> = {
    version: range(1, 65_535),
    tunnel: range(1, 2 ** 31),
    time,
    port: range(0, 65_535),
    count: range(1, Number.MAX_SAFE_INTEGER),
    protocol: { right: ['tcp', 'udp', 'unix', 'http'], wrong: ['TCP', 'sctp', '', ...noTexts] },
    path: optional({
      right: ['/', 'app.sock', '/tmp/Büro 1.sock', 'x'.repeat(108)],
      wrong: ['', 'x'.repeat(109), 'a\0b', 'a\nb', '\u001b', ...noTexts],
    }),
    label: optional({
      right: ['a', '0', 'shop', 'a-b', 'x'.repeat(63)],
      wrong: ['', '-a', 'a-', 'A', 'a.b', 'a_b', 'ä', 'a\n', 'x'.repeat(64), ...noTexts],
    }),
    digest: optional(hexOf(96)),
    scheme: optional({ right: ['http', 'https'], wrong: ['HTTP', 'ftp', '', ...noTexts] }),
    probe: optional(hexOf(32)),
    silence: optional(time),
    flows: optional(range(1, 1_000_000)),
    whileLost: optional({ right: ['wait', 'refuse'], wrong: ['WAIT', '', 'close', ...noTexts] }),
    ranges: optional({
      right: [
        [],
        ['192.0.2.7', '10.0.0.0/8', '0.0.0.0/0', '::', '::/0', '2001:db8::/32', '::ffff:10.0.0.0/104'],
        Array(64).fill('ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128'),
      ],
      wrong: [
        Array(65).fill('::1'),
        ['localhost'],
        [''],
        ['10.0.0.0/33'],
        ['::/129'],
        ['10.0.0.0/'],
        ['10.0.0.0/-1'],
        ['10.0.0.0/8/8'],
        ['[::1]'],
        ['fe80::1%eth0'],
        [' ::1'],
        ['::1\n'],
        ['x'.repeat(50)],
        [['::1']],
        [1],
        [null],
        { length: 1, 0: '::1' },
        '::1',
        null,
        1,
      ],
    }),
    nonce: hex,
    key: optional(hex),
    proof: { right: [null, ...hex.right], wrong: hex.wrong.filter((value) => value !== null) },
    id: uuid,
    code: {
      right: ['a', 'port-taken', 'of-a-later-version', 'x'.repeat(64)],
      wrong: ['', 'x'.repeat(65), 'PORT-TAKEN', 'port taken', 'port\u001btaken', 'a\n', ...noTexts],
    },
    sentence: text(1_000),
    address,
    host: { right: [null, ...address.right], wrong: address.wrong.filter((value) => value !== null) },
    boolean: { right: [true, false], wrong: [0, 1, 'true', '', null, ...objects] },
  }

  test('has one of the kinds that are documented', () => {
    expect(Object.keys(kinds)).toEqual(tableIn(sectionOf(documentation, '## Messages')).map(([kind]) => kind))
  })

  test.each([
    ['client', fromClient],
    ['server', fromServer],
  ])('of a message from the %s is documented, and no other', (side, shapes) => {
    const documented = messagesIn(side).map(({ type, fields }) => [type, fields.map(([field]) => field)])

    expect(documented).toEqual(Object.entries(shapes).map(([type, shape]) => [type, Object.keys(shape)]))
  })

  test.each([...fieldsIn('client', fromClient), ...fieldsIn('server', fromServer)])(
    'has its bounds: $type.$field is a $kind',
    ({ type, field, kind, shapes }) => {
      const vector = vectors.find((one) => one.shapes === shapes && one.message.type === type)
      const changed = (value: unknown) => ({ ...vector?.message, [field]: value })
      const { right, wrong } = kinds[kind] ?? { right: [], wrong: [] }

      for (const value of right) {
        expect(decode(Buffer.from(JSON.stringify(changed(value))), shapes)).toEqual(changed(value))
      }
      for (const value of wrong) {
        expect(codeOf(JSON.stringify(changed(value)), shapes), `${value}`).toBe('protocol-violation')
      }
    },
  )

  test('that nobody knows is ignored', () => {
    const json = '{"later":{"type":1},"type":"close","tunnel":7,"tunnel2":8}'

    expect(decode(Buffer.from(json), fromClient)).toEqual({ type: 'close', tunnel: 7 })
  })

  test('that is told twice counts the second time', () => {
    expect(decode(Buffer.from('{"type":"close","tunnel":"x","tunnel":7}'), fromClient)).toEqual({
      type: 'close',
      tunnel: 7,
    })
  })

  test('cannot reach a prototype', () => {
    const json =
      '{"type":"close","tunnel":7,"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}'
    const message = decode(Buffer.from(json), fromClient)

    expect(Object.getOwnPropertyNames(message)).toEqual(['type', 'tunnel'])
    expect(Object.getPrototypeOf(message)).toBe(Object.prototype)
    expect(Object.getOwnPropertyDescriptor(Object.prototype, 'polluted')).toBeUndefined()
  })

  test.each([
    ['arrays that nobody asked for', (depth: number) => `{"type":"heartbeat","x":${nested(depth)}}`],
    ['arrays alone', nested],
    ['arrays for a type', (depth: number) => `{"type":${nested(depth)}}`],
    ['objects', (depth: number) => `${'{"a":'.repeat(depth / 3)}1${'}'.repeat(depth / 3)}`],
  ])('may nest as deep as a message holds: %s', (_, make) => {
    const json = make((MAX_MESSAGE - 100) / 2)

    expect(json.length).toBeGreaterThan(MAX_MESSAGE * 0.9)
    expect(['heartbeat', 'protocol-violation']).toContain(codeOf(json, fromClient))
  })
})

describe('whatever comes, decoding throws nothing but a protocol-violation', () => {
  const outcomes = ['protocol-violation', ...Object.keys(fromClient), ...Object.keys(fromServer)]
  const check = (json: string | Uint8Array) => {
    expect(outcomes).toContain(codeOf(json, fromClient))
    expect(outcomes).toContain(codeOf(json, fromServer))
  }

  test('for a length, which is within its bounds or told', () => {
    const header = fc.uint8Array({ minLength: 4, maxLength: 4 })
    fc.assert(
      fc.property(fc.oneof(header, fc.nat(70_000).map(lengthOf)), (bytes) => {
        const length = Buffer.from(bytes).readUInt32BE()
        if (length >= 2 && length <= MAX_MESSAGE) expect(decodeLength(Buffer.from(bytes))).toBe(length)
        else expect(() => decodeLength(Buffer.from(bytes))).toThrow(TunnelError)
      }),
    )
  })

  test('for bytes', () => fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), check)))

  test('for JSON', () => fc.assert(fc.property(fc.json({ maxDepth: 5 }), check)))

  test('for a known type with any fields', () => {
    const types = fc.constantFrom(...outcomes, 'constructor', '__proto__', 'toString')
    const names = [...Object.values(fromClient), ...Object.values(fromServer)].flatMap((shape) =>
      Object.keys(shape),
    )
    const fields = fc.dictionary(fc.constantFrom(...names, '__proto__', 'constructor'), fc.jsonValue())
    fc.assert(
      fc.property(types, fields, (type, rest) => check(JSON.stringify({ ...rest, type }))),
      { numRuns: 1_000 },
    )
  })

  test('for a message with a byte changed', () => {
    const changed = fc.tuple(fc.constantFrom(...vectors), fc.nat(), fc.integer({ min: 0, max: 255 }))
    fc.assert(
      fc.property(changed, ([{ message }, at, byte]) => {
        const json = encode(message).subarray(4)
        json[at % json.length] = byte
        check(json)
      }),
      { numRuns: 1_000 },
    )
  })
})

test('every message is decoded as it was encoded', () => {
  const text = (maxLength: number) => fc.string({ unit: 'binary', maxLength })
  const hex = fc
    .uint8Array({ minLength: 32, maxLength: 32 })
    .map((bytes) => Buffer.from(bytes).toString('hex'))
  const number = fc.integer({ min: 1, max: 2 ** 31 })
  const port = fc.integer({ min: 0, max: 65_535 })
  const error = { code: fc.stringMatching(/^[a-z-]{1,64}$/), message: text(1_000) }
  const address = fc.stringMatching(/^[\w.:%-]{1,255}$/)
  const proof = fc.option(hex)
  const uuid = fc.uuid({ version: 4 })
  const time = fc.integer({ min: 1, max: 2 ** 31 - 1 })
  const path = fc.stringMatching(/^[\w/.-]{1,108}$/)
  const ranges = fc.array(
    fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      fc.tuple(fc.ipV4(), fc.nat(32)).map(([address, bits]) => `${address}/${bits}`),
      fc.tuple(fc.ipV6(), fc.integer({ min: 96, max: 128 })).map(([address, bits]) => `${address}/${bits}`),
    ),
    { maxLength: 64 },
  )
  const type = <const T extends string>(name: T) => ({ type: fc.constant(name) })

  const client: fc.Arbitrary<FromClient> = fc.oneof(
    fc.record({ ...type('hello'), version: fc.integer({ min: 1, max: 65_535 }), nonce: hex }),
    fc.record({ ...type('login'), proof, resume: hex }, { requiredKeys: ['type', 'proof'] }),
    fc.record(
      {
        ...type('forward'),
        tunnel: number,
        protocol: fc.constantFrom('tcp' as const, 'udp' as const, 'unix' as const),
        port,
        path,
        flowTimeout: time,
        maxFlows: fc.integer({ min: 1, max: 1_000_000 }),
        whileLost: fc.constantFrom('wait' as const, 'refuse' as const),
        allow: ranges,
        deny: ranges,
      },
      { requiredKeys: ['type', 'tunnel', 'protocol', 'port'] },
    ),
    fc.record({ ...type('close'), tunnel: number }),
    fc.record({ ...type('reject'), tunnel: number, id: uuid, ...error }),
    fc.record({ ...type('exchange'), id: uuid }),
    fc.record(type('heartbeat')),
  )
  const server: fc.Arbitrary<FromServer> = fc.oneof(
    fc.record({ ...type('challenge'), nonce: hex, secret: fc.boolean() }),
    fc.record(
      {
        ...type('welcome'),
        proof,
        heartbeatTimeout: time,
        exchangeTimeout: time,
        resumeTimeout: time,
        resume: hex,
      },
      { requiredKeys: ['type', 'proof', 'heartbeatTimeout', 'exchangeTimeout'] },
    ),
    fc.record({ ...type('refuse'), ...error }),
    fc.record(
      { ...type('forwarded'), tunnel: number, host: fc.option(address), port, path },
      { requiredKeys: ['type', 'tunnel', 'host', 'port'] },
    ),
    fc.record({
      ...type('dropped'),
      tunnel: number,
      count: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      reason: text(1_000),
    }),
    fc.record({ ...type('closed'), tunnel: number, ...error }),
    fc.record({
      ...type('exchange'),
      tunnel: number,
      id: uuid,
      address,
      port,
      localAddress: address,
      localPort: port,
    }),
    fc.record(type('joined')),
    fc.record(type('heartbeat')),
  )

  const check = (message: Anything, shapes: Shapes) => {
    const bytes = encode(message)
    expect(decodeLength(bytes)).toBe(bytes.length - 4)
    expect(decode(bytes.subarray(4), shapes)).toEqual(message)
  }
  fc.assert(fc.property(client, (message) => check(message, fromClient)))
  fc.assert(fc.property(server, (message) => check(message, fromServer)))
})

/** The part of a document under a heading. */
function sectionOf(text: string, heading: string): string {
  const [level] = heading.split(' ')
  const [, part = ''] = `\n${text}`.split(`\n${heading}\n`)
  return part.split(`\n${level} `)[0] as string
}

/** The rows of its first table, without the head. */
function tableIn(text: string): string[][] {
  const [table = ''] = /(^\|.*\n)+/m.exec(text) ?? []
  const rows = table.trim().split('\n').slice(2)
  return rows.map((row) =>
    row
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replace(/^`(.*)`$/, '$1')),
  )
}

/** The messages of a side as they are documented. */
function messagesIn(side: string) {
  const section = sectionOf(documentation, `## From the ${side}`)
  return [...section.matchAll(/^### `(.+)`$/gm)].map(([heading, type = '']) => ({
    type,
    fields: tableIn(sectionOf(section, heading)),
  }))
}

function fieldsIn(side: string, shapes: Shapes) {
  return messagesIn(side).flatMap(({ type, fields }) =>
    fields.map(([field = '', kind = '']) => ({ type, field, kind, shapes })),
  )
}

const toJson = ([, , json]: [Anything, string, string]) => ({ json })

const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)

/** What becomes of it: the type of the message that it is, or the code it is refused with. */
function codeOf(json: string | Uint8Array, shapes: Shapes): string {
  try {
    return decode(Buffer.from(json as Uint8Array), shapes as typeof fromClient).type
  } catch (error) {
    return error instanceof TunnelError ? error.code : String(error)
  }
}

function lengthOf(size: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(size)
  return bytes
}
