import { attempt, bytes, get, make, remove, say } from './dom.js'

/** Milliseconds between two looks at the server. */
const INTERVAL = 1_000

/** The tunnels of a server: a list, and one of them with its visitors. */
export function open(view, tools) {
  const rows = new Map()
  let chosen

  const filter = make('input', {
    type: 'search',
    placeholder: 'Filter',
    'aria-label': 'Filter tunnels',
    title: '/',
  })
  const count = make('span', { class: 'count' })
  const list = make('ol', { class: 'list', 'aria-label': 'Tunnels' })
  const empty = make('p', { class: 'empty' }, 'No tunnels are open. They appear as they come.')
  const detail = make('section', { class: 'detail', 'aria-label': 'Tunnel', tabindex: '-1' })
  tools.append(filter, count)
  view.className = 'requests'
  view.append(make('section', { class: 'side', 'aria-label': 'List' }, empty, list), detail)
  filter.addEventListener('input', tell)
  setInterval(() => document.hidden || attempt(refresh), INTERVAL)

  async function refresh() {
    const { tunnels } = await get('tunnels')
    const ids = new Set(tunnels.map(({ id }) => id))
    for (const [id, { item }] of rows) {
      if (ids.has(id)) continue
      item.remove()
      rows.delete(id)
    }
    for (const tunnel of tunnels) add(tunnel)
    if (chosen !== undefined && !rows.has(chosen)) choose(undefined)
    tell()
    if (chosen !== undefined) await show()
  }

  function add(tunnel) {
    const { id, protocol, address, client, secretName, connections, stats } = tunnel
    const row = rows.get(id) ?? {
      button: make('button', { class: 'row', onclick: () => attempt(() => choose(id)) }),
    }
    row.tunnel = tunnel
    row.button.replaceChildren(
      make('span', { class: 'method' }, protocol),
      make('span', { class: 'url', title: address }, address),
      make('span', { class: 'status' }, `${connections} inside`),
      make(
        'span',
        { class: 'note' },
        `${secretName ?? client.address} · ${bytes(stats.bytesIn)} in · ${bytes(stats.bytesOut)} out`,
      ),
    )
    if (rows.has(id)) return
    rows.set(id, row)
    row.item = make('li', {}, row.button)
    list.prepend(row.item)
  }

  function matches({ id, protocol, address, client, secretName }) {
    const text = `${id} ${protocol} ${address} ${client.address} ${secretName ?? ''}`.toLowerCase()
    return filter.value
      .toLowerCase()
      .split(' ')
      .every((word) => text.includes(word))
  }

  function tell() {
    let visible = 0
    for (const { item, tunnel } of rows.values()) {
      item.hidden = !matches(tunnel)
      if (!item.hidden) visible++
    }
    count.textContent = visible === rows.size ? `${visible}` : `${visible} of ${rows.size}`
    empty.hidden = rows.size > 0
  }

  async function choose(id) {
    rows.get(chosen)?.button.removeAttribute('aria-current')
    chosen = id
    view.classList.toggle('open', id !== undefined)
    detail.replaceChildren()
    if (id === undefined) return
    const { button } = rows.get(id)
    button.setAttribute('aria-current', 'true')
    button.focus({ preventScroll: true })
    button.scrollIntoView({ block: 'nearest' })
    detail.append(
      make(
        'div',
        { class: 'actions' },
        make('button', { class: 'back', onclick: leave }, '← Back'),
        make('button', { title: 'x', onclick: () => attempt(close) }, 'Close tunnel'),
      ),
      make('div', { class: 'facts-of' }),
    )
    await show()
  }

  /** What changes is put in place of what was there; the buttons stay, and keep the focus. */
  async function show() {
    const id = chosen
    const { connections, total } = await get(`connections?tunnel=${id}`)
    const { tunnel } = rows.get(id) ?? {}
    if (chosen !== id || !tunnel) return
    const { address, protocol, client, secretName, openedAt, stats } = tunnel
    detail.querySelector('.facts-of').replaceChildren(
      make('h2', {}, address),
      make('p', { class: 'facts' }, `${protocol} · ${id} · open since ${when(openedAt)}`),
      table('Tunnel', [
        ['Client', `${client.address}:${client.port}`],
        ['Secret', secretName ?? 'none'],
        ['Visitors so far', String(stats.connections)],
        ['Turned away', String(stats.rejections)],
        ['In', bytes(stats.bytesIn)],
        ['Out', bytes(stats.bytesOut)],
      ]),
      make(
        'h3',
        {},
        'Visitors inside ',
        make(
          'small',
          {},
          total > connections.length ? `the last ${connections.length} of ${total}` : `${total}`,
        ),
      ),
      table(
        'Visitors',
        connections.map(({ visitor, joinedAt, bytesIn, bytesOut }) => [
          `${visitor.address}:${visitor.port}`,
          `since ${when(joinedAt)} · ${bytes(bytesIn)} in · ${bytes(bytesOut)} out`,
        ]),
      ),
    )
  }

  const leave = () => {
    const button = rows.get(chosen)?.button
    choose(undefined)
    button?.focus()
  }

  async function close() {
    const { address } = rows.get(chosen).tunnel
    if (!confirm(`Close ${address}? Its client is told, and does not ask for it again.`)) return
    await remove(`tunnels/${chosen}`)
    say(`Closed ${address}`)
    await refresh()
  }

  /** The row so many places further down, of those that are shown. */
  function step(by) {
    const visible = [...list.children].filter(({ hidden }) => !hidden).map(({ firstChild }) => firstChild)
    const at = visible.indexOf(rows.get(chosen)?.button)
    visible[Math.min(visible.length - 1, Math.max(0, at + by))]?.click()
  }

  /** What keys do. */
  const keys = {
    ArrowDown: () => step(1),
    j: () => step(1),
    ArrowUp: () => step(-1),
    k: () => step(-1),
    '/': () => filter.focus(),
    x: () => chosen && attempt(close),
    Escape: () => (document.activeElement === filter ? leaveFilter() : leave()),
  }

  function leaveFilter() {
    filter.value = ''
    tell()
    filter.blur()
  }

  return {
    events: [],
    refresh,
    update() {},
    key(name) {
      keys[name]?.()
      return name in keys
    },
  }
}

function table(name, rows) {
  const lines = rows.map(([head, value]) =>
    make('tr', {}, make('th', { scope: 'row' }, head), make('td', {}, value)),
  )
  return make('table', { 'aria-label': name }, make('tbody', {}, ...lines))
}

/** The time, and where that was not today, the day. */
function when(text) {
  const date = new Date(text)
  const isToday = date.toDateString() === new Date().toDateString()
  return isToday ? date.toLocaleTimeString() : date.toLocaleString()
}
