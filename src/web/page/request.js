import { attempt, bytes, clock, make, time } from './dom.js'

/** Bytes in a line of those that are no text. */
const WIDTH = 16
/** Steps to the right, and characters, of what is indented: brackets alone could make gigabytes. */
const MAX_DEPTH = 40
const MAX_INDENTED = 4_194_304

/** Shows what a request is made of. `original` leads to the one that it repeats, where that is there. */
export function showRequest(place, request, { close, replay, edit, copyCurl, original }) {
  const { id, method, url, status, state, duration, target, visitor, response } = request
  const isUpgrade = status === 101
  const facts = [
    `request ${id}`,
    state === 'open' ? 'running' : time(duration),
    target,
    `from ${visitor.address}`,
    clock(request.startedAt),
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
    make('p', { class: 'facts' }, facts.join(' · '), ...originOf(request, original)),
    ...(state === 'aborted' ? [make('p', { class: 'broken' }, abortOf(request))] : []),
    part('Request', `HTTP/${request.httpVersion}`, request, queryOf(url)),
    ...(response ? [part('Response', `${status} ${response.statusText}`, response)] : []),
    ...(state === 'open' && !response ? [make('p', { class: 'empty' }, 'No answer yet.')] : []),
  )
}

function originOf({ replayOf }, original) {
  if (!replayOf) return []
  const name = `request ${replayOf}`
  return [' · repeats ', original ? make('button', { class: 'link-to', onclick: original }, name) : name]
}

function abortOf({ response, reason }) {
  return `It broke off${response ? '' : ' without an answer'}${reason ? `: ${reason}` : ''}.`
}

function queryOf(url) {
  const at = url.indexOf('?')
  return at < 0 ? [] : pairs('Query', url.slice(at + 1))
}

/** Names and values as a form has them, without their coding. */
function pairs(name, text) {
  const all = [...new URLSearchParams(text)]
  if (all.length === 0) return []
  return [make('p', { class: 'facts' }, name), table(name, all)]
}

/** The body comes first: it is what most look for, and headers are many. */
function part(title, what, { headers, body }, query = []) {
  return make(
    'section',
    { class: 'part' },
    make('h3', {}, `${title} `, make('small', {}, what)),
    ...query,
    ...(body.size > 0 ? showBody(body, title) : []),
    make(
      'details',
      { open: true },
      make('summary', {}, `${headers.length} headers`),
      table(`${title} headers`, headers),
    ),
  )
}

function table(name, rows) {
  const lines = rows.map(([head, value]) =>
    make('tr', {}, make('th', { scope: 'row' }, head), make('td', {}, value)),
  )
  return make('table', { 'aria-label': name }, make('tbody', {}, ...lines))
}

function showBody(body, title) {
  const facts = [sizeOf(body), body.type, body.coded && `coded as ${body.coded}`]
  const isForm = body.type === 'application/x-www-form-urlencoded' && body.text !== undefined
  return [
    make('p', { class: 'facts' }, facts.filter(Boolean).join(' · ')),
    ...(isForm ? pairs(`${title} form`, body.text) : []),
    body.picture && body.base64
      ? picture(body, title)
      : make('pre', { tabindex: '0', 'aria-label': `${title} body` }, textOf(body)),
  ]
}

function sizeOf({ size, shownSize, isTruncated, isDecoded }) {
  if (!isTruncated) return bytes(size)
  return isDecoded
    ? `${bytes(size)} over the wire, of which the first ${bytes(shownSize)} are shown without their coding`
    : `the first ${bytes(shownSize)} of ${bytes(size)}`
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
