#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { Command, CommanderError, Option } from 'commander'
import { DEFAULT_PORT } from '../endpoint.js'
import { end, exit, fail } from './exit.js'

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))

const secret = new Option(
  '--secret <secret>',
  'shared secret, visible in the process list: prefer --secret-file or PIPE_SECRET',
).conflicts('secretFile')
const secretFile = new Option('--secret-file <path>', 'file whose first line is the secret')

/** What is no number stays a text, so that the complaint can quote it. */
const wholeNumber = (text: string) => (/^\d+$/.test(text) ? Number(text) : text)

const program = new Command('pipe')
  .description('Makes a local service reachable through a tunnel.')
  .version(version)
  .exitOverride()
  .configureOutput({ outputError: (message, write) => write(message.replace(/^error: /, 'pipe: ')) })

program
  .command('expose')
  .description('open a tunnel to each target and print its public URL')
  .argument(
    '<target...>',
    'what to expose: 3000, host:3000, or 8080:host:3000 to ask for the public port 8080',
  )
  .option('--to <server>', 'server to go through, host:port (else PIPE_SERVER, else one in this process)')
  .option('--port <number>', 'public port, where there is one target', wholeNumber)
  .addOption(secret)
  .addOption(secretFile)
  .addOption(new Option('--json', 'one JSON object a line on stdout').conflicts('quiet'))
  .option('--quiet', 'print the URL and errors, nothing else')
  .showHelpAfterError('(such as: pipe expose 3000; pipe expose --help lists the options)')
  .action(async (targets: string[], options) => (await import('./expose.js')).expose(targets, options))

program
  .command('server')
  .description('run a server for tunnels of other machines')
  .option('--host <address>', 'address to listen on, for clients and visitors', '127.0.0.1')
  .option('--port <number>', 'port for clients', wholeNumber, DEFAULT_PORT)
  .option('--ports <range>', 'ports that clients may ask for, such as 20000-20100')
  .option('--public-host <host>', 'host that goes into public URLs')
  .addOption(secret)
  .addOption(secretFile)
  .option('--insecure', 'listen on a public address without a secret')
  .showHelpAfterError('(pipe server --help lists the options)')
  .action(async (options) => (await import('./server.js')).runServer(options))

// A reader that leaves early, as in `pipe expose 3000 | head -1`, is no reason to end.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})

try {
  await program.parseAsync()
} catch (error) {
  // Commander has told what is wrong; a request for help or the version is no mistake.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? exit.closed : exit.usage
  else fail(error)
}
await end()
