import { Transform } from 'node:stream'
import {
  beginsRequest,
  type Head,
  isNamed,
  MAX_HEAD,
  parseChunkSize,
  parseFirstLine,
  parseHead,
  unclear,
} from './http-framing.js'
import { invalidOption } from './options.js'
import { NOTHING } from './stream.js'
import type { ParsedTarget } from './target.js'

const EOL = Buffer.from('\r\n')
const ORIGIN = /^https?:\/\/([^/?#]*)/i

/** What comes in front of the status of an answer, and that. Some answers only announce another. */
const STATUS = /^(?:HTTP\/1\.[01] 1(?!01)\d\d.*?\r\n\r\n)*HTTP\/1\.[01] (\d{3})/s

/** Longest beginning of an answer that is looked at, in bytes. */
const MAX_ANSWER = 16_384

/** Understands the option: gives the host that requests are to name. */
export function readHostHeader(value: unknown, target: ParsedTarget): string | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'string' || !/^([\w.-]+|\[[\da-f:.]+\])(:\d{1,5})?$/i.test(value)) {
    throw invalidOption('hostHeader', "'rewrite', or a host such as 'localhost:3000'", value)
  }
  if (target.isUdp || target.scheme === 'https') {
    throw invalidOption(
      'hostHeader',
      'left out for a udp target, and for an https one, whose requests are encrypted',
      value,
    )
  }
  return value === 'rewrite' ? target.host : value
}

/** What makes the requests of one connection name this host. */
export async function hostRewriter(host: string): Promise<HostRewriter> {
  // Loaded by who needs it alone.
  const { METHODS } = await import('node:http')
  return new HostRewriter(host, METHODS)
}

/** What the target says to a request for another protocol. */
type Answer =
  | { state: 'awaited'; heard: string; onKnown?: () => void }
  | { state: 'known'; isAccepted: boolean }

/** Goes on when more bytes have come, or when the target has answered. */
type Steps<T = void> = Generator<'bytes' | 'answer', T>

/**
 * Makes the requests of one connection name `host`: in each HTTP/1 request that becomes the Host header, and takes the
 * place of the visitor's host in Origin and Referer. All other bytes are passed as they came, and so is all of a
 * connection that does not begin with a request. `in` fails where it is not clear where a request ends.
 */
class HostRewriter {
  /** What the bytes from the visitor pass through. */
  readonly in: Transform
  /** What those from the target do, unchanged. */
  readonly out: Transform
  readonly #host: string
  readonly #methods: readonly string[]
  readonly #steps = this.#requests()
  /** What has come and was not dealt with yet. */
  #input: Buffer = NOTHING
  readonly #output: Buffer[] = []
  #isHttp = false
  /** Requests since the target last said something. */
  #unanswered = 0
  #answer: Answer = { state: 'known', isAccepted: false }

  constructor(host: string, methods: readonly string[]) {
    this.#host = host
    this.#methods = methods
    this.in = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        this.#input = this.#input.length > 0 ? Buffer.concat([this.#input, chunk]) : chunk
        this.#advance(done)
      },
      flush: (done) => {
        if (this.#isHttp && this.#input.length > 0) done(unclear('it breaks off'))
        else done(null, this.#input)
      },
    })
    this.out = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        this.#unanswered = 0
        this.#hear(chunk)
        done(null, chunk)
      },
      flush: (done) => {
        this.#know(true)
        done()
      },
    })
  }

  /** Deals with what has come, and calls back when more may come. */
  #advance(done: (error?: Error | null) => void): void {
    try {
      const { value } = this.#steps.next()
      // In one piece, as it came: it goes into one packet then.
      const output = this.#output.splice(0)
      if (output.length > 0) this.in.push(output.length > 1 ? Buffer.concat(output) : output[0])
      if (value === 'answer' && this.#answer.state === 'awaited') {
        this.#answer.onKnown = () => this.#advance(done)
      } else {
        done()
      }
    } catch (error) {
      done(error as Error)
    }
  }

  *#requests(): Steps {
    this.#isHttp = yield* this.#beginsRequest()
    while (this.#isHttp) {
      const head = parseHead(yield* this.#headLines())
      const isPipelined = this.#unanswered > 0
      this.#unanswered++
      if (head.asksUpgrade) this.#answer = { state: 'awaited', heard: '' }
      this.#output.push(Buffer.from(this.#rewritten(head), 'latin1'))
      if (head.body === 'chunked') yield* this.#passChunks()
      else yield* this.#pass(head.body)

      // Behind it comes another protocol, or one more request. Which one can't be told while other answers are on their way.
      if (head.asksUpgrade) this.#isHttp = !isPipelined && !(yield* this.#isAccepted())
      if (head.method === 'CONNECT') this.#isHttp = false
    }
    yield* this.#pass(Number.POSITIVE_INFINITY)
  }

  *#beginsRequest(): Steps<boolean> {
    for (;;) {
      const begins = beginsRequest(this.#input.toString('latin1', 0, MAX_HEAD), this.#methods)
      if (begins !== undefined) return begins
      yield 'bytes'
    }
  }

  /** The lines of a head. Empty lines in front of it are passed on, as servers overlook them. */
  *#headLines(): Steps<string[]> {
    const lines: string[] = []
    let length = 0
    for (;;) {
      const line = yield* this.#line()
      length += line.length + EOL.length
      if (length > MAX_HEAD) throw unclear(`its head has more than ${MAX_HEAD} bytes`)
      // What is no request is told at once.
      if (line && lines.length === 0) parseFirstLine(line)
      if (line) lines.push(line)
      else if (lines.length > 0) return lines
      else this.#output.push(EOL)
    }
  }

  #rewritten({ first, fields }: Head): string {
    const visited = fields.find((field) => isNamed(field, 'host'))?.value.toLowerCase()
    const lines = fields.map(({ name, value, line }) => {
      const field = name.toLowerCase()
      if (field === 'host') return `${name}: ${this.#host}`
      const [origin, host = ''] = ORIGIN.exec(value) ?? []
      const isOurs = (field === 'origin' || field === 'referer') && origin && host.toLowerCase() === visited
      return isOurs ? `${name}: http://${this.#host}${value.slice(origin.length)}` : line
    })
    return [first, ...lines, '', ''].join('\r\n')
  }

  *#passChunks(): Steps {
    for (;;) {
      const size = parseChunkSize(yield* this.#passLine())
      if (size === 0) break
      yield* this.#pass(size)
      if ((yield* this.#passLine()) !== '') throw unclear('a chunk is longer than its size')
    }
    // Headers may follow.
    while ((yield* this.#passLine()) !== '') {}
  }

  *#passLine(): Steps<string> {
    const line = yield* this.#line()
    this.#output.push(Buffer.from(line, 'latin1'), EOL)
    return line
  }

  *#pass(count: number): Steps {
    for (let left = count; left > 0; ) {
      if (this.#input.length === 0) yield 'bytes'
      const bytes = this.#take(Math.min(left, this.#input.length))
      this.#output.push(bytes)
      left -= bytes.length
    }
  }

  /** A line without its end. What some take for the end of a line and others do not, is none here. */
  *#line(): Steps<string> {
    for (let from = 0; ; ) {
      const end = this.#input.indexOf('\n', from)
      if (end > MAX_HEAD || (end < 0 && this.#input.length > MAX_HEAD)) {
        throw unclear(`it has a line of more than ${MAX_HEAD} bytes`)
      }
      if (end >= 0) {
        const line = this.#take(end + 1).toString('latin1')
        if (end === 0 || line.indexOf('\r') !== end - 1) throw unclear('a line does not end with CR and LF')
        return line.slice(0, -EOL.length)
      }
      from = this.#input.length
      yield 'bytes'
    }
  }

  #take(count: number): Buffer {
    const bytes = this.#input.subarray(0, count)
    this.#input = this.#input.subarray(count)
    return bytes
  }

  *#isAccepted(): Steps<boolean> {
    while (this.#answer.state === 'awaited') yield 'answer'
    return this.#answer.isAccepted
  }

  /** Looks for the status of an awaited answer. What is no answer at all is another protocol. */
  #hear(chunk: Buffer): void {
    if (this.#answer.state === 'known') return
    this.#answer.heard += chunk.toString('latin1', 0, MAX_ANSWER)
    const { heard } = this.#answer
    const [, status] = STATUS.exec(heard) ?? []
    const mayFollow = heard.length < MAX_ANSWER && 'HTTP/1.'.startsWith(heard.slice(0, 7))
    if (status !== undefined) this.#know(status === '101')
    else if (!mayFollow) this.#know(true)
  }

  #know(isAccepted: boolean): void {
    if (this.#answer.state === 'known') return
    const { onKnown } = this.#answer
    this.#answer = { state: 'known', isAccepted }
    onKnown?.()
  }
}
