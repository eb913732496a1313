import { TunnelError } from './errors.js'
import type { RecordedRequest } from './inspector/record.js'
import type { ReplayEdits } from './inspector/replay.js'
import type { TunnelRequests } from './inspector/requests.js'
import { detail, rejection, summary } from './page-views.js'
import { type RecordedRejection, Rejections } from './rejections.js'
import type { Tunnel } from './tunnel.js'
import type { WebApi } from './web/server.js'

/** Milliseconds in which changes are gathered, before pages are told of them. */
const GATHER = 100

/** A tunnel whose requests the page shows. */
export type Inspected = Pick<Tunnel, 'target' | 'url' | 'requests' | 'on'>

/** The view «requests» of the page. */
export interface RequestsApi extends WebApi {
  /** Shows those of one more tunnel. */
  add(tunnel: Inspected): void
  /** Shows those of a tunnel no more, and keeps nothing of it. */
  remove(tunnel: Inspected): void
}

/** What there is to be shown of a tunnel. */
interface Recorded {
  target: string
  url: string
  requests: TunnelRequests
  rejections: Rejections
}

/** What the view «requests» can ask for. */
export function requestsApi(tunnels: readonly Inspected[]): RequestsApi {
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
          .flatMap(({ target, requests, rejections }) => [
            ...requests.all.map((one) => summary(target, one)),
            ...rejections.all.map((one) => rejection(target, one)),
          ])
          .sort((one, other) => one.startedAt - other.startedAt),
      addresses: () => addresses(inspected),
      request: (query) => {
        const { target, request, rejections } = find(query.get('id'))
        return detail(target, request, rejections.reasonOf(request.connection))
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
        for (const { requests, rejections } of inspected) {
          rejections.clear()
          requests.clear()
        }
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
      for (const { follow, send } of followers) {
        follow(one)
        send('addresses', addresses(inspected))
      }
    },
    remove({ requests }) {
      const at = inspected.findIndex((one) => one.requests === requests)
      const [gone] = at < 0 ? [] : inspected.splice(at, 1)
      if (!gone) return
      for (const { leave } of followers) leave(gone)
      // Somebody may still hold the tunnel.
      gone.requests.clear()
      gone.rejections.clear()
    },
  }
}

type Follower = ReturnType<typeof changesOf>

function recordedBy(tunnel: Inspected): Recorded {
  const { target, url, requests } = tunnel
  return { target, url, requests: requests as TunnelRequests, rejections: new Rejections(tunnel) }
}

/** Where visitors come to, and where that leads. */
function addresses(inspected: Recorded[]) {
  return inspected.map(({ target, url }) => ({ target, url }))
}

/** Tells of the requests of those that it follows, and of who was turned away. */
function changesOf(send: (event: string, data: unknown) => void) {
  /** What is to be told of each, by its id. */
  const changed = new Map<number | string, () => unknown>()
  const dropped = new Set<number | string>()
  let timer: NodeJS.Timeout | undefined
  const flush = () => {
    timer = undefined
    if (dropped.size > 0) send('drop', [...dropped])
    if (changed.size > 0)
      send(
        'requests',
        [...changed.values()].map((view) => view()),
      )
    forgetAll()
  }
  const forgetAll = () => {
    changed.clear()
    dropped.clear()
  }
  const later = () => {
    timer ??= setTimeout(flush, GATHER).unref()
  }
  const ends = new Map<Recorded, () => void>()
  const follow = (one: Recorded) => {
    const {
      target,
      requests: { recorder },
      rejections,
    } = one
    const recorderOnChange = (request: RecordedRequest) => {
      // One that had to make room is shown by no page that is opened now.
      if (!recorder.find(request.id)) return
      changed.set(request.id, () => summary(target, request))
      later()
    }
    const rejectionsOnChange = (rejected: RecordedRejection) => {
      changed.set(rejected.id, () => rejection(target, rejected))
      later()
    }
    const onDrop = ({ id }: RecordedRequest | RecordedRejection) => {
      changed.delete(id)
      dropped.add(id)
      later()
    }
    const recorderOnClear = () => {
      forgetAll()
      send('clear', null)
    }
    recorder.on('change', recorderOnChange).on('drop', onDrop).on('clear', recorderOnClear)
    rejections.on('change', rejectionsOnChange).on('drop', onDrop)
    ends.set(one, () => {
      recorder.off('change', recorderOnChange).off('drop', onDrop).off('clear', recorderOnClear)
      rejections.off('change', rejectionsOnChange).off('drop', onDrop)
    })
  }
  const leave = (gone: Recorded) => {
    ends.get(gone)?.()
    ends.delete(gone)
    // Pages ask for all that there still is.
    forgetAll()
    send('gone', null)
  }
  const end = () => {
    clearTimeout(timer)
    for (const one of ends.values()) one()
  }
  return { follow, leave, send, end }
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
