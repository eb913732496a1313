import type { Tap } from '../relay.js'
import type { ExportOptions, Har } from './har.js'
import type { RecordedRequest } from './record.js'
import { type InspectOptions, Recorder } from './recorder.js'
import type { Origin } from './recording.js'
import type { Join, ReplayEdits } from './replay.js'

/**
 * The requests that went through a tunnel. `for await` gives those that have ended, in that order, and those that will, until the
 * tunnel is closed.
 */
export interface Requests extends AsyncIterable<RecordedRequest> {
  /** Those that are kept, the oldest first, also those that go on. */
  readonly all: readonly RecordedRequest[]
  /** All of them as an HTTP Archive, which browsers and other tools read. Secrets are masked. */
  har(options?: ExportOptions): Promise<Har>
  /** A command that sends the request again, for a shell. Secrets are masked. */
  curl(request: RecordedRequest, options?: ExportOptions): Promise<string>
  /** Sends the request to the target again, through the tunnel; resolves with its record when it was answered. */
  replay(request: RecordedRequest, edits?: ReplayEdits): Promise<RecordedRequest>
  /** Forgets all. */
  clear(): void
}

/** What is recorded of one tunnel. */
export class TunnelRequests implements Requests {
  readonly recorder: Recorder
  readonly #base: string
  readonly #join: Join

  /** `base` is the address that requests come to. */
  constructor(options: Required<InspectOptions>, base: string, join: Join) {
    this.recorder = new Recorder(options)
    this.#base = base
    this.#join = join
  }

  /** What looks at one connection. */
  async tap(origin: Origin): Promise<Tap> {
    // Loaded by who needs it alone, as all of this folder that does the work.
    const { HttpTap } = await import('./tap.js')
    return new HttpTap(this.recorder, origin)
  }

  get all(): readonly RecordedRequest[] {
    return this.recorder.all
  }

  async har(options?: ExportOptions): Promise<Har> {
    const { toHar } = await import('./har.js')
    return toHar(this.all, this.#base, options)
  }

  async curl(request: RecordedRequest, options?: ExportOptions): Promise<string> {
    const { toCurl } = await import('./curl.js')
    return toCurl(request, this.#base, options)
  }

  async replay(request: RecordedRequest, edits: ReplayEdits = {}): Promise<RecordedRequest> {
    const { replay } = await import('./replay.js')
    return replay(request, edits, this.recorder, this.#join)
  }

  clear(): void {
    this.recorder.clear()
  }

  [Symbol.asyncIterator](): AsyncIterator<RecordedRequest> {
    return this.recorder[Symbol.asyncIterator]()
  }
}
