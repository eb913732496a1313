import { TunnelError } from './errors.js'
import { type DecodedBody, decodeBody, pictureType } from './inspector/decode.js'
import type { Header, RecordedBody, RecordedRequest } from './inspector/record.js'
import type { ReplayEdits } from './inspector/replay.js'
import type { Requests, TunnelRequests } from './inspector/requests.js'
import type { WebApi } from './web/server.js'

/** Milliseconds in which changes are gathered, before pages are told of them. */
const GATHER = 100
/** Most bytes of what is no text that a page is given, other than of pictures. */
const MAX_HEX = 16_384
/** Most characters of a text. */
const MAX_TEXT = 1_048_576
/** Most characters of a url in the list. */
const MAX_URL = 1_024

/** A tunnel whose requests the page shows. */
export interface Inspected {
  target: string
  requests: Requests
}

/** The view «requests» of the page. */
export interface RequestsApi extends WebApi {
  /** Shows those of one more tunnel. */
  add(tunnel: Inspected): void
  /** Shows those of a tunnel no more, and keeps nothing of it. */
  remove(tunnel: Inspected): void
}

interface Recorded {
  target: string
  requests: TunnelRequests
}

/** What the view «requests» can ask for. */
export function requestsApi(tunnels: readonly Inspected[]): RequestsApi {
  const recordedBy = ({ target, requests }: Inspected) => ({ target, requests: requests as TunnelRequests })
  const inspected = tunnels.map(recordedBy)
  /** Who is told of what changes. */
  const followers = new Set<Follower>()

  function find(id: unknown) {
    for (const one of inspected) {
      const request = one.requests.recorder.find(Number(id))
      if (request) return { ...one, request }
    }
    throw new TunnelError('invalid-option', 'this request is not kept any more')
  }

  return {
    get title() {
      return [...new Set(inspected.map(({ target }) => target))].join(', ')
    },
    views: ['requests'],
    get: {
      requests: () =>
        inspected
          .flatMap(({ target, requests }) => requests.all.map((one) => summary(target, one)))
          .sort((one, other) => one.id - other.id),
      request: (query) => {
        const { target, request } = find(query.get('id'))
        return detail(target, request)
      },
      curl: (query) => {
        const { requests, request } = find(query.get('id'))
        return requests.curl(request, { showSecrets: query.has('secrets') })
      },
      har: async (query) => {
        const all = await Promise.all(
          inspected.map(({ requests }) => requests.har({ showSecrets: query.has('secrets') })),
        )
        const entries = all.flatMap(({ log }) => log.entries)
        return { log: { ...all[0]?.log, entries } }
      },
    },
    post: {
      replay: async ({ id, edits = {} }) => {
        const { requests, request, target } = find(id)
        return summary(target, await requests.replay(request, readEdits(edits)))
      },
      clear: () => {
        for (const { requests } of inspected) requests.clear()
      },
    },
    subscribe(send) {
      const follower = changesOf(send)
      for (const one of inspected) follower.follow(one)
      followers.add(follower)
      return () => {
        followers.delete(follower)
        follower.end()
      }
    },
    add(tunnel) {
      const one = recordedBy(tunnel)
      inspected.push(one)
      for (const { follow } of followers) follow(one)
    },
    remove({ requests }) {
      const at = inspected.findIndex((one) => one.requests === requests)
      const [gone] = at < 0 ? [] : inspected.splice(at, 1)
      if (!gone) return
      for (const { forget } of followers) forget(gone)
      // Somebody may still hold the tunnel.
      gone.requests.clear()
    },
  }
}

type Follower = ReturnType<typeof changesOf>

/** Tells of the requests of those that it follows. */
function changesOf(send: (event: string, data: unknown) => void) {
  const changed = new Map<RecordedRequest, Recorded>()
  let timer: NodeJS.Timeout | undefined
  const flush = () => {
    timer = undefined
    send(
      'requests',
      [...changed].map(([request, { target }]) => summary(target, request)),
    )
    changed.clear()
  }
  const ends = new Map<Recorded, () => void>()
  const follow = (one: Recorded) => {
    const { recorder } = one.requests
    const recorderOnChange = (request: RecordedRequest) => {
      // One that had to make room is shown by no page that is opened now.
      if (!recorder.find(request.id)) return
      changed.set(request, one)
      timer ??= setTimeout(flush, GATHER).unref()
    }
    const recorderOnClear = () => {
      changed.clear()
      send('clear', null)
    }
    recorder.on('change', recorderOnChange)
    recorder.on('clear', recorderOnClear)
    ends.set(one, () => {
      recorder.off('change', recorderOnChange)
      recorder.off('clear', recorderOnClear)
    })
  }
  const forget = (gone: Recorded) => {
    ends.get(gone)?.()
    ends.delete(gone)
    for (const [request, one] of changed) if (one === gone) changed.delete(request)
    // Pages ask which requests there still are.
    send('gone', null)
  }
  const end = () => {
    clearTimeout(timer)
    for (const one of ends.values()) one()
  }
  return { follow, forget, end }
}

function summary(target: string, request: RecordedRequest) {
  const { id, method, url, state, duration, startedAt, replayOf = null, response } = request
  return {
    id,
    target,
    method,
    url: url.length > MAX_URL ? `${url.slice(0, MAX_URL)}…` : url,
    state,
    duration,
    startedAt: startedAt.getTime(),
    replayOf,
    status: response?.status ?? null,
    size: response?.body.size ?? 0,
  }
}

async function detail(target: string, request: RecordedRequest) {
  const { url, httpVersion, visitor, headers, body, response } = request
  return {
    ...summary(target, request),
    url,
    httpVersion,
    visitor,
    headers,
    body: await shown(body, headers),
    response: response && { ...response, body: await shown(response.body, response.headers) },
  }
}

/** A body as a page shows it: text, a picture, or bytes; never what would run. */
async function shown(body: RecordedBody, headers: readonly Header[]) {
  const decoded: DecodedBody = await decodeBody(body, headers)
  const { bytes, text, type, coded = null } = decoded
  const picture = pictureType(decoded) ?? null
  const about = { size: body.size, isTruncated: decoded.isTruncated, type, coded, picture }
  if (text !== undefined && !picture) {
    return {
      ...about,
      text: text.slice(0, MAX_TEXT),
      isTruncated: about.isTruncated || text.length > MAX_TEXT,
    }
  }
  const given = picture ? bytes : bytes.subarray(0, MAX_HEX)
  return {
    ...about,
    base64: given.toString('base64'),
    isTruncated: about.isTruncated || given.length < bytes.length,
  }
}

/** What the page wants to be different. What the values are is looked at by who sends them. */
function readEdits(value: unknown): ReplayEdits {
  if (typeof value !== 'object' || value === null)
    throw new TunnelError('invalid-option', 'edits must be an object')
  const { method, url, headers, body } = value as Record<string, unknown>
  const areHeaders = Array.isArray(headers) && headers.every((one) => Array.isArray(one) && one.length === 2)
  if (headers !== undefined && !areHeaders) throw new TunnelError('invalid-option', 'headers must be pairs')
  return {
    ...(method !== undefined && { method: String(method) }),
    ...(url !== undefined && { url: String(url) }),
    ...(headers !== undefined && {
      headers: (headers as unknown[][]).map(([name, one]) => [String(name), String(one)] as const),
    }),
    ...(body !== undefined && { body: String(body) }),
  }
}
