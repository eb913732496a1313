import { attempt, bytes, download, get, make, post, say, time } from './dom.js'
import { editRequest } from './edit.js'
import { showRequest } from './request.js'

/** Rows of the list; the oldest make room. */
const MAX_ROWS = 2_000

/** The requests of the tunnels: a list, and what one of them is made of. */
export function open(view, tools) {
  const rows = new Map()
  let chosen
  let newest = 0

  const filter = make('input', {
    type: 'search',
    placeholder: 'Filter',
    'aria-label': 'Filter requests',
    title: '/',
  })
  const secrets = make('input', { type: 'checkbox' })
  const count = make('span', { class: 'count', 'aria-live': 'polite' })
  const list = make('ol', { class: 'list', 'aria-label': 'Requests' })
  const empty = make('p', { class: 'empty' }, 'No requests yet. They appear as they come.')
  const detail = make('section', { class: 'detail', 'aria-label': 'Request', tabindex: '-1' })
  tools.append(
    filter,
    count,
    make('label', { title: 'In HAR and curl' }, secrets, ' export secrets'),
    make('button', { onclick: () => attempt(saveHar) }, 'HAR'),
    make('button', { onclick: () => attempt(() => post('clear')) }, 'Clear'),
  )
  view.className = 'requests'
  view.append(make('section', { class: 'side', 'aria-label': 'List' }, empty, list), detail)
  filter.addEventListener('input', applyFilter)

  function add(request) {
    const { id, method, url, status, state, duration, size, replayOf } = request
    const row = rows.get(id) ?? {
      button: make('button', { class: 'row', onclick: () => attempt(() => choose(id)) }),
    }
    const kind = state === 'aborted' ? 'aborted' : status === null ? 'open' : `s${Math.floor(status / 100)}`
    row.request = request
    row.button.className = `row ${kind}`
    row.button.replaceChildren(
      make('span', { class: 'method' }, method),
      make('span', { class: 'url', title: url }, url),
      make('span', { class: 'status' }, state === 'aborted' ? 'aborted' : String(status ?? '…')),
      make(
        'span',
        { class: 'note' },
        replayOf ? '↻ ' : '',
        state === 'open' ? '' : `${time(duration)} · ${bytes(size)}`,
      ),
    )
    if (!rows.has(id)) {
      rows.set(id, row)
      row.item = make('li', {}, row.button)
      // The newest is on top; one that was told late finds its place.
      if (id > newest) list.prepend(row.item)
      else list.append(row.item)
      newest = Math.max(newest, id)
    }
    row.item.hidden = !matches(request)
    for (const [oldest, { item }] of rows) {
      if (rows.size <= MAX_ROWS || oldest === chosen) break
      item.remove()
      rows.delete(oldest)
    }
  }

  function matches({ method, url, status, state, target }) {
    const text = `${method} ${url} ${status ?? ''} ${state} ${target}`.toLowerCase()
    return filter.value
      .toLowerCase()
      .split(' ')
      .every((word) => text.includes(word))
  }

  function applyFilter() {
    for (const { item, request } of rows.values()) item.hidden = !matches(request)
    tell()
  }

  function tell() {
    const visible = [...rows.values()].filter(({ item }) => !item.hidden).length
    count.textContent = visible === rows.size ? `${visible}` : `${visible} of ${rows.size}`
    empty.hidden = rows.size > 0
  }

  async function choose(id) {
    rows.get(chosen)?.button.removeAttribute('aria-current')
    chosen = id
    view.classList.toggle('open', id !== undefined)
    if (id === undefined) {
      detail.replaceChildren()
      return
    }
    const { button } = rows.get(id)
    button.setAttribute('aria-current', 'true')
    button.focus({ preventScroll: true })
    button.scrollIntoView({ block: 'nearest' })
    await show(id)
  }

  async function show(id) {
    const request = await get(`request?id=${id}`)
    if (chosen === id) showRequest(detail, request, { close, replay, edit, copyCurl })
  }

  const close = () => {
    const button = rows.get(chosen)?.button
    choose(undefined)
    button?.focus()
  }

  /** The row so many places further down, of those that are shown. */
  function step(by) {
    const visible = [...list.children].filter(({ hidden }) => !hidden).map(({ firstChild }) => firstChild)
    const at = visible.indexOf(rows.get(chosen)?.button)
    visible[Math.min(visible.length - 1, Math.max(0, at + by))]?.click()
  }

  async function replay(edits) {
    const again = await post('replay', { id: chosen, edits })
    say(`Sent again: ${again.status ?? again.state}`)
    add(again)
    tell()
    await choose(again.id)
  }

  const edit = async () =>
    editRequest(await get(`request?id=${chosen}`), (edits) => attempt(() => replay(edits)))

  async function copyCurl() {
    const command = await get(`curl?id=${chosen}${secrets.checked ? '&secrets' : ''}`)
    await navigator.clipboard.writeText(command)
    say('Copied as curl')
  }

  async function saveHar() {
    const har = await get(`har${secrets.checked ? '?secrets' : ''}`)
    download('requests.har', JSON.stringify(har, null, 2))
  }

  function clear() {
    rows.clear()
    newest = 0
    list.replaceChildren()
    choose(undefined)
    tell()
  }

  /** What keys do; false where they are none of ours. */
  const keys = {
    ArrowDown: () => step(1),
    j: () => step(1),
    ArrowUp: () => step(-1),
    k: () => step(-1),
    '/': () => filter.focus(),
    r: () => chosen && attempt(() => replay()),
    e: () => chosen && attempt(edit),
    c: () => chosen && attempt(copyCurl),
    Escape: () => (document.activeElement === filter ? leaveFilter() : close()),
  }

  function leaveFilter() {
    filter.value = ''
    applyFilter()
    filter.blur()
  }

  return {
    events: ['requests', 'clear'],
    async refresh() {
      const all = await get('requests')
      const ids = new Set(all.map(({ id }) => id))
      if (rows.size > 0 && [...rows.keys()].some((id) => !ids.has(id))) clear()
      for (const request of all) add(request)
      tell()
    },
    update(event, data) {
      if (event === 'clear') return clear()
      for (const request of data) add(request)
      tell()
      const own = data.find(({ id }) => id === chosen)
      if (own) attempt(() => show(own.id))
    },
    key(name) {
      keys[name]?.()
      return name in keys
    },
  }
}
