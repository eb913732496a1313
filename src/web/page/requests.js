import { attempt, bytes, clock, download, get, make, post, say, time } from './dom.js'
import { editRequest } from './edit.js'
import { openList } from './list.js'
import { showRejection } from './rejection.js'
import { showRequest } from './request.js'

/** Rows of the list; the oldest make room. */
const MAX_ROWS = 2_000

/** The requests of the tunnels, with the visitors that were turned away: a list, and what one of them is made of. */
export function open(view, tools) {
  /** When the newest row began. */
  let newest = 0
  /** The tunnels: where visitors come to, and where that leads. */
  let tunnels = []
  const addresses = make('p', { class: 'addresses', 'aria-label': 'Public addresses' })
  tools.append(addresses)
  const list = openList(view, tools, {
    things: 'Requests',
    thing: 'Request',
    nothing: () => {
      const where = tunnels.map(({ url }) => url).join(', ')
      return `No requests yet. They appear as they come${where && ` to ${where}`}.`
    },
    textOf: (item) =>
      isRejection(item)
        ? `${item.outcome} ${item.reason} ${item.visitor.address} ${item.target}`
        : `${item.method} ${item.url} ${item.status ?? ''} ${item.state} ${item.target}`,
    onChoose: show,
    help: [
      ['r', 'sends the request again'],
      ['e', 'the same, changed before'],
      ['c', 'copies it as a command for curl'],
    ],
  })
  const secrets = make('input', { type: 'checkbox' })
  tools.append(
    make('label', { title: 'In HAR and curl' }, secrets, ' export secrets'),
    make('button', { onclick: () => attempt(saveHar) }, 'HAR'),
    make('button', { onclick: () => attempt(() => post('clear')) }, 'Clear'),
  )

  function add(item) {
    const { id, startedAt } = item
    // The newest is on top; one that was told late finds its place.
    list.put(item, {
      ...(isRejection(item) ? rejectionRow(item) : requestRow(item)),
      onTop: startedAt >= newest,
    })
    newest = Math.max(newest, startedAt)
    for (const oldest of list.rows.keys()) {
      if (list.rows.size <= MAX_ROWS) break
      if (oldest !== list.chosen && oldest !== id) list.remove(oldest)
    }
  }

  async function show(id) {
    const { item } = list
    if (isRejection(item)) return showRejection(list.detail, item, list.leave)
    const request = await get(`request?id=${id}`)
    if (list.chosen !== id) return
    const original = list.rows.has(request.replayOf) && (() => attempt(() => list.choose(request.replayOf)))
    showRequest(list.detail, request, { close: list.leave, replay, edit, copyCurl, original })
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
    const [all, addresses] = await Promise.all([get('requests'), get('addresses')])
    const ids = new Set(all.map(({ id }) => id))
    for (const id of [...list.rows.keys()]) if (!ids.has(id)) list.drop(id)
    for (const item of all) add(item)
    showAddresses(addresses)
  }

  function clear() {
    for (const id of [...list.rows.keys()]) list.remove(id)
    newest = 0
    list.tell()
  }

  function showAddresses(all) {
    tunnels = all
    addresses.replaceChildren(...tunnels.map(addressOf))
    list.tell()
  }

  const isRequest = () => list.item && !isRejection(list.item)
  const canReplay = () => isRequest() && list.item.status !== 101
  const keys = {
    ...list.keys,
    r: () => canReplay() && attempt(replay),
    e: () => canReplay() && attempt(edit),
    c: () => isRequest() && attempt(copyCurl),
  }
  const updates = {
    clear,
    gone: () => attempt(refresh),
    addresses: showAddresses,
    drop(ids) {
      for (const id of ids) list.drop(id)
      list.tell()
    },
    requests(items) {
      for (const item of items) add(item)
      list.tell()
      const own = items.find(({ id }) => id === list.chosen)
      if (own) attempt(() => show(own.id))
    },
  }

  return {
    events: Object.keys(updates),
    refresh,
    update: (event, data) => updates[event](data),
    keys,
  }
}

function isRejection({ state }) {
  return state === 'rejected'
}

function requestRow({ method, url, status, state, duration, startedAt, bytesIn, bytesOut, replayOf }) {
  const isOpen = state === 'open'
  const kind = { open: 'open', aborted: 'aborted' }[state] ?? `s${Math.floor(status / 100)}`
  const outcome = { open: `${status ?? ''} …`, aborted: 'aborted' }[state] ?? String(status)
  // In one line all the time: a row that grew when it ends would move all below it.
  const facts = isOpen ? ['running'] : [time(duration), `${bytes(bytesIn)} in`, `${bytes(bytesOut)} out`]
  return {
    kind,
    cells: [
      make('span', { class: 'method' }, method),
      make('span', { class: 'url', title: url }, url),
      make('span', { class: 'status' }, outcome),
      make('span', { class: 'note' }, `${replayOf ? '↻ ' : ''}${[clock(startedAt), ...facts].join(' · ')}`),
    ],
  }
}

function rejectionRow({ outcome, reason, startedAt, visitor }) {
  return {
    kind: 'rejected',
    cells: [
      make('span', { class: 'url', title: reason }, reason),
      make('span', { class: 'status' }, outcome),
      make('span', { class: 'note' }, `${clock(startedAt)} · from ${visitor.address}`),
    ],
  }
}

function addressOf({ url, target }) {
  const title = `leads to ${target}`
  if (!/^https?:/.test(url)) return make('span', { title }, url)
  return make('a', { href: url, title, target: '_blank', rel: 'noreferrer' }, url)
}
