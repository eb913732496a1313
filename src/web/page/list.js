import { attempt, make } from './dom.js'

/** What keys do in every list. */
const HELP = [
  ['j ↓', 'the next one'],
  ['k ↑', 'the one before'],
  ['/', 'to the filter; Enter goes from there to the first match'],
  ['Escape', 'leaves the field of the filter, clears the filter, leaves what was chosen'],
]

/**
 * A list of rows of which one may be chosen, with a filter in front of it, and the place where that one is shown. `nothing` gives what
 * an empty list says, `textOf` what the filter looks through; `onChoose` shows what was chosen, and `help` tells what keys do with it.
 */
export function openList(view, tools, { things, thing, nothing, textOf, onChoose, help }) {
  const rows = new Map()
  let chosen
  /** What is gone, and stays while it is looked at. */
  let leftover
  /** Whether the browser is about to go back to where nothing was chosen. */
  let isGoingBack = false

  const filter = make('input', {
    type: 'search',
    // What the field is for, in the field itself.
    placeholder: 'Filter',
    'aria-label': `Filter ${things.toLowerCase()}`,
    title: '/',
  })
  const count = make('span', { class: 'count', 'aria-live': 'polite' })
  const list = make('ol', { class: 'list', 'aria-label': things })
  const empty = make('p', { class: 'empty' })
  const detail = make('section', { class: 'detail', 'aria-label': thing, tabindex: '-1' }, idle())
  tools.append(filter, count)
  view.className = 'split'
  view.append(make('section', { class: 'side', 'aria-label': 'List' }, empty, list), detail)
  filter.addEventListener('input', tell)
  filter.addEventListener('keydown', (event) => {
    if (event.isComposing || (event.key !== 'Enter' && event.key !== 'ArrowDown')) return
    event.preventDefault()
    visibleButtons()[0]?.click()
  })
  // The back button of a browser leads from what was chosen to the list: on a phone one of the two is shown.
  window.onpopstate = ({ state }) => {
    if (isGoingBack) {
      isGoingBack = false
      remember()
    } else if (rows.has(state?.chosen)) attempt(() => choose(state.chosen))
    else close()
  }

  function idle() {
    const keys = [...HELP, ...help].map(([key, what]) =>
      make('tr', {}, make('th', { scope: 'row' }, make('kbd', {}, key)), make('td', {}, what)),
    )
    return make(
      'div',
      { class: 'idle' },
      make('p', { class: 'empty' }, `Choose a ${thing.toLowerCase()}`),
      make('table', { 'aria-label': 'Keys' }, make('tbody', {}, ...keys)),
    )
  }

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
    rows.get(id)?.place.remove()
    rows.delete(id)
    if (chosen === id) leave()
  }

  /** Removes what is not kept any more, though not from under the eyes of who reads it. */
  function drop(id) {
    if (chosen === id) leftover = id
    else remove(id)
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
    empty.hidden = visible > 0
    empty.textContent = rows.size > 0 ? `No ${thing.toLowerCase()} matches «${filter.value}»` : nothing()
  }

  async function choose(id) {
    rows.get(chosen)?.button.removeAttribute('aria-current')
    chosen = id
    if (leftover !== undefined && leftover !== id) {
      remove(leftover)
      leftover = undefined
      tell()
    }
    view.classList.toggle('open', id !== undefined)
    detail.replaceChildren(...(id === undefined ? [idle()] : []))
    if (id === undefined) return
    remember()
    const { button } = rows.get(id)
    button.setAttribute('aria-current', 'true')
    button.focus({ preventScroll: true })
    button.scrollIntoView({ block: 'nearest' })
    await onChoose(id)
  }

  /** Gives what was chosen a place in the browser's history, one for all of them. */
  function remember() {
    if (chosen === undefined || isGoingBack) return
    const isThere = history.state?.chosen !== undefined
    if (isThere) history.replaceState({ chosen }, '')
    else history.pushState({ chosen }, '')
  }

  /** Back to the list, on a phone too. */
  function leave() {
    close()
    if (history.state?.chosen === undefined || isGoingBack) return
    isGoingBack = true
    history.back()
  }

  function close() {
    const button = rows.get(chosen)?.button
    choose(undefined)
    button?.focus()
  }

  /** One step back, of those that lead here. */
  function stepBack() {
    if (document.activeElement === filter) {
      filter.blur()
      rows.get(chosen)?.button.focus()
    } else if (filter.value) {
      filter.value = ''
      tell()
    } else leave()
  }

  function visibleButtons() {
    return [...list.children].filter(({ hidden }) => !hidden).map(({ firstChild }) => firstChild)
  }

  /** The row so many places further down, of those that are shown. */
  function step(by) {
    const visible = visibleButtons()
    const at = visible.indexOf(rows.get(chosen)?.button)
    visible[Math.min(visible.length - 1, Math.max(0, at + by))]?.click()
  }

  return {
    rows,
    detail,
    get chosen() {
      return chosen
    },
    /** What was chosen, as it was put last. */
    get item() {
      return rows.get(chosen)?.item
    },
    put,
    remove,
    drop,
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
      Escape: stepBack,
    },
  }
}
