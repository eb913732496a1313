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

export async function get(path) {
  return readAnswer(await fetch(`api/${path}`))
}

export async function post(path, value = {}) {
  const headers = { 'Content-Type': 'application/json' }
  return readAnswer(await fetch(`api/${path}`, { method: 'POST', headers, body: JSON.stringify(value) }))
}

export async function remove(path) {
  return readAnswer(await fetch(`api/${path}`, { method: 'DELETE' }))
}

async function readAnswer(response) {
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

export function bytes(count) {
  if (count < 1_000) return `${count} B`
  if (count < 1_000_000) return `${(count / 1_000).toFixed(1)} kB`
  return `${(count / 1_000_000).toFixed(1)} MB`
}

export function time(duration) {
  return duration < 1_000 ? `${Math.round(duration)} ms` : `${(duration / 1_000).toFixed(1)} s`
}
