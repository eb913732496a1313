import type { Visitor } from '../listener.js'

/** A name and a value, as they came. */
export type Header = readonly [name: string, value: string]

/** The body of a message, of which the beginning is kept. */
export interface RecordedBody {
  /** Bytes that went over the wire, without the framing of chunks. Behind an upgrade, all that went this way. */
  readonly size: number
  /** The first of them, in the coding of Content-Encoding. */
  readonly bytes: Buffer
  /** Whether there were more of them. */
  readonly isTruncated: boolean
  /** What is kept as text, without its Content-Encoding, to 4 MiB at the most. Rejects with a `TypeError` where that coding can't be undone. */
  text(): Promise<string>
  /** The whole of it as JSON. Rejects with `limit-reached` where it is not kept whole, and with a `SyntaxError` where it is no JSON. */
  json(): Promise<unknown>
}

/** What the target answered. */
export interface RecordedResponse {
  readonly status: number
  readonly statusText: string
  readonly httpVersion: string
  readonly headers: readonly Header[]
  readonly body: RecordedBody
  /** Milliseconds from the request's beginning to that of the answer. */
  readonly after: number
}

/** A request that went through a tunnel, and what was answered: as the target got it, and as the visitor got the answer. */
export interface RecordedRequest {
  /** A number of this process. */
  readonly id: number
  /** The exchange id of the connection that it came by. */
  readonly connection: string
  readonly visitor: Visitor
  readonly startedAt: Date
  readonly method: string
  /** As in the first line: `/path?query`. */
  readonly url: string
  readonly httpVersion: string
  readonly headers: readonly Header[]
  readonly body: RecordedBody
  readonly response: RecordedResponse | undefined
  /** `'aborted'` where the connection broke off first, or something that is no HTTP/1 followed. */
  readonly state: 'open' | 'complete' | 'aborted'
  /** Milliseconds from its beginning to the end of the answer, or until now. */
  readonly duration: number
  /** The id of the request that this one repeats. */
  readonly replayOf: number | undefined
}

/** The values of a header, whatever the case of its name. */
export function valuesOf(headers: readonly Header[], name: string): string[] {
  return headers.filter(([one]) => one.toLowerCase() === name).map(([, value]) => value)
}
