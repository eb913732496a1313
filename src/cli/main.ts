#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { Command, CommanderError, Option } from 'commander'
import { conditionOptions } from './conditions.js'
import { end, exit, fail } from './exit.js'
import { explain, exposeHint } from './mistakes.js'

const EXAMPLES = `
Examples:
  pipe expose 3000              a public URL for localhost:3000
  pipe expose 3000 -- npm test  the same in PIPE_URL, while the tests run`

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))

const secret = new Option(
  '--secret <secret>',
  'shared secret, visible in the process list: prefer --secret-file or PIPE_SECRET',
).conflicts('secretFile')
const secretFile = new Option('--secret-file <path>', 'file whose first line is the secret')

const config = new Option('--config <file>', 'configuration file (default: pipe.config.* of this folder)')

/** What stands behind `--` at `pipe expose` is a command, and no concern of the parser. */
const [args, childCommand] = splitArguments(process.argv)

/** What is no number stays a text, so that the complaint can quote it. */
const wholeNumber = (text: string) => (/^\d+$/.test(text) ? Number(text) : text)

/** Who may visit. */
const listOptions = [
  new Option('--allow <cidr...>', 'addresses and ranges of the visitors that may come, such as 10.0.0.0/8'),
  new Option('--deny <cidr...>', 'those that may not, also where --allow has them'),
]

const outputOptions = [
  new Option('--json', 'one JSON object a line on stdout').conflicts('quiet'),
  new Option('--quiet', 'print the URL and errors, nothing else'),
]

/** What `pipe expose` and `pipe forward` share. */
const localOptions = [
  ...listOptions,
  new Option('--limit <rate>', 'most bytes per second in each direction, such as 100kb or 1.5mb'),
  ...conditionOptions,
  new Option('--proxy-protocol <version>', 'tell the target its visitor by a PROXY header, 1 or 2').argParser(
    wholeNumber,
  ),
  new Option(
    '--host-header <host>',
    'host that HTTP requests are to name: rewrite for the target, or such as localhost:3000',
  ),
  new Option('--inspect', 'serve a page on this machine that shows requests and answers').conflicts('quiet'),
  new Option('--wait [seconds]', 'wait for the target to accept a connection first, 60 s or as long as this'),
  new Option('--flow-timeout <seconds>', 'silence after which a flow of a udp target ends (default: 60)'),
  new Option('--max-flows <number>', 'flows of a udp target at a time (default: 1024)').argParser(
    wholeNumber,
  ),
  ...outputOptions,
]

/** How to reach a server: what `pipe expose` and `pipe up` share. */
const linkOptions = [
  new Option('--to <server>', 'server to go through, host:port (else PIPE_SERVER, else one in this process)'),
  new Option(
    '--mux',
    'one connection to the server carries all visitors, for networks where a new one is slow or not allowed',
  ),
  new Option('--retry', 'while the server is not there yet, try again for up to a minute'),
  new Option('--no-reconnect', 'end when the link to the server is lost'),
  secret,
  secretFile,
  new Option('--ca <file>', 'what signed the certificate that the server shows, in PEM'),
  new Option('--tls', 'encrypt, with a server that shows a certificate of a known authority'),
  new Option('--no-tls', 'do not encrypt, although there is a secret'),
  config,
]

/** What `pipe server` tells of what happens. */
const logOptions = [
  new Option('--log-level <level>', 'what is told at least')
    .choices(['debug', 'info', 'warn', 'error'])
    .default('info'),
  new Option('--log-format <format>', 'for people, or one JSON object a line')
    .choices(['pretty', 'json'])
    .default('pretty'),
]

const program = new Command('pipe')
  .description('Makes a local service reachable through a tunnel.')
  .version(version)
  .addHelpText('after', EXAMPLES)
  .exitOverride()
  .configureOutput({ outputError: (message, write) => write(explain(message, args, exposeCommand.options)) })

const exposeCommand = program
  .command('expose')
  .description(
    'open a tunnel to each target and print its public URL; with a command behind --, run that and end with it',
  )
  .argument(
    '<target...>',
    'what to expose: 3000, host:3000, udp://host:53, unix:/path, or 8080:host:3000 to ask for the public port 8080',
  )
  .option('--port <number>', 'public port, where there is one target', wholeNumber)
  .option('--hostname [name]', 'HTTP tunnel of this name, or one that the server chooses')
  .option('--basic-auth <credentials>', 'name:password that visitors of an HTTP tunnel are asked for')
  .option('--listen <socket>', 'unix socket at the server in place of a port, such as unix:/tmp/x.sock')
  .showHelpAfterError(exposeHint(args))
  .usage('[options] <target...> [-- <command>]')
  .action(async (targets: string[], options) =>
    (await import('./expose.js')).expose(targets, options, childCommand),
  )

for (const option of [...linkOptions, ...localOptions]) exposeCommand.addOption(option)

const upCommand = program
  .command('up')
  .description('open the tunnels of the configuration file, those of these names or all')
  .argument('[name...]', 'which of its tunnels')
  .showHelpAfterError('(such as: pipe up web, where pipe.config.json has { "tunnels": { "web": 3000 } })')
  .action(async (names: string[], options) => (await import('./up.js')).up(names, options))
for (const option of [...linkOptions, ...outputOptions]) upCommand.addOption(option)

const forwardCommand = program
  .command('forward')
  .description('relay from one address of this machine to another, with no server in between')
  .argument('<listen>', 'where visitors connect: 8080, tcp:host:8080, udp:host:53 or unix:/path')
  .argument('<target>', 'where they end up, as in pipe expose')
  .option('--mode <mode>', "permissions of the unix socket's file, such as 660")
  .showHelpAfterError(
    '(such as: pipe forward unix:/tmp/x.sock tcp:localhost:5432; pipe forward --help lists the options)',
  )
  .action(async (listen: string, target: string, options) =>
    (await import('./forward.js')).runForward(listen, target, options),
  )
for (const option of localOptions) forwardCommand.addOption(option)

const serverCommand = program
  .command('server')
  .description('run a server for tunnels of other machines')
  .option(
    '--host <address...>',
    'address to listen on, for clients and visitors; several may follow (default: 127.0.0.1)',
  )
  .option('--port <number>', 'port for clients (default: 8910)', wholeNumber)
  .option('--ports <range>', 'ports that clients may ask for, such as 20000-20100')
  .option('--udp-host <address>', 'address to listen on for visitors of UDP tunnels, where that is another')
  .option('--public-host <host>', 'host that goes into public URLs')
  .option('--http-port <number>', 'port for HTTP tunnels, each with a name of its own', wholeNumber)
  .option(
    '--domain <domain>',
    'what their names are in, such as example.com, or https://example.com (default: localhost)',
  )
  .option(
    '--trust-proxy <cidr...>',
    'proxies in front that tell the address of the visitor by X-Forwarded-For',
  )
  .option(
    '--caddy <url>',
    'admin API of a Caddy that is to take https for their names, such as http://127.0.0.1:2019',
  )
  .option('--sockets <folder>', 'let clients listen on unix sockets in this folder')
  .addOption(secret)
  .addOption(secretFile)
  .option('--tls-cert <file>', 'encrypt with this certificate, in PEM, instead of by the secret')
  .option('--tls-key <file>', 'its private key, in PEM')
  .option('--no-tls', 'do not encrypt, although there is a secret')
  .option('--insecure', 'listen on a public address without a secret')
  .addOption(config)
  .option('--admin-port <number>', 'serve administration, metrics and health at this port', wholeNumber)
  .option('--admin-host <address>', 'address for that; needs a secret where others can reach it', '127.0.0.1')
  .option('--admin-secret-file <path>', 'file whose first line is its secret (else PIPE_ADMIN_SECRET)')
  .showHelpAfterError('(pipe server --help lists the options)')
  .action(async (options) => (await import('./server.js')).runServer(options))
for (const option of [...listOptions, ...logOptions]) serverCommand.addOption(option)

/** Where the administration of a server is. */
const adminOptions = [
  new Option('--admin <url>', 'the administration (else PIPE_ADMIN, else http://127.0.0.1:8912)'),
  new Option('--admin-secret-file <path>', 'file whose first line is its secret (else PIPE_ADMIN_SECRET)'),
  new Option('--json', 'one JSON object on stdout'),
]

const statusCommand = program
  .command('status')
  .description('list the tunnels of a server that was started with --admin-port')
  .showHelpAfterError('(pipe status --help lists the options)')
  .action(async (options) => (await import('./status.js')).status(options))

const closeCommand = program
  .command('close')
  .description('close a tunnel of such a server, by the id that pipe status shows')
  .argument('<id>', 'what pipe status shows, such as k7f3q9xm')
  .showHelpAfterError('(such as: pipe close k7f3q9xm; pipe status shows the ids)')
  .action(async (id: string, options) => (await import('./close.js')).close(id, options))
for (const option of adminOptions) for (const one of [statusCommand, closeCommand]) one.addOption(option)

// A reader that leaves early, as in `pipe expose 3000 | head -1`, is no reason to end.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})

try {
  await program.parseAsync(args)
} catch (error) {
  // Commander has told what is wrong; a request for help or the version is no mistake.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? exit.closed : exit.usage
  else fail(error)
}
await end()

function splitArguments(argv: string[]): [args: string[], command?: string[]] {
  const at = argv[2] === 'expose' ? argv.indexOf('--') : -1
  return at < 0 ? [argv] : [argv.slice(0, at), argv.slice(at + 1)]
}
