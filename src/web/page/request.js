import { attempt, bytes, make, time } from './dom.js'

/** Bytes in a line of those that are no text. */
const WIDTH = 16
/** Steps to the right, and characters, of what is indented: brackets alone could make gigabytes. */
const MAX_DEPTH = 40
const MAX_INDENTED = 4_194_304

/** Shows what a request is made of. */
export function showRequest(place, request, { close, replay, edit, copyCurl }) {
  const { method, url, status, state, duration, target, visitor, replayOf, response } = request
  const isUpgrade = status === 101
  const facts = [
    time(duration),
    target,
    `from ${visitor.address}`,
    replayOf && `repeats request ${replayOf}`,
    new Date(request.startedAt).toLocaleTimeString(),
  ]
  place.replaceChildren(
    make(
      'div',
      { class: 'actions' },
      make('button', { class: 'back', onclick: close }, '← Back'),
      make('button', { title: 'r', disabled: isUpgrade, onclick: () => attempt(replay) }, 'Replay'),
      make('button', { title: 'e', disabled: isUpgrade, onclick: () => attempt(edit) }, 'Edit and replay'),
      make('button', { title: 'c', onclick: () => attempt(copyCurl) }, 'Copy as curl'),
    ),
    make('h2', {}, `${method} ${url}`),
    make('p', { class: 'facts' }, facts.filter(Boolean).join(' · ')),
    part('Request', `HTTP/${request.httpVersion}`, request),
    response
      ? part('Response', `${status} ${response.statusText}`, response)
      : make(
          'p',
          { class: 'empty' },
          state === 'open' ? 'No answer yet.' : 'It broke off without an answer.',
        ),
  )
  if (state === 'aborted' && response) place.append(make('p', { class: 'empty' }, 'It broke off.'))
}

/** The body comes first: it is what most look for, and headers are many. */
function part(title, what, { headers, body }) {
  const rows = headers.map(([name, value]) =>
    make('tr', {}, make('th', { scope: 'row' }, name), make('td', {}, value)),
  )
  return make(
    'section',
    { class: 'part' },
    make('h3', {}, `${title} `, make('small', {}, what)),
    ...(body.size > 0 ? showBody(body, title) : []),
    make(
      'details',
      { open: true },
      make('summary', {}, `${rows.length} headers`),
      make('table', { 'aria-label': `${title} headers` }, make('tbody', {}, ...rows)),
    ),
  )
}

function showBody(body, title) {
  const facts = [
    bytes(body.size),
    body.type,
    body.coded && `coded as ${body.coded}`,
    body.isTruncated && 'cut off here',
  ]
  return [
    make('p', { class: 'facts' }, facts.filter(Boolean).join(' · ')),
    body.picture && body.base64
      ? picture(body, title)
      : make('pre', { tabindex: '0', 'aria-label': `${title} body` }, textOf(body)),
  ]
}

/** By a blob of a type that runs nothing: what the sender says of it is not asked. */
function picture({ base64, picture: type }, title) {
  const url = URL.createObjectURL(new Blob([toBytes(base64)], { type }))
  const free = () => URL.revokeObjectURL(url)
  return make('img', { src: url, alt: `${title} body, a picture`, onload: free, onerror: free })
}

function textOf({ text, base64, type }) {
  if (text === undefined) return hexOf(toBytes(base64))
  if (!/[/+]json$/.test(type) && !/^\s*[{[]/.test(text)) return text
  try {
    JSON.parse(text)
  } catch {
    return text
  }
  return indented(text)
}

/** JSON with its parts in lines of their own. What it is made of stays as it was sent: to read a long number would round it. */
function indented(text) {
  let [shown, depth, last] = ['', 0, '']
  const line = () => `\n${'  '.repeat(Math.min(depth, MAX_DEPTH))}`
  for (const [token] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g)) {
    const [isEnd, wasBeginning] = ['}]'.includes(token), last === '{' || last === '[']
    if (isEnd) depth--
    if (isEnd !== wasBeginning || last === ',') shown += line()
    shown += token === ':' ? ': ' : token
    if (token === '{' || token === '[') depth++
    if (shown.length > MAX_INDENTED) return text
    last = token
  }
  return shown
}

function hexOf(all) {
  const lines = []
  for (let at = 0; at < all.length; at += WIDTH) {
    const some = [...all.subarray(at, at + WIDTH)]
    const hex = some.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')
    const text = some.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : '.')).join('')
    lines.push(`${at.toString(16).padStart(6, '0')}  ${hex.padEnd(WIDTH * 3 - 1)}  ${text}`)
  }
  return lines.join('\n')
}

function toBytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
}
