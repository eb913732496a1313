import { attempt, bytes, get, make, remove, say } from './dom.js'
import { openList } from './list.js'

/** Milliseconds between two looks at the server. */
const INTERVAL = 1_000

/** The tunnels of a server: a list, and one of them with its visitors. */
export function open(view, tools) {
  const list = openList(view, tools, {
    things: 'Tunnels',
    thing: 'Tunnel',
    nothing: () => 'No tunnels are open. They appear as they come.',
    textOf: ({ id, protocol, address, client, secretName }) =>
      `${id} ${protocol} ${address} ${client.address} ${secretName ?? ''}`,
    onChoose: choose,
    help: [['x', 'closes the tunnel, when you have confirmed it']],
  })
  // Bytes go without an event.
  setInterval(() => document.hidden || attempt(refresh), INTERVAL)

  async function refresh() {
    const { tunnels } = await get('tunnels')
    const ids = new Set(tunnels.map(({ id }) => id))
    for (const id of [...list.rows.keys()]) if (!ids.has(id)) list.remove(id)
    for (const tunnel of tunnels) add(tunnel)
    list.tell()
    if (list.chosen !== undefined) await show(list.chosen)
  }

  function add(tunnel) {
    const { protocol, address, client, secretName, connections, stats } = tunnel
    const note = `${secretName ?? client.address} · ${bytes(stats.bytesIn)} in · ${bytes(stats.bytesOut)} out`
    const cells = [
      make('span', { class: 'method' }, protocol),
      make('span', { class: 'url', title: address }, address),
      make('span', { class: 'status' }, `${connections} inside`),
      make('span', { class: 'note' }, note),
    ]
    list.put(tunnel, { cells })
  }

  /** The buttons stay, and keep the focus; what changes is put in place of what was there. */
  async function choose(id) {
    list.detail.append(
      make(
        'div',
        { class: 'actions' },
        make('button', { class: 'back', onclick: list.leave }, '← Back'),
        make('button', { title: 'x', onclick: () => attempt(close) }, 'Close tunnel'),
      ),
      make('div', { class: 'changing' }),
    )
    await show(id)
  }

  async function show(id) {
    const { connections, total } = await get(`connections?tunnel=${id}`)
    const tunnel = list.rows.get(id)?.item
    if (list.chosen !== id || !tunnel) return
    const { address, protocol, client, secretName, openedAt, stats } = tunnel
    const shown = total > connections.length ? `the last ${connections.length} of ${total}` : `${total}`
    list.detail.querySelector('.changing').replaceChildren(
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
      make('h3', {}, 'Visitors inside ', make('small', {}, shown)),
      table(
        'Visitors',
        connections.map(({ visitor, joinedAt, bytesIn, bytesOut }) => [
          `${visitor.address}:${visitor.port}`,
          `since ${when(joinedAt)} · ${bytes(bytesIn)} in · ${bytes(bytesOut)} out`,
        ]),
      ),
    )
  }

  async function close() {
    const { id, address } = list.rows.get(list.chosen).item
    if (!confirm(`Close ${address}? Its client is told, and does not ask for it again.`)) return
    await remove(`tunnels/${id}`)
    say(`Closed ${address}`)
    await refresh()
  }

  const keys = { ...list.keys, x: () => list.chosen && attempt(close) }
  // All of it is asked for: nothing is told.
  return { events: [], refresh, keys }
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
