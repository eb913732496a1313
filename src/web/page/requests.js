import { attempt, bytes, download, get, make, post, say, time } from './dom.js'
import { editRequest } from './edit.js'
import { openList } from './list.js'
import { showRequest } from './request.js'

/** Rows of the list; the oldest make room. */
const MAX_ROWS = 2_000

/** The requests of the tunnels: a list, and what one of them is made of. */
export function open(view, tools) {
  let newest = 0
  const list = openList(view, tools, {
    things: 'Requests',
    thing: 'Request',
    nothing: 'No requests yet. They appear as they come.',
    textOf: ({ method, url, status, state, target }) => `${method} ${url} ${status ?? ''} ${state} ${target}`,
    onChoose: show,
  })
  const secrets = make('input', { type: 'checkbox' })
  tools.append(
    make('label', { title: 'In HAR and curl' }, secrets, ' export secrets'),
    make('button', { onclick: () => attempt(saveHar) }, 'HAR'),
    make('button', { onclick: () => attempt(() => post('clear')) }, 'Clear'),
  )

  function add(request) {
    const { id, method, url, status, state, duration, size, replayOf } = request
    const kind = state === 'aborted' ? 'aborted' : status === null ? 'open' : `s${Math.floor(status / 100)}`
    const note = state === 'open' ? '' : `${time(duration)} · ${bytes(size)}`
    const cells = [
      make('span', { class: 'method' }, method),
      make('span', { class: 'url', title: url }, url),
      make('span', { class: 'status' }, state === 'aborted' ? 'aborted' : String(status ?? '…')),
      make('span', { class: 'note' }, replayOf ? '↻ ' : '', note),
    ]
    // The newest is on top; one that was told late finds its place.
    list.put(request, { kind, cells, onTop: id > newest })
    newest = Math.max(newest, id)
    for (const oldest of list.rows.keys()) {
      if (list.rows.size <= MAX_ROWS || oldest === list.chosen) break
      list.remove(oldest)
    }
  }

  async function show(id) {
    const request = await get(`request?id=${id}`)
    if (list.chosen === id) showRequest(list.detail, request, { close: list.leave, replay, edit, copyCurl })
  }

  const replay = async () => showAgain(await post('replay', { id: list.chosen }))

  async function edit() {
    const request = await get(`request?id=${list.chosen}`)
    const again = await editRequest(request, (edits) => post('replay', { id: request.id, edits }))
    if (again) await showAgain(again)
  }

  async function showAgain(again) {
    say(`Sent again: ${again.status ?? again.state}`)
    add(again)
    list.tell()
    await list.choose(again.id)
  }

  async function copyCurl() {
    const command = await get(`curl?id=${list.chosen}${secrets.checked ? '&secrets' : ''}`)
    await navigator.clipboard.writeText(command)
    say('Copied as curl')
  }

  async function saveHar() {
    const har = await get(`har${secrets.checked ? '?secrets' : ''}`)
    download('requests.har', JSON.stringify(har, null, 2))
  }

  /** Shows what there is, and no more what is gone. */
  async function refresh() {
    const all = await get('requests')
    const ids = new Set(all.map(({ id }) => id))
    for (const id of [...list.rows.keys()]) if (!ids.has(id)) list.remove(id)
    for (const request of all) add(request)
    list.tell()
  }

  function clear() {
    for (const id of [...list.rows.keys()]) list.remove(id)
    newest = 0
    list.tell()
  }

  const keys = {
    ...list.keys,
    r: () => list.chosen && attempt(replay),
    e: () => list.chosen && attempt(edit),
    c: () => list.chosen && attempt(copyCurl),
  }

  return {
    events: ['requests', 'clear', 'gone'],
    refresh,
    update(event, data) {
      if (event === 'clear') return clear()
      if (event === 'gone') return attempt(refresh)
      for (const request of data) add(request)
      list.tell()
      const own = data.find(({ id }) => id === list.chosen)
      if (own) attempt(() => show(own.id))
    },
    keys,
  }
}
