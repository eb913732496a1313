import { make } from './dom.js'

/** Headers that are no use with another body, or are made anew. */
const NOT_EDITED = /^(content-length|transfer-encoding|content-encoding|connection)$/i
/** One of them that belongs to the body as it was sent. */
const OF_BODY = /^content-encoding$/i

/** Lets a request be changed, and hands on what it is to be. */
export function editRequest(request, onSend) {
  const { text } = request.body
  const method = make('input', { value: request.method, required: true, size: '8' })
  const url = make('input', { value: request.url, required: true })
  const headers = make('textarea', { rows: '8', spellcheck: 'false' })
  const body = make('textarea', { rows: '10', spellcheck: 'false' })
  headers.value = request.headers
    .filter(([name]) => !NOT_EDITED.test(name))
    .map((pair) => pair.join(': '))
    .join('\n')
  body.value = text ?? ''
  // A field has line ends of its own.
  const shown = body.value
  // What is no text, or not all of it, can be replaced and not be edited.
  const isWhole = text !== undefined && !request.body.isTruncated
  const form = make(
    'form',
    { method: 'dialog' },
    make('h2', { id: 'edit-title' }, 'Edit and replay'),
    make('label', {}, 'Method', method),
    make('label', {}, 'Path', url),
    make('label', {}, 'Headers, one a line', headers),
    make('label', {}, isWhole ? 'Body' : 'Body, which replaces the recorded one', body),
    make(
      'div',
      { class: 'actions' },
      make('button', { type: 'submit', class: 'main' }, 'Send'),
      make('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'),
    ),
  )
  const dialog = make('dialog', { 'aria-labelledby': 'edit-title', onclose: () => dialog.remove() }, form)
  form.addEventListener('submit', () => {
    const edits = { method: method.value, url: url.value, headers: parseHeaders(headers.value) }
    // One that was not touched is sent as it came, byte by byte.
    if (!isWhole || body.value !== shown) onSend({ ...edits, body: withEndsOf(text, body.value) })
    else
      onSend({
        ...edits,
        headers: [...edits.headers, ...request.headers.filter(([name]) => OF_BODY.test(name))],
      })
  })
  document.body.append(dialog)
  dialog.showModal()
}

/** With the line ends that the text had before it was edited. */
function withEndsOf(before = '', text) {
  return /^(?:[^\n]*\r\n)+[^\n]*$/.test(before) ? text.replaceAll('\n', '\r\n') : text
}

function parseHeaders(text) {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [, name, value] = /^([^:]*):?(.*)$/.exec(line)
      return [name.trim(), value.trim()]
    })
}
