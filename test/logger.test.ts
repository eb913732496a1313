/** Logs: of the library, which go to a logger of its user, and of the command. */
import { pEvent } from 'p-event'
import { createServer, forward, type Logger, openTunnel, type ServerOptions } from 'pipe-tunnel'
import { describe, expect, test, vi } from 'vitest'
import { pipe, pipeToEnd } from './helpers/command.js'
import { brokenLink } from './helpers/link.js'
import { project } from './helpers/project.js'
import { echoTarget } from './helpers/targets.js'
import { ask, ending, visit } from './helpers/visitor.js'

const SECRET = 'correct horse battery staple'
const soon = { timeout: 30_000 }

interface Line {
  level: string
  message: string
  fields: Record<string, unknown>
}

/** A logger that keeps what it is told. */
function notebook() {
  const lines: Line[] = []
  const at = (level: string) => (fields: object, message: string) => {
    lines.push({ level, message, fields: { ...fields } })
  }
  const logger: Logger = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
  const line = (pattern: RegExp) =>
    vi.waitFor(() => {
      const found = lines.find(({ message }) => pattern.test(message))
      if (!found) throw new Error(`no line is like ${pattern}: ${JSON.stringify(lines)}`)
      return found
    }, soon)
  return { lines, logger, line }
}

describe('a server with a logger', () => {
  test('tells of a tunnel and its visitors', async () => {
    const { logger, line } = notebook()
    await using server = await createServer({ logger })
    await using target = await echoTarget()
    const tunnel = await openTunnel(target.port, { server })
    const { id, client } = server.tunnels[0] ?? {}
    await ask(tunnel, 'hello')
    const left = await line(/has left/)
    await target.stop()
    await ending(await visit(tunnel))
    const turnedAway = await line(/^turned 127\.0\.0\.1:\d+ away from 127/)
    await tunnel.close()

    const address = `127.0.0.1:${tunnel.port}`
    expect(await line(/^opened/)).toEqual({
      level: 'info',
      message: `opened tunnel ${id} at ${address} for 127.0.0.1:${client?.port}`,
      fields: { tunnel: id, address, client },
    })
    expect(left).toMatchObject({ level: 'debug', fields: { tunnel: id, bytesIn: 5, bytesOut: 5 } })
    expect(turnedAway).toMatchObject({ level: 'warn', fields: { tunnel: id, code: 'target-unreachable' } })
    expect(await line(/^closed tunnel/)).toMatchObject({ level: 'info', fields: { tunnel: id } })
    await server.close()
    await line(/is closed$/)
  })

  test('tells of clients that are refused, lost and back, and never of a secret', async () => {
    const { logger, line, lines } = notebook()
    await using server = await createServer({ logger, secret: SECRET })
    await using link = await brokenLink(server)
    await using tunnel = await openTunnel(3000, { server: link.address, logger })
    await openTunnel(3000, { server: server.address, secret: 'not the secret', logger }).catch(() => {})
    const back = pEvent(tunnel, 'reconnect')
    link.cut(0)
    await back

    expect(await line(/^refused 127/)).toMatchObject({ level: 'warn' })
    expect(await line(/^lost 127/)).toMatchObject({
      level: 'warn',
      fields: { code: 'connection-lost', secretName: 'default' },
    })
    expect(await line(/127\.0\.0\.1:\d+ is back$/)).toMatchObject({ level: 'info' })
    expect(await line(/^the link of .* is lost/)).toMatchObject({
      level: 'warn',
      fields: { url: tunnel.url },
    })
    expect(await line(/^the link of .* is back/)).toMatchObject({ level: 'info' })
    const all = JSON.stringify(lines)
    expect(all).not.toContain(SECRET)
    expect(all).not.toContain('not the secret')
  })
})

describe('a tunnel with a logger', () => {
  test('tells where it leads, who has left, and that it is gone', async () => {
    const { logger, line } = notebook()
    await using server = await createServer()
    await using target = await echoTarget()
    const tunnel = await openTunnel(target.port, { server, logger })
    await ask(tunnel, 'hello')
    await line(/has left/)
    await server.close()

    expect(await line(/leads to/)).toMatchObject({ level: 'info', fields: { url: tunnel.url } })
    expect(await line(/is closed: the server was closed/)).toMatchObject({
      level: 'error',
      fields: { code: 'server-closed' },
    })
  })

  test('is one of forward, too', async () => {
    const { logger, line } = notebook()
    await using tunnel = await forward('127.0.0.1:0', 1, { logger })
    await ending(await visit(tunnel))

    expect(await line(/turned .* away/)).toMatchObject({ level: 'warn' })
  })
})

describe('a logger', () => {
  test('may be the console', async () => {
    const info = vi.spyOn(console, 'info').mockImplementation(() => {})
    await using server = await createServer({ logger: console })
    await server.close()

    expect(info).toHaveBeenCalledWith({}, expect.stringMatching(/is closed$/))
    info.mockRestore()
  })

  test.each([
    ['a text', 'pino'],
    ['nothing', null],
    ['half of one', { info() {} }],
  ])('that is %s is refused', async (_, logger) => {
    const options = { logger } as unknown as ServerOptions
    await expect(createServer(options)).rejects.toMatchObject({ code: 'invalid-option' })
    await expect(openTunnel(3000, options as object)).rejects.toThrow(/logger must be an object with debug/)
  })
})

describe('pipe server', () => {
  test('--log-format json writes an object a line, on stderr alone, to its end', async () => {
    await using server = pipe(['server', '--port', '0', '--log-format', 'json', '--log-level', 'debug'])
    const address = await server.stdout.line(/^pipe:/)
    await using target = await echoTarget()
    const tunnel = await openTunnel(target.port, { server: address })
    await ask(tunnel, 'hello')
    await server.stderr.line(/has left/)
    await tunnel.close()
    await server.stderr.line(/"closed tunnel/)
    server.signal('SIGTERM')
    const { stdout, stderr } = await server.ended()

    expect(stdout).toBe(`${address}\n`)
    const lines = stderr.trimEnd().split('\n')
    const objects: Record<string, unknown>[] = lines.map((one) => JSON.parse(one))
    for (const one of objects) {
      expect(new Date(String(one.time)).toISOString()).toBe(one.time)
      expect(one).toMatchObject({ level: expect.stringMatching(/^(debug|info)$/), msg: expect.any(String) })
    }
    expect(objects.find(({ level }) => level === 'debug')).toMatchObject({ bytesIn: 5, bytesOut: 5 })
    expect(objects.at(-1)?.msg).toBe(`the server at ${address} is closed`)
  })

  test('names in a line for people the secret by which a client came, where secrets have names', async () => {
    const secrets = { ci: { secret: SECRET } }
    await using folder = await project({
      'pipe.config.json': { server: { port: 0, secret: 'nobody has named it', secrets } },
    })
    await using server = pipe(['server'], { cwd: folder.path })
    const address = await server.stdout.line(/^pipe:/)
    const named = await openTunnel(3000, { server: address, secret: SECRET })
    await using unnamed = await openTunnel(3000, { server: address, secret: 'nobody has named it' })
    await named.close()

    const at = (port: number) => `at 127\\.0\\.0\\.1:${port} for 127\\.0\\.0\\.1:\\d+`
    await server.stderr.line(new RegExp(`opened tunnel \\w+ ${at(named.port)} \\(secret ci\\)$`))
    await server.stderr.line(new RegExp(`closed tunnel \\w+ ${at(named.port)} \\(secret ci\\)$`))
    await server.stderr.line(new RegExp(`opened tunnel \\w+ ${at(unnamed.port)}$`))
  })

  test.each(['pretty', 'json'])('--log-level warn leaves out in %s what went well', async (format) => {
    await using server = pipe(['server', '--port', '0', '--log-format', format, '--log-level', 'warn'])
    const address = await server.stdout.line(/^pipe:/)
    await using tunnel = await openTunnel(1, { server: address })
    await ending(await visit(tunnel))
    await server.stderr.line(/turned .* away/)
    server.signal('SIGTERM')

    expect((await server.ended()).stderr).not.toMatch(/opened|closed tunnel/)
  })

  test.each([
    ['--log-level', 'loud'],
    ['--log-format', 'xml'],
  ])('%s %s is wrong usage', async (...words) => {
    const { code, stderr } = await pipeToEnd(['server', ...words])
    expect(code).toBe(2)
    expect(stderr).toMatch(/Allowed choices are/)
  })
})
