/** Makes elements. Texts become text and nothing else, whatever is in them. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name === 'class') element.className = value
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children)
  return element
}

/** Tells in a line at the bottom, which screen readers read out. */
export function say(text) {
  const line = document.querySelector('#say')
  line.textContent = text
  clearTimeout(say.timer)
  say.timer = setTimeout(() => {
    line.textContent = ''
  }, 4_000)
}

/** Runs what may fail, and tells where it does. */
export async function attempt(work) {
  try {
    return await work()
  } catch (error) {
    say(error.message)
  }
}

/** What is said where nobody answers for long. The address of a page that has a token in it is another one each time. */
export const GONE =
  location.pathname === '/'
    ? 'pipe has ended, it seems; trying again…'
    : 'pipe has ended, it seems; its next start has a page at another address'

export function get(path) {
  return ask(path)
}

export function post(path, value = {}) {
  const headers = { 'Content-Type': 'application/json' }
  return ask(path, { method: 'POST', headers, body: JSON.stringify(value) })
}

export function remove(path) {
  return ask(path, { method: 'DELETE' })
}

async function ask(path, how) {
  const response = await fetch(`api/${path}`, how).catch(() => {
    throw new Error(GONE)
  })
  const value = await response.json()
  if (!response.ok) throw new Error(value.error.message ?? value.error)
  return value
}

/** Offers a text as a file. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }))
  make('a', { href: url, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB', 'PB']

/** `79 B`, `1.2 MB`, as the terminal has it. */
export function bytes(count) {
  let value = count
  let unit = 0
  for (; value >= 1_024 && unit < UNITS.length - 1; unit++) value /= 1_024
  return `${value.toFixed(1).replace(/\.0$/, '')} ${UNITS[unit]}`
}

export function time(duration) {
  return duration < 1_000 ? `${Math.round(duration)} ms` : `${(duration / 1_000).toFixed(1)} s`
}

/** The time of a day, as the terminal has it. */
export function clock(moment) {
  return new Date(moment).toTimeString().slice(0, 8)
}
