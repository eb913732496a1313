/**
 * The one table of what may stand in a configuration file. It is a JSON Schema, of the few words that `validate` knows: what checks
 * the file, and what editors are given, are the same. The types see to it that no option is missing.
 */
import type { Conditions, DirectionConditions } from '../conditions/options.js'
import type { HttpOptions } from '../http-options.js'
import type { InspectOptions } from '../inspector/recorder.js'
import { MAX_TIMEOUT } from '../options.js'
import type { ServerLimits } from '../server-options.js'
import type { Config, LinkConfig, SecretConfig, ServerConfig, TunnelConfig } from './define.js'
import {
  choice,
  either,
  flag,
  list,
  milliseconds,
  named,
  number,
  object,
  type Schema,
  text,
  whole,
} from './schema-words.js'

/** A schema for each option. */
type Table<T> = Required<Record<keyof T, Schema>>

const MAX_COUNT = 1_000_000

const rate = (description: string) =>
  either([text(undefined, '100kb'), number(1, Number.MAX_SAFE_INTEGER)], description)
const ports = (description: string) => either([text(undefined, '20000-20100'), whole(1, 65_535)], description)
const lists = {
  allow: list(
    text(undefined, '10.0.0.0/8'),
    'Visitors that may come, as addresses and ranges. Default: all.',
  ),
  deny: list(
    text(undefined, '192.0.2.7'),
    'Visitors that may not, also where `allow` has them. Default: none.',
  ),
}

const secret: Table<SecretConfig> = {
  secret: text(
    'The secret itself, 8 characters or more. Prefer `secretFile`, or the variable `PIPE_SECRET`.',
  ),
  secretFile: text('File whose first line is the secret.'),
}

const direction: Table<DirectionConditions> = {
  latency: number(0, MAX_TIMEOUT, 'Milliseconds that bytes are on their way.'),
  jitter: number(0, MAX_TIMEOUT, 'Most milliseconds by which that differs, more or less.'),
  bandwidth: rate('Bytes per second of a slow link.'),
  dropRate: number(0, 1, 'Share of the datagrams that are lost.'),
  duplicateRate: number(0, 1, 'Share of the datagrams that come twice.'),
  reorderRate: number(0, 1, 'Share of the datagrams that the next one overtakes.'),
  stall: flag('Visitors are let in, and nothing flows.'),
  resetAfter: whole(0, Number.MAX_SAFE_INTEGER, 'Bytes after which a visitor and the target are reset.'),
  closeAfter: number(0, MAX_TIMEOUT, 'Milliseconds after which the direction ends.'),
  slice: object(
    {
      size: whole(1, Number.MAX_SAFE_INTEGER, 'Most bytes of a piece.'),
      gap: number(0, MAX_TIMEOUT, 'Milliseconds between two pieces.'),
    },
    'Bytes are handed on in small pieces.',
    ['size'],
  ),
}

const conditions: Table<Conditions> = {
  ...direction,
  in: object(direction, 'From visitors to the target.'),
  out: object(direction, 'From the target to visitors.'),
  refuse: flag('Visitors are turned away at once.'),
  seed: whole(0, 2 ** 32 - 1, 'What all chance comes from, so that a failure repeats.'),
}

const target = either(
  [whole(1, 65_535), text(undefined, 'localhost:3000')],
  'What to expose, as in `pipe expose`: `3000`, `8080:localhost:3000`, `udp://localhost:53`, `unix:app.sock`.',
)

const inspect: Table<InspectOptions> = {
  maxBodySize: whole(0, Number.MAX_SAFE_INTEGER, 'Most bytes of a body that are kept. Default 1048576.'),
  maxRequests: whole(0, MAX_COUNT, 'Most requests that are kept. Default 1000.'),
}

/** What each tunnel may have. */
const tunnel: Table<TunnelConfig> = {
  target,
  port: whole(0, 65_535, 'Public port. Default 0: any.'),
  hostname: either(
    [text(undefined, 'shop'), flag()],
    'Name under which visitors reach it by HTTP, at the port that the server has for that; `true`: any.',
  ),
  basicAuth: text('User and password that visitors of a hostname must give.', 'user:password'),
  listen: text('Unix socket at the server that visitors use instead of a port.', 'unix:/tmp/x.sock'),
  whileLost: choice(['wait', 'refuse'], 'What becomes of visitors while the link is lost. Default `wait`.'),
  proxyProtocol: choice([1, 2], 'Tells the target its visitor by a PROXY header of this version.'),
  hostHeader: text('The host that HTTP requests are made to name.', 'rewrite', 'localhost:3000'),
  limit: rate('Most bytes per second in each direction.'),
  conditions: object(conditions, 'A network that is broken on purpose.'),
  inspect: either([flag(), object(inspect)], 'Records the requests of HTTP, for the page of the inspector.'),
  ...lists,
  waitForTarget: either(
    [flag(), milliseconds()],
    'Waits for the target to accept a connection: so many milliseconds, or with `true` for `timeout`.',
  ),
  flowTimeout: milliseconds('Milliseconds of silence after which a flow of a udp target ends.'),
  maxFlows: whole(1, MAX_COUNT, 'Flows of a udp target at a time.'),
}

/** What all tunnels share. */
const link: Table<LinkConfig> = {
  to: text('The server to go through. Default: one in this process.', 'tunnel.example.com:8910'),
  ...secret,
  tls: either(
    [flag(), object({ caFile: text('File in PEM.'), servername: text() }, undefined, ['caFile'])],
    '`true` or `{ caFile, servername }`: encrypts, with a server that shows a certificate. `false`: does not encrypt.',
  ),
  mux: flag('One connection to the server carries all visitors.'),
  retry: flag('Tries again while the server can not be reached, until `timeout`.'),
  reconnect: flag('Connects again when the link to the server was lost. Default true.'),
  maxReconnects: whole(1, MAX_TIMEOUT, 'Attempts in a row to reconnect, before the tunnels are given up.'),
  timeout: milliseconds('Milliseconds until the tunnels are open. Default 10000; with `retry` 60000.'),
}

const limits: Table<ServerLimits> = {
  newcomers: whole(1, MAX_COUNT, 'Connections of strangers that have not logged in yet. Default 1024.'),
  newcomersPerAddress: whole(1, MAX_COUNT, 'The same of one address. Default 256.'),
  clients: whole(1, MAX_COUNT, 'Clients that are logged in. Default 1024.'),
  messages: whole(1, MAX_COUNT, 'Messages of one client in a second. Default 1000.'),
  tunnels: whole(1, MAX_COUNT, 'Tunnels of one client. Default 256.'),
  visitors: whole(1, MAX_COUNT, 'Visitors of one tunnel. Default 4096.'),
  waiting: whole(1, MAX_COUNT, 'Visitors of one tunnel that wait for their data stream. Default 2048.'),
  waitingTotal: whole(1, MAX_COUNT, 'The same of all tunnels. Default 8192.'),
  flows: whole(1, MAX_COUNT, 'Flows of one UDP tunnel. Default 1024.'),
  httpConnections: whole(1, MAX_COUNT, 'Connections of visitors to the port of HTTP tunnels.'),
}

/** The port of HTTP tunnels. */
const http: Table<HttpOptions> = {
  port: whole(0, 65_535, 'Port for visitors of all HTTP tunnels.'),
  host: either([text(), list(text())], 'Address to listen on, or several. Default: that of the server.'),
  domain: text('What names of tunnels are in. Default `localhost`.', 'example.com', 'https://example.com'),
  trustedProxies: list(
    text(undefined, '127.0.0.1'),
    'Proxies in front that tell the visitor by X-Forwarded-For. Default: none.',
  ),
  caddy: text('Admin API of a Caddy that is to take https for all names.', 'http://127.0.0.1:2019'),
}

/** What a server may have. */
const server: Table<ServerConfig> = {
  host: either([text(), list(text())], 'Address to listen on, or several. Default `127.0.0.1`.'),
  port: whole(0, 65_535, 'Port for clients. Default 8910.'),
  udpHost: text('Address to listen on for visitors of UDP tunnels. Default: that of the server.'),
  publicHost: text('The host that goes into public addresses.'),
  ports: ports('Ports that clients may ask for. Default: from 1024 up.'),
  sockets: text('Folder in which clients may listen on unix sockets.'),
  ...secret,
  secrets: named(
    object({
      ...secret,
      ports: ports('Ports that its holders may ask for.'),
      maxTunnels: whole(1, MAX_COUNT, 'Tunnels of all its holders together.'),
      hostnames: list(text(undefined, 'shop', 'api-*'), 'Hostnames that its holders alone may ask for.'),
    }),
    '^[a-z0-9-]{1,32}$',
    'More secrets, by their names.',
  ),
  tls: either(
    [
      choice([false]),
      object({ certFile: text('File in PEM.'), keyFile: text('File in PEM.') }, undefined, [
        'certFile',
        'keyFile',
      ]),
    ],
    'Encrypts with this certificate. `false`: does not encrypt. Default: by the secret, if any.',
  ),
  http: object(http, 'Gives HTTP tunnels a port, of which each has a name.', ['port']),
  ...lists,
  insecure: flag('Listens on an address that others can reach although there is no secret.'),
  handshakeTimeout: milliseconds('Milliseconds for a new connection to log in. Default 5000.'),
  exchangeTimeout: milliseconds('Milliseconds that a visitor waits for its data stream. Default 10000.'),
  heartbeatInterval: milliseconds('Milliseconds between heartbeats. Default 5000.'),
  heartbeatTimeout: milliseconds(
    'Milliseconds without a sign of life after which a peer is gone. Default 15000.',
  ),
  resumeTimeout: whole(
    0,
    MAX_TIMEOUT,
    'Milliseconds that the tunnels of a lost client are kept. Default 30000.',
  ),
  flowTimeout: milliseconds(
    'Milliseconds of silence after which a flow of a UDP tunnel ends. Default 60000.',
  ),
  limits: object(limits, 'How much the server takes on.'),
}

const config: Table<Config> = {
  $schema: text('The JSON Schema of this file.'),
  ...link,
  tunnels: named(
    either([target, object(tunnel, undefined, ['target'])]),
    '^[A-Za-z0-9][A-Za-z0-9._-]*$',
    'Tunnels by their names, which `pipe up` opens.',
  ),
  server: object(server, 'What `pipe server` runs with.'),
}

/** The schema of a whole file. */
export const schema: Schema = object(
  config,
  'Configuration of pipe-tunnel: pipe.config.json and its other forms.',
)

/** The same for editors and other validators. */
export const jsonSchema = {
  $schema: 'http://json-schema.org/draft-07/schema#',
  title: 'pipe.config',
  ...schema,
}
