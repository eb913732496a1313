import { attempt, make } from './dom.js'

/**
 * A list of rows of which one may be chosen, with a filter in front of it, and the place where that one is shown. `textOf` is what the
 * filter looks through; `onChoose` shows what was chosen, if anything.
 */
export function openList(view, tools, { things, thing, nothing, textOf, onChoose }) {
  const rows = new Map()
  let chosen

  const filter = make('input', {
    type: 'search',
    // What the field is for, in the field itself.
    placeholder: 'Filter',
    'aria-label': `Filter ${things.toLowerCase()}`,
    title: '/',
  })
  const count = make('span', { class: 'count', 'aria-live': 'polite' })
  const list = make('ol', { class: 'list', 'aria-label': things })
  const empty = make('p', { class: 'empty' }, nothing)
  const detail = make('section', { class: 'detail', 'aria-label': thing, tabindex: '-1' })
  tools.append(filter, count)
  view.className = 'split'
  view.append(make('section', { class: 'side', 'aria-label': 'List' }, empty, list), detail)
  filter.addEventListener('input', tell)

  /** Shows a thing in its row, which is made on top or at the end where there is none. */
  function put(item, { kind = '', cells, onTop = true }) {
    const { id } = item
    const row = rows.get(id) ?? addRow(id, onTop)
    row.item = item
    row.button.className = `row ${kind}`
    row.button.replaceChildren(...cells)
  }

  function addRow(id, onTop) {
    const button = make('button', { onclick: () => attempt(() => choose(id)) })
    const row = { button, place: make('li', {}, button) }
    rows.set(id, row)
    if (onTop) list.prepend(row.place)
    else list.append(row.place)
    return row
  }

  function remove(id) {
    rows.get(id).place.remove()
    rows.delete(id)
    if (chosen === id) choose(undefined)
  }

  /** Applies the filter, and tells how many there are. */
  function tell() {
    const words = filter.value.toLowerCase().split(' ')
    let visible = 0
    for (const { place, item } of rows.values()) {
      const text = textOf(item).toLowerCase()
      place.hidden = !words.every((word) => text.includes(word))
      if (!place.hidden) visible++
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
    await onChoose(id)
  }

  /** Back to the list, on a phone too. */
  function leave() {
    const button = rows.get(chosen)?.button
    choose(undefined)
    button?.focus()
  }

  function leaveFilter() {
    filter.value = ''
    tell()
    filter.blur()
  }

  /** The row so many places further down, of those that are shown. */
  function step(by) {
    const visible = [...list.children].filter(({ hidden }) => !hidden).map(({ firstChild }) => firstChild)
    const at = visible.indexOf(rows.get(chosen)?.button)
    visible[Math.min(visible.length - 1, Math.max(0, at + by))]?.click()
  }

  return {
    rows,
    detail,
    get chosen() {
      return chosen
    },
    put,
    remove,
    tell,
    choose,
    leave,
    /** What keys do. */
    keys: {
      ArrowDown: () => step(1),
      j: () => step(1),
      ArrowUp: () => step(-1),
      k: () => step(-1),
      '/': () => filter.focus(),
      Escape: () => (document.activeElement === filter ? leaveFilter() : leave()),
    },
  }
}
