/** The shape of the configuration file: what is refused, in which words, and that other validators say the same. */
import { Ajv } from 'ajv'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { jsonSchema, schema } from '../src/config/schema.js'
import type { Schema } from '../src/config/schema-words.js'
import { validate } from '../src/config/validate.js'

const ajvAccepts = new Ajv({ strict: true, strictTypes: false }).compile(jsonSchema)

const good: unknown[] = [
  {},
  { $schema: './node_modules/pipe-tunnel/dist/schema.json' },
  { tunnels: {} },
  {
    tunnels: {
      web: 3000,
      db: 'tcp:localhost:5432',
      'a.b-c_d': { target: 'udp://localhost:53', maxFlows: 5 },
    },
  },
  { tunnels: { web: { target: 3000, port: 0, limit: '100kb', allow: ['::1'], waitForTarget: true } } },
  { tunnels: { web: { target: 3000, limit: 65_536.5, waitForTarget: 500, proxyProtocol: 2 } } },
  { tunnels: { web: { target: 3000, conditions: { latency: 1.5, in: { slice: { size: 1 } }, seed: 7 } } } },
  { to: 'tunnel.example.com', secretFile: 's', tls: false, mux: true, retry: true, reconnect: false },
  { tls: { caFile: 'ca.pem', servername: 'tunnel' }, maxReconnects: 3, timeout: 1 },
  { server: { host: ['127.0.0.1', '::1'], port: 0, ports: 20_000, tls: false, limits: { flows: 1 } } },
  { server: { ports: '1-2', tls: { certFile: 'c', keyFile: 'k' }, secrets: { ci: { secretFile: 's' } } } },
]

const bad: [unknown, ...string[]][] = [
  [null, 'it must be an object, not null'],
  [[], 'it must be an object, not a list'],
  [{ tunels: {} }, 'tunels is unknown: did you mean tunnels?'],
  [{ xyzzyplugh: 1 }, expect.stringMatching(/^xyzzyplugh is unknown: known are \$schema, to, /)],
  [{ host: '::1' }, 'host is unknown: it belongs into server'],
  [{ target: 3000 }, 'target is unknown: it belongs into one of tunnels'],
  [{ port: 1 }, 'port is unknown: it belongs into one of tunnels, or into server'],
  [{ server: { domain: 'example.com' } }, 'server.domain is unknown: it belongs into server.http'],
  [
    { tunnels: { web: { target: 3000, latency: 5 } } },
    'tunnels.web.latency is unknown: it belongs into tunnels.web.conditions',
  ],
  [{ tunnels: [] }, 'tunnels must be an object, not a list'],
  [{ tunnels: { '-x': 3000 } }, expect.stringMatching(/^a name in tunnels must match .*, not "-x"$/)],
  [{ tunnels: { web: true } }, expect.stringMatching(/^tunnels\.web must be a whole number .*, not true$/)],
  [{ tunnels: { web: {} } }, expect.stringMatching(/^tunnels\.web\.target must be .*, not undefined$/)],
  [
    { tunnels: { web: { target: 3000, port: 'x' } } },
    'tunnels.web.port must be a whole number from 0 to 65535, not "x"',
  ],
  [
    { tunnels: { web: { target: 3000, port: 65_536 } } },
    'tunnels.web.port must be a whole number from 0 to 65535, not 65536',
  ],
  [
    { tunnels: { web: { target: 3000, hostheader: 'rewrite' } } },
    'tunnels.web.hostheader is unknown: did you mean hostHeader?',
  ],
  [{ tunnels: { web: { target: 3000, allow: 'x' } } }, 'tunnels.web.allow must be a list, not "x"'],
  [
    { tunnels: { web: { target: 3000, deny: ['x', 1] } } },
    'tunnels.web.deny[1] must be a text such as "192.0.2.7", not 1',
  ],
  [
    { tunnels: { web: { target: 3000, whileLost: 'stay' } } },
    'tunnels.web.whileLost must be "wait" or "refuse", not "stay"',
  ],
  [
    { tunnels: { web: { target: 3000, conditions: { in: { dropRate: 2 } } } } },
    'tunnels.web.conditions.in.dropRate must be a number from 0 to 1, not 2',
  ],
  [
    { tunnels: { web: { target: 3000, limit: 0 } } },
    'tunnels.web.limit must be a text such as "100kb", or a number of 1 or more, not 0',
  ],
  [
    { tls: { ca: 'x' } },
    'tls.caFile must be a text, not undefined',
    'tls.ca is unknown: known are caFile, servername',
  ],
  [{ tls: 1 }, 'tls must be true or false, or an object with caFile, not 1'],
  [{ secret: 12345678 }, 'secret must be a text, not number'],
  [
    { server: { secrets: { ci: { secret: 12345678 } } } },
    'server.secrets.ci.secret must be a text, not number',
  ],
  [{ server: { tls: true } }, 'server.tls must be false, or an object with certFile and keyFile, not true'],
  [
    { server: { limits: { flows: 1.5 } } },
    'server.limits.flows must be a whole number from 1 to 1000000, not 1.5',
  ],
  // All of them.
  [
    { mux: 1, server: { prot: 1 } },
    'mux must be true or false, not 1',
    'server.prot is unknown: did you mean port?',
  ],
]

describe('a file', () => {
  test.each(good.map((one) => [JSON.stringify(one), one]))('may be %s', (_text, value) => {
    expect(validate(value, schema)).toEqual([])
    expect(ajvAccepts(value)).toBe(true)
  })

  test.each(bad.map(([value, ...mistakes]) => [JSON.stringify(value), value, mistakes]))(
    'may not be %s',
    (_text, value, mistakes) => {
      expect(validate(value, schema)).toEqual(mistakes)
      expect(ajvAccepts(value)).toBe(false)
    },
  )

  test('made by chance is judged as by another validator, whatever is wrong with it', () => {
    const seen = { good: 0, bad: 0 }
    fc.assert(
      fc.property(fileLike(schema), (value) => {
        const isGood = validate(value, schema).length === 0
        seen[isGood ? 'good' : 'bad']++
        expect(isGood).toBe(ajvAccepts(value))
      }),
      { numRuns: 2_000 },
    )
    expect(Math.min(seen.good, seen.bad)).toBeGreaterThan(100)
  })

  test('of a module may hold what is undefined, as if it were left out', () => {
    expect(validate({ to: undefined, tunnels: { web: { target: 3000, port: undefined } } }, schema)).toEqual(
      [],
    )
  })

  test('may hold no date of TOML, and nothing that only looks like one of its own names', () => {
    expect(validate({ to: new Date(0) }, schema)).toEqual([
      'to must be a text such as "tunnel.example.com:8910", not an object',
    ])
    const inherited = JSON.parse('{ "toString": 1, "__proto__": 1 }')
    expect(validate(inherited, schema)).toHaveLength(2)
    expect(ajvAccepts(inherited)).toBe(false)
  })
})

/** Values as the schema wants them, and here and there something else. */
function fileLike(one: Schema): fc.Arbitrary<unknown> {
  const odd = fc.oneof(
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    fc.double(),
    fc.string(),
    fc.constant([]),
  )
  return fc.oneof({ weight: 30, arbitrary: wanted(one) }, { weight: 1, arbitrary: odd })
}

function wanted(one: Schema): fc.Arbitrary<unknown> {
  if ('anyOf' in one) return fc.oneof(...one.anyOf.map(fileLike))
  if ('enum' in one) return fc.constantFrom(...one.enum)
  switch (one.type) {
    case 'string':
      return fc.string()
    case 'boolean':
      return fc.boolean()
    case 'integer':
      return fc.integer({ min: one.minimum, max: Math.min(one.maximum, 2 ** 31) })
    case 'number':
      return fc.double({ min: one.minimum, max: one.maximum, noNaN: true })
    case 'array':
      return fc.array(fileLike(one.items), { maxLength: 3 })
    case 'object': {
      const { properties, required = [], additionalProperties } = one
      const known = Object.entries(properties).map(([key, below]) => [key, fileLike(below)])
      const others = additionalProperties || { type: 'boolean' as const }
      const names = fc.oneof(
        { weight: 30, arbitrary: fc.constantFrom('web', 'db', 'c-1') },
        { weight: 1, arbitrary: fc.string() },
      )
      const more = fc.dictionary(names, fileLike(others), { maxKeys: additionalProperties ? 3 : 0 })
      return fc
        .tuple(fc.record(Object.fromEntries(known), { requiredKeys: [...required] as never[] }), more)
        .map(([own, rest]) => ({ ...rest, ...own }))
    }
  }
}
