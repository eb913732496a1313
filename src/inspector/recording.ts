import type { Visitor } from '../listener.js'
import { Body } from './body.js'
import type { Header, RecordedRequest, RecordedResponse } from './record.js'

/** What a record costs beside its headers and bodies, in bytes, about. */
const BASE_COST = 1_024
/** What a header costs beside its letters: most of it, where they are few. */
const HEADER_COST = 128

/** Longest text of a request that is not kept, for who is told of it nevertheless. */
const MAX_TEXT = 1_024

/** Where a request came from. */
export interface Origin {
  connection: string
  visitor: Visitor
  replayOf?: number | undefined
}

/** The head of a request. */
export interface RequestHead {
  method: string
  url: string
  httpVersion: string
  headers: Header[]
}

/** The head of an answer. */
export interface ResponseHead {
  status: number
  statusText: string
  httpVersion: string
  headers: Header[]
}

let lastId = 0

/** A request that is being recorded. */
export class Recording implements RecordedRequest {
  readonly id = ++lastId
  readonly connection: string
  readonly visitor: Visitor
  readonly replayOf: number | undefined
  readonly startedAt = new Date()
  readonly method: string
  readonly httpVersion: string
  url: string
  headers: readonly Header[]
  readonly body: Body
  readonly responseBody: Body
  response: RecordedResponse | undefined
  state: RecordedRequest['state'] = 'open'
  /** Which one it was to finish, for who reads them in that order. */
  finishedAs = 0
  readonly #start = performance.now()
  #end: number | undefined
  #headCost: number

  constructor({ connection, visitor, replayOf }: Origin, head: RequestHead, maxBodySize: number) {
    this.connection = connection
    this.visitor = visitor
    this.replayOf = replayOf
    this.method = head.method
    this.url = head.url
    this.httpVersion = head.httpVersion
    this.headers = head.headers
    this.body = new Body(maxBodySize, () => this.headers)
    this.responseBody = new Body(maxBodySize, () => this.response?.headers ?? [])
    this.#headCost = BASE_COST + head.url.length + costOf(head.headers)
  }

  get duration(): number {
    return (this.#end ?? performance.now()) - this.#start
  }

  /** Memory that it takes, in bytes, about. */
  get cost(): number {
    return this.#headCost + this.body.cost + this.responseBody.cost
  }

  answer(head: ResponseHead): void {
    this.#headCost += head.statusText.length + costOf(head.headers)
    this.response = { ...head, body: this.responseBody, after: this.duration }
  }

  finish(state: 'complete' | 'aborted', finishedAs: number): void {
    this.state = state
    this.finishedAs = finishedAs
    this.#end = performance.now()
  }

  /** Forgets what takes memory. */
  strip(): void {
    this.url = shortCopy(this.url)
    this.headers = []
    if (this.response) {
      this.response = { ...this.response, statusText: shortCopy(this.response.statusText), headers: [] }
    }
    this.body.drop()
    this.responseBody.drop()
  }
}

function costOf(headers: readonly Header[]): number {
  return headers.reduce((sum, [name, value]) => sum + HEADER_COST + name.length + value.length, 0)
}

/** A part of a text would keep all of it in memory: that of a url, the whole head that it came in. */
function shortCopy(text: string): string {
  return Buffer.from(text.slice(0, MAX_TEXT), 'latin1').toString('latin1')
}
