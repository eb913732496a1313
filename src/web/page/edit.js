import { make } from './dom.js'

/** Headers that are no use with another body, or are made anew. */
const NOT_EDITED = /^(content-length|transfer-encoding|content-encoding|connection)$/i
/** One of them that belongs to the body as it was sent. */
const OF_BODY = /^content-encoding$/i

/**
 * Lets a request be changed until it could be sent. Resolves with what `send` gives of that, or with nothing where it was
 * given up.
 */
export function editRequest(request, send) {
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
  const failure = make('p', { class: 'failure', role: 'alert' })
  const button = make('button', { type: 'submit', class: 'main', title: 'Ctrl+Enter' }, 'Send')
  const form = make(
    'form',
    {},
    make('h2', { id: 'edit-title' }, 'Edit and replay'),
    make('label', {}, 'Method', method),
    make('label', {}, 'Path', url),
    make('label', {}, 'Headers, one a line', headers),
    make('label', {}, isWhole ? 'Body' : 'Body, which replaces the recorded one', body),
    failure,
    make(
      'div',
      { class: 'actions' },
      button,
      make('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'),
    ),
  )
  const dialog = make('dialog', { 'aria-labelledby': 'edit-title' }, form)
  let sent
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    failure.textContent = ''
    button.disabled = true
    try {
      sent = await send(edits())
      dialog.close()
    } catch (error) {
      failure.textContent = error.message
      // The reason stands right above it.
      button.scrollIntoView({ block: 'nearest' })
    }
    button.disabled = false
  })
  form.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return
    event.preventDefault()
    if (!button.disabled) form.requestSubmit(button)
  })
  document.body.append(dialog)
  dialog.showModal()

  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove()
      resolve(sent)
    })
  })

  /** What the request is to be. A body that was not touched is left out, and sent as it came, byte by byte. */
  function edits() {
    const edited = { method: method.value, url: url.value, headers: parseHeaders(headers.value) }
    if (!isWhole || body.value !== shown) return { ...edited, body: withEndsOf(text, body.value) }
    const ofBody = request.headers.filter(([name]) => OF_BODY.test(name))
    return { ...edited, headers: [...edited.headers, ...ofBody] }
  }
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
