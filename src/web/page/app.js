import { attempt, GONE, get, make } from './dom.js'

/** Tries to find the link again, behind which there is little hope. */
const TRIES = 5

/** The page: what this server offers is shown by a script of that name, which gives back what it does with events and keys. */
const about = await get('about')
document.title = `${about.title} – pipe`
document.querySelector('#title').textContent = about.title

let shown
const nav = document.querySelector('#views')
nav.hidden = about.views.length < 2
nav.append(...about.views.map((name) => make('button', { onclick: () => attempt(() => show(name)) }, name)))

async function show(name) {
  const view = await import(`./${name}.js`)
  document.querySelector('#tools').replaceChildren()
  document.querySelector('#view').replaceChildren()
  for (const button of nav.children) button.setAttribute('aria-current', String(button.textContent === name))
  shown = view.open(document.querySelector('#view'), document.querySelector('#tools'))
  for (const event of shown.events) source.addEventListener(event, eventOnCome)
  await refresh()
}

/** What is asked for as a whole. Events wait for it: it may be older than they are. */
let whole = Promise.resolve()

function refresh() {
  whole = whole.then(() => attempt(() => shown?.refresh()))
  return whole
}

function eventOnCome({ type, data }) {
  whole.then(() => shown.update(type, JSON.parse(data)))
}

const source = new EventSource('api/events')
const link = document.querySelector('#link')
let failures = 0
source.onerror = () => {
  failures++
  const isHopeless = failures >= TRIES || source.readyState === EventSource.CLOSED
  link.textContent = isHopeless ? GONE : 'The link to pipe is lost; trying again…'
  link.hidden = false
}
source.onopen = () => {
  failures = 0
  link.hidden = true
  // What came meanwhile was told to nobody, at the beginning too.
  refresh()
}

document.addEventListener('keydown', (event) => {
  const isTyping = event.target.matches('input, textarea, select')
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return
  if (isTyping && event.key !== 'Escape') return
  const act = shown && Object.hasOwn(shown.keys, event.key) && shown.keys[event.key]
  if (!act) return
  act()
  event.preventDefault()
})

await attempt(() => show(about.views[0]))
