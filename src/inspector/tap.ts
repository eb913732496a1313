import {
  beginsRequest,
  type Field,
  isNamed,
  MAX_HEAD,
  parseField,
  parseHead,
  unclear,
} from '../http-framing.js'
import type { Direction } from '../lane.js'
import type { Tap } from '../relay.js'
import { NOTHING } from '../stream.js'
import { type Follows, MessageParser } from './message-parser.js'
import type { Header } from './record.js'
import type { Recorder } from './recorder.js'
import type { Origin, Recording } from './recording.js'

// An import would be hoisted out of this part of the bundle, and loaded by all who import the package.
const { METHODS } = process.getBuiltinModule('node:http')

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: (.*))?$/

/** Requests of one connection that may wait for their answers, sent on top of each other. */
const MAX_WAITING = 256

/** What is known of a connection. */
type State =
  /** Its first bytes do not tell yet whether it speaks HTTP/1. */
  | { is: 'unknown'; heard: Buffer }
  | { is: 'http' }
  /** It speaks something else since this request. */
  | { is: 'upgraded'; recording: Recording }
  /** It is not looked at any more. */
  | { is: 'over' }

/** A request that is being sent or answered. */
interface Pending {
  recording: Recording
  asksUpgrade: boolean
  isSent: boolean
  /** What follows the head of the answer; undefined before there is one. */
  answer?: { follows: Follows; isUpgrade: boolean }
}

/** Records the requests of one connection. What it does not understand is the end of its recording, and of nothing else. */
export class HttpTap implements Tap {
  readonly #recorder: Recorder
  readonly #origin: Origin
  #state: State = { is: 'unknown', heard: NOTHING }
  /** Those that are not answered in full, the oldest first. */
  #waiting: Pending[] = []
  /** The last one, while it is not sent in full. */
  #sending: Pending | undefined
  /** The oldest one, while it is being answered. */
  #answering: Pending | undefined
  readonly #requests = new MessageParser({
    head: (lines) => this.#requestOnHead(lines),
    body: (piece) => this.#append(this.#sending, 'body', piece),
    end: () => this.#requestOnEnd(),
  })
  readonly #responses = new MessageParser({
    head: (lines) => this.#responseOnHead(lines),
    body: (piece) => this.#append(this.#answering, 'responseBody', piece),
    end: () => this.#responseOnEnd(),
  })

  constructor(recorder: Recorder, origin: Origin) {
    this.#recorder = recorder
    this.#origin = origin
  }

  bytes(direction: Direction, chunk: Buffer): void {
    try {
      this.#look(direction, chunk)
    } catch {
      this.#giveUp()
    }
  }

  end(direction: Direction): void {
    // An answer without a length ends so. One that has a length is cut off.
    const isEnd = this.#answering?.answer?.follows === Number.POSITIVE_INFINITY
    if (direction !== 'out' || this.#state.is !== 'http' || !isEnd) return
    try {
      this.#responseOnEnd()
    } catch {
      // What was held back until then is no request.
      this.#giveUp()
    }
  }

  close(): void {
    if (this.#state.is === 'upgraded') this.#recorder.finish(this.#state.recording, 'complete')
    this.#giveUp()
  }

  #look(direction: Direction, chunk: Buffer): void {
    const state = this.#state
    if (state.is === 'over') return
    if (state.is === 'upgraded') {
      this.#recorder.append(state.recording, direction === 'in' ? 'body' : 'responseBody', chunk)
    } else if (direction === 'out') {
      // Who speaks before it is asked speaks something else.
      if (state.is === 'unknown') this.#giveUp()
      else this.#responses.push(chunk)
    } else if (state.is === 'http') {
      this.#requests.push(chunk)
    } else {
      this.#decide(Buffer.concat([state.heard, chunk]))
    }
  }

  #decide(heard: Buffer): void {
    const isHttp = beginsRequest(heard.toString('latin1', 0, MAX_HEAD), METHODS)
    if (isHttp === undefined) {
      this.#state = { is: 'unknown', heard }
    } else if (isHttp) {
      this.#state = { is: 'http' }
      this.#requests.push(heard)
    } else {
      this.#giveUp()
    }
  }

  #requestOnHead(lines: string[]): Follows {
    const { method, first, fields, body, asksUpgrade } = parseHead(lines)
    if (this.#waiting.length >= MAX_WAITING) throw unclear('too many others wait for their answers')
    const [, url = '', version = ''] = first.split(' ')
    const httpVersion = version.slice('HTTP/'.length)
    const recording = this.#recorder.begin(this.#origin, {
      method,
      url,
      httpVersion,
      headers: fields.map(toHeader),
    })
    this.#sending = { recording, asksUpgrade: asksUpgrade || method === 'CONNECT', isSent: false }
    this.#waiting.push(this.#sending)
    return body
  }

  #requestOnEnd(): void {
    const sent = this.#sending
    this.#sending = undefined
    if (!sent) return
    sent.isSent = true
    if (!this.#waiting.includes(sent)) this.#recorder.finish(sent.recording, 'complete')
    // What follows is another protocol, or one more request: the answer tells.
    else if (sent.asksUpgrade) this.#requests.hold()
  }

  #responseOnHead(lines: string[]): Follows {
    const [first = '', ...rest] = lines
    const [, minor, digits, statusText = ''] = STATUS_LINE.exec(first) ?? []
    const oldest = this.#waiting[0]
    if (digits === undefined || !oldest) throw unclear('it is no answer')
    const status = Number(digits)
    const fields = rest.map(parseField)
    // It only announces another one.
    if (status < 200 && status !== 101) return 0
    const { method } = oldest.recording
    const isUpgrade = oldest.asksUpgrade && (method === 'CONNECT' ? status < 300 : status === 101)
    const follows = isUpgrade ? 0 : followsAnswer(method, status, fields)
    oldest.answer = { follows, isUpgrade }
    this.#answering = oldest
    const headers = fields.map(toHeader)
    this.#recorder.answer(oldest.recording, { status, statusText, httpVersion: `1.${minor}`, headers })
    return follows
  }

  #responseOnEnd(): void {
    const answered = this.#answering
    if (!answered) return
    this.#answering = undefined
    this.#waiting.shift()
    if (answered.answer?.isUpgrade) {
      this.#upgrade(answered.recording)
      return
    }
    if (answered.isSent) this.#recorder.finish(answered.recording, 'complete')
    if (answered.isSent && answered.asksUpgrade) this.#requests.release()
  }

  /** All that has come behind the request and its answer is of the other protocol. */
  #upgrade(recording: Recording): void {
    this.#state = { is: 'upgraded', recording }
    this.#recorder.append(recording, 'body', this.#requests.drain())
    this.#recorder.append(recording, 'responseBody', this.#responses.drain())
  }

  #append(pending: Pending | undefined, part: 'body' | 'responseBody', piece: Buffer): void {
    if (pending) this.#recorder.append(pending.recording, part, piece)
  }

  /** There is nothing more to be recorded. What was answered in full is complete, also if not all was sent. */
  #giveUp(): void {
    this.#state = { is: 'over' }
    for (const { recording } of this.#waiting) this.#recorder.finish(recording, 'aborted')
    if (this.#sending) this.#recorder.finish(this.#sending.recording, 'complete')
    this.#waiting = []
    this.#sending = undefined
    this.#answering = undefined
    this.#requests.drain()
    this.#responses.drain()
  }
}

/** What follows the head of an answer (RFC 9112, 6.3). */
function followsAnswer(method: string, status: number, fields: Field[]): Follows {
  if (method === 'HEAD' || status === 204 || status === 304) return 0
  const values = (name: string) => fields.filter((field) => isNamed(field, name)).map(({ value }) => value)
  const [coding] = values('transfer-encoding').slice(-1)
  if (coding !== undefined) return /(^|,\s*)chunked$/i.test(coding) ? 'chunked' : Number.POSITIVE_INFINITY
  const lengths = new Set(values('content-length'))
  const [length] = lengths
  if (length === undefined) return Number.POSITIVE_INFINITY
  if (lengths.size > 1 || !/^\d{1,15}$/.test(length)) throw unclear('its length is not clear')
  return Number(length)
}

function toHeader({ name, value }: Field): Header {
  return [name, value]
}
