/** Sessions with hashicorp's own implementation, which `go/yamux-peer.go` drives. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe, expect, type TestContext, test } from 'vitest'
import { YamuxSession } from '../src/yamux/session.js'
import type { YamuxStream } from '../src/yamux/stream.js'
import { goPath, needs, needsSource, run } from './helpers/programs.js'
import { readAll, waitFor } from './helpers/yamux.js'

const source = fileURLToPath(new URL('go/yamux-peer.go', import.meta.url))

/** How long a task may take, in milliseconds. */
const TASK_TIMEOUT = 50_000

let folder: Promise<string> | undefined
let built: Promise<unknown> | undefined

/** The program, built once. */
async function build(): Promise<string> {
  folder ??= mkdtemp(join(tmpdir(), 'pipe-tunnel-'))
  const [program, cache] = [join(await folder, 'peer'), join(await folder, 'cache')]
  const env = { ...process.env, GO111MODULE: 'off', GOPATH: goPath, GOCACHE: cache }
  built ??= run('go', ['build', '-o', program, source], { env })
  await built
  return program
}

afterAll(async () => {
  if (folder) await rm(await folder, { recursive: true, force: true, maxRetries: 3 })
})

interface Peer extends AsyncDisposable {
  readonly session: YamuxSession
  /** Resolves when the peer has done its task and ended. */
  readonly done: Promise<unknown>
}

/** Our session, as the other role, with a peer that has this task. */
async function startPeer(
  context: TestContext,
  role: 'client' | 'server',
  task: string[],
  onStream?: (stream: YamuxStream) => void,
): Promise<Peer> {
  needs(context, 'go')
  needsSource(context, 'github.com/hashicorp/yamux')
  const program = await build()
  const listener = net.createServer({ allowHalfOpen: true, noDelay: true })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as net.AddressInfo
  const options = { timeout: TASK_TIMEOUT, killSignal: 'SIGKILL' } as const
  const done = promisify(execFile)(program, [role, `127.0.0.1:${port}`, ...task], options)
  done.catch(() => {})
  const [link] = await Promise.race([once(listener, 'connection'), done.then(() => [])])
  listener.close()
  const session = new YamuxSession(link, { role: role === 'client' ? 'server' : 'client', onStream })
  return {
    session,
    done,
    async [Symbol.asyncDispose]() {
      session.destroy()
      done.child.kill('SIGKILL')
      await Promise.all([session.closed, done.catch(() => {})])
    },
  }
}

const echo = (stream: YamuxStream) => void stream.pipe(stream)

describe.each(['client', 'server'] as const)('with a Go %s', (role) => {
  test('3,000 streams that we open are echoed', async (context) => {
    await using peer = await startPeer(context, role, ['echo'])

    // All at once: its backlog is 256, so that most wait for their turn.
    const texts = await Promise.all(
      Array.from({ length: 3_000 }, async (_, index) => {
        const stream = peer.session.open()
        stream.end(`stream ${index}`)
        return String(await readAll(stream))
      }),
    )

    expect(texts).toEqual(Array.from({ length: 3_000 }, (_, index) => `stream ${index}`))
    expect(peer.session.streamCount).toBe(0)
    await peer.session.close(10_000)
    await peer.done
  })

  test('3,000 streams that it opens are echoed', async (context) => {
    await using peer = await startPeer(context, role, ['open', '3000', '700'], echo)

    await peer.done

    expect(await peer.session.closed).toMatchObject({ code: 'link-lost' })
    expect(peer.session.streamCount).toBe(0)
  })

  test('100 MiB go there and come back', async (context) => {
    await using peer = await startPeer(context, role, ['open', '1', String(100 * 1_048_576)], echo)

    await peer.done
  })

  test('a stream of which we have ended our direction is answered', async (context) => {
    await using peer = await startPeer(context, role, ['digest'])
    const bytes = Buffer.alloc(3_000_000, 'abcde')

    const stream = peer.session.open()
    stream.end(bytes)

    expect(String(await readAll(stream))).toBe(createHash('sha256').update(bytes).digest('hex'))
    await peer.session.close(10_000)
    await peer.done
  })

  test('a stream of which it has ended its direction can still be written to', async (context) => {
    const sizes: number[] = []
    let closed = () => {}
    const allClosed = new Promise<void>((resolve) => {
      closed = resolve
    })
    await using peer = await startPeer(context, role, ['talk', '100', '10000'], async (stream) => {
      sizes.push((await readAll(stream)).length)
      expect(stream.writable).toBe(true)
      stream.end('thanks')
      await waitFor(stream, 'close')
      if (sizes.length === 100) closed()
    })

    await allClosed

    expect(sizes).toEqual(Array.from({ length: 100 }, () => 10_000))
    await peer.session.close(10_000)
    await peer.done
  })

  test('a stream that we reset breaks there, and no other', async (context) => {
    await using peer = await startPeer(context, role, ['echo'])
    const [first, second] = [peer.session.open(), peer.session.open()]
    for (const stream of [first, second]) stream.write('hello')
    await Promise.all([once(first, 'data'), once(second, 'data')])

    first.destroy()
    await waitFor(first, 'close')
    second.end(' again')

    expect(String(await readAll(second))).toBe(' again')
    await peer.session.close(10_000)
    await expect(peer.done).rejects.toThrow('connection reset')
  })

  test('pings are answered either way', async (context) => {
    await using answering = await startPeer(context, role, ['echo'])
    expect(await answering.session.ping(10_000)).toBeGreaterThan(0)

    await using asking = await startPeer(context, role, ['ping', '1000'])
    await asking.done
  })

  test('a go-away stops new streams and leaves those that are there', async (context) => {
    await using peer = await startPeer(context, role, ['away'])
    const stream = peer.session.open()
    stream.write('before')
    // It comes behind the go-away.
    await once(stream, 'data')

    const late = peer.session.open()
    await waitFor(late, 'close')
    stream.end(' and after')

    expect(late.errored).toMatchObject({ code: 'session-closed' })
    expect(String(await readAll(stream))).toBe(' and after')
    await peer.session.close(10_000)
    await peer.done
    expect(await peer.session.closed).toBeUndefined()
  })

  test('what it does not accept stays with us', async (context) => {
    await using peer = await startPeer(context, role, ['idle'])
    const streams = Array.from({ length: 1_000 }, () => peer.session.open())
    for (const stream of streams) stream.write('x')

    await peer.session.ping(10_000)

    expect(streams.filter((stream) => stream.destroyed)).toEqual([])
    await peer.session.close(0)
    expect(streams.filter((stream) => !stream.destroyed)).toEqual([])
    await peer.done
  })
})
