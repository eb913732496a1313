/** `pipe expose 3000 -- npm test`: what the command behind `--` gets, and what becomes of both. */
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import http from 'node:http'
import { constants } from 'node:os'
import path from 'node:path'
import { createServer } from 'pipe-tunnel'
import { describe, expect, type TestContext, test } from 'vitest'
import {
  type Ending,
  freePort,
  type Program,
  type ProgramOptions,
  pipe,
  pipeInShell,
  pipeToEnd,
  runToEnd,
  start,
  temporaryFolder,
} from './helpers/command.js'
import { echoTarget, httpTarget } from './helpers/targets.js'
import { ending, visit } from './helpers/visitor.js'

/** Prints the variables that it was given, in their order. */
const PRINT_VARIABLES = `
  const given = Object.entries(process.env).filter(([name]) => name.startsWith('PIPE_')).sort()
  console.log(JSON.stringify(Object.fromEntries(given)))
`

describe('the command behind --', () => {
  test('reaches the target at PIPE_URL', async () => {
    await using target = await httpTarget((request, response) => response.end(`hello ${request.url}`))

    const { stdout, code } = await exposeToEnd(
      [target.address],
      ["fetch(process.env.PIPE_URL + '/there').then((response) => response.text()).then(console.log)"],
    )

    expect(stdout).toBe('hello /there\n')
    expect(code).toBe(0)
  })

  test('is given the host and the port too', async () => {
    const { stdout } = await exposeToEnd(['tcp:localhost:3000'], [PRINT_VARIABLES])

    const given = JSON.parse(stdout)
    const port = new URL(given.PIPE_URL).port
    expect(given).toEqual({
      PIPE_URL: `tcp://127.0.0.1:${port}`,
      PIPE_HOST: '127.0.0.1',
      PIPE_PORT: port,
      PIPE_URL_1: given.PIPE_URL,
      PIPE_HOST_1: '127.0.0.1',
      PIPE_PORT_1: port,
    })
  })

  test('is given each of several tunnels by its number, and the first without one', async () => {
    await using first = await httpTarget((_request, response) => response.end('first'))
    await using second = await httpTarget((_request, response) => response.end('second'))

    const { stdout } = await exposeToEnd(
      [first.address, second.address],
      [
        `const { PIPE_URL, PIPE_URL_1, PIPE_URL_2, PIPE_PORT_2 } = process.env
       const get = async (url) => (await fetch(url)).text()
       Promise.all([PIPE_URL, PIPE_URL_1, PIPE_URL_2, 'http://127.0.0.1:' + PIPE_PORT_2].map(get)).then(console.log)`,
      ],
    )

    expect(stdout).toBe("[ 'first', 'first', 'second', 'second' ]\n")
  })

  test('gets the words behind -- as they are, also those that look like options of ours', async () => {
    const words = ['--json', '--port', 'a b', '', '--', '$HOME', '"']

    const { stdout } = await exposeToEnd(
      ['3000'],
      ['console.log(JSON.stringify(process.argv.slice(1)))', '--', ...words],
    )

    expect(JSON.parse(stdout)).toEqual(words)
  })

  test('has stdout to itself, and what pipe says is on stderr', async () => {
    const { stdout, stderr } = await exposeToEnd(['3000'], ["console.log('of the command')"])

    expect(stdout).toBe('of the command\n')
    expect(stderr).toMatch(/^http:\/\/127\.0\.0\.1:\d+\nleads to localhost:3000\n$/)
  })

  test('has stdout to itself with --json too', async () => {
    const { stdout, stderr } = await exposeToEnd(['3000', '--json'], ["console.log('of the command')"])

    expect(stdout).toBe('of the command\n')
    const events = stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).event)
    expect(events).toEqual(['ready', 'close'])
  })

  test('reads stdin', async () => {
    await using program = expose(
      ['3000'],
      ["process.stdin.on('data', (text) => process.exit(String(text) === 'yes' ? 5 : 6))"],
    )
    await program.stderr.line(/leads to/)

    program.type('yes')

    expect((await program.ended()).code).toBe(5)
  })

  test('starts when the target is there, with --wait', async () => {
    const port = await freePort()
    await using program = expose(
      [String(port), '--wait'],
      ['fetch(process.env.PIPE_URL).then(({ status }) => process.exit(status - 200))'],
    )
    await program.stderr.line(/waiting for the target/)

    await using target = http.createServer((_request, response) => response.writeHead(204).end()).listen(port)
    await once(target, 'listening')

    expect((await program.ended()).code).toBe(4)
  })

  test('does not start where no tunnel can be opened', async () => {
    const { code, stdout } = await exposeToEnd(['3000', '--to', '127.0.0.1:1'], ["console.log('started')"])

    expect(code).toBe(1)
    expect(stdout).toBe('')
  })
})

describe('the exit code', () => {
  test.each([0, 1, 42, 255])('is that of the command: %i', async (code) => {
    expect((await exposeToEnd(['3000'], [`process.exit(${code})`])).code).toBe(code)
  })

  test('is 128 and the number of the signal that ended the command', async (context) => {
    needsSignals(context)
    const { code } = await exposeToEnd(['3000'], ["process.kill(process.pid, 'SIGKILL')"])

    expect(code).toBe(128 + 9)
  })

  test('is 128 and the number of the signal that came before the command was started', async (context) => {
    needsSignals(context)
    await using program = expose([String(await freePort()), '--wait'], ["console.log('started')"])
    await program.stderr.line(/waiting for the target/)

    program.signal('SIGTERM')

    const { code, stdout } = await program.ended()
    expect(code).toBe(128 + constants.signals.SIGTERM)
    expect(stdout).toBe('')
  })

  test('is 127, with a sentence, where the command is not found', async () => {
    const { code, stdout, stderr } = await pipeToEnd(['expose', '3000', '--quiet', '--', 'no-such-command'])

    if (process.platform !== 'win32') {
      expect(stderr).toMatch(
        /^http:.*\npipe: the command no-such-command was not found: is it installed, and in PATH\?\n$/,
      )
      expect(code).toBe(127)
    }
    expect(code).toBeGreaterThan(0)
    expect(stdout).toBe('')
  })

  test('is 126, with a sentence, where the command may not be executed', async ({ skip }) => {
    skip(process.platform === 'win32', 'Windows has no file modes')
    await using folder = await temporaryFolder()
    const file = path.join(folder.path, 'script')
    await writeFile(file, 'exit 0')

    const { code, stderr } = await pipeToEnd(['expose', '3000', '--', file])

    expect(stderr).toMatch(
      /^pipe: the command .*\/script can't be started \(.*EACCES\): may it be executed\?$/m,
    )
    expect(code).toBe(126)
  })

  test('is 2, with a sentence, where no command follows --', async () => {
    const { code, stderr } = await pipeToEnd(['expose', '3000', '--'])

    expect(stderr).toMatch(/^pipe: a command must follow --, such as: pipe expose 3000 -- npm test\n$/)
    expect(code).toBe(2)
  })
})

describe('a signal', () => {
  test.for(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    '%s is passed on, and the tunnel is open until the command has ended',
    async (signal, context) => {
      needsSignals(context)
      await using target = await httpTarget((_request, response) => response.end('still open'))
      await using program = expose(
        [target.address],
        [
          `process.on('${signal}', async () => {
           console.log(await (await fetch(process.env.PIPE_URL)).text())
           process.exit(9)
         })
         process.stdin.resume()
         console.log('ready')`,
        ],
      )
      await program.stdout.line(/^ready$/)

      program.signal(signal)

      const { code, stdout } = await program.ended()
      expect(stdout).toBe('ready\nstill open\n')
      expect(code).toBe(9)
    },
  )

  test('that ends the command gives 128 and its number', async (context) => {
    needsSignals(context)
    await using program = expose(['3000'], ["process.stdin.resume(); console.log('ready')"])
    await program.stdout.line(/^ready$/)

    program.signal('SIGTERM')

    expect((await program.ended()).code).toBe(128 + constants.signals.SIGTERM)
  })

  test('is passed on as often as it comes', async (context) => {
    needsSignals(context)
    await using program = expose(['3000'], [COUNT_INTERRUPTS])
    await program.stdout.line(/^ready$/)

    for (let count = 1; count <= 4; count++) {
      program.signal('SIGINT')
      await program.stdout.line(new RegExp(`^interrupt ${count}$`))
    }
    program.type('quit\n')

    expect((await program.ended()).code).toBe(4)
  })

  test('of a terminal reaches the command once', async (context) => {
    await needsTerminal(context)
    await using target = await httpTarget((_request, response) => response.end())
    await using folder = await temporaryFolder()
    await writeFile(path.join(folder.path, 'count.cjs'), COUNT_INTERRUPTS)
    const line = `exec ${pipeInShell} expose ${target.address} -- "${process.execPath}" count.cjs`
    await using program = start('script', ['-qec', line, '/dev/null'], { cwd: folder.path })
    const url = await program.stdout.line(/^http:/)
    await program.stdout.line(/^ready/)

    for (let count = 1; count <= 8; count++) {
      program.type('\u0003')
      await program.stdout.line(new RegExp(`interrupt ${count}\\b`))
      // When somebody has come through, pipe has dealt with the signal as well.
      await fetch(url.trim(), { headers: { connection: 'close' } })
    }
    program.type('quit\n')

    expect((await program.ended()).code).toBe(8)
  })
})

describe('the end', () => {
  test('of the command cuts at once who is still inside', async () => {
    await using target = await echoTarget()
    await using program = expose(
      [`tcp:${target.address}`],
      ["process.stdin.on('data', () => process.exit())"],
    )
    const { hostname, port } = new URL(await program.stderr.line(/^tcp:/))
    const visitor = await visit({ host: hostname, port: Number(port) })
    visitor.write('?')
    await once(visitor, 'data')

    const from = performance.now()
    program.type('end')

    expect(await ending(visitor)).toBe('reset')
    expect((await program.ended()).code).toBe(0)
    // Far below the time that visitors have to finish without a command.
    expect(performance.now() - from).toBeLessThan(4_000)
  })

  test.for([
    [0, 3],
    [7, 7],
  ])('of the link leaves the command alone: one that ends with %i then gives %i', async ([own, wanted]) => {
    await using server = await createServer()
    await using program = expose(
      ['3000', '--no-reconnect', '--to', server.address],
      [`process.stdin.on('data', () => process.exit(${own})); console.log('ready')`],
    )
    await program.stdout.line(/^ready$/)

    await server.close()
    await program.stderr.line(/^pipe: .* is gone: the server was closed/)
    program.type('end')

    expect((await program.ended()).code).toBe(wanted)
  })
})

/** Tells of each SIGINT, and ends with their number when it reads `quit`. */
const COUNT_INTERRUPTS = `
  let count = 0
  process.on('SIGINT', () => console.log('interrupt ' + ++count))
  process.stdin.on('data', (text) => String(text).includes('quit') && process.exit(count))
  console.log('ready')
`

/** Starts `pipe expose` with a program of Node behind `--`. */
function expose(args: string[], [program = '', ...rest]: string[], options?: ProgramOptions): Program {
  return pipe(['expose', ...args, '--', process.execPath, '-e', program, ...rest], options)
}

async function exposeToEnd(args: string[], program: string[]): Promise<Ending> {
  await using running = expose(args, program)
  return await running.ended()
}

async function needsTerminal({ skip }: TestContext): Promise<void> {
  const { stdout } = await runToEnd('script', ['--version']).catch(() => ({ stdout: '' }))
  skip(!stdout.includes('util-linux'), 'needs script of util-linux to make a terminal')
}

function needsSignals({ skip }: TestContext): void {
  skip(process.platform === 'win32', 'Windows has no signals that a program can handle')
}
