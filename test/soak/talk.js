/** One connection between a visitor and a target, both of which are here: what they say, and how they judge its end. */
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'

const MAGIC = 0x534f414b
/** Bytes of the header that tells the target which talk this is. */
export const HEADER = 12
const NOTHING = Buffer.alloc(0)

export function header({ number }) {
  const bytes = Buffer.alloc(HEADER)
  bytes.writeUInt32BE(MAGIC)
  bytes.writeUInt32BE(number, 4)
  bytes.writeUInt32BE(~number >>> 0, 8)
  return bytes
}

/** The talk's number, or undefined where somebody else has connected. */
export function numberOf(bytes) {
  const number = bytes.readUInt32BE(4)
  return bytes.readUInt32BE(0) === MAGIC && bytes.readUInt32BE(8) === ~number >>> 0 ? number : undefined
}

/** Sends until `isOver(lane)`, so many bytes at a time with a pause in between, and ends the stream. */
export async function pump(socket, lane, { isOver, chunk, pause = () => 0 }) {
  while (!isOver(lane)) {
    if (!socket.write(lane.take(chunk(lane)))) await drained(socket)
    const milliseconds = pause()
    if (milliseconds > 0) await wait(milliseconds)
    if (!socket.writable) return
  }
  lane.finish()
  socket.end()
}

/** Compares what comes with what was sent. Tells once how it ended: `end`, `cut`, or `unclear`. */
export function drink(socket, lane, { ledger, who, onEnd }) {
  let outcome = 'cut'
  socket.on('data', (bytes) => {
    ledger.count('bytes', bytes.length)
    if (!lane.accepts(bytes)) ledger.fail(`${who} got wrong bytes`, `before position ${lane.received}`)
  })
  socket.on('end', () => {
    // A reset behind unread bytes looks like an end to Node. A write, even of nothing, tells the two apart.
    if (!socket.writable) socketOnEnded('unclear')
    else if (socket.writableLength > 0 && lane.isWhole) socketOnEnded('end')
    // Behind what is still to be sent, it waits for what becomes of that.
    else socket.write(NOTHING, (error) => socketOnEnded(error ? 'cut' : 'end'))
  })
  socket.on('close', () => onEnd(socket.errored ? 'cut' : outcome))

  function socketOnEnded(how) {
    outcome = how
    // There is nothing to wait for where bytes are missing.
    if (!lane.isWhole) socket.destroy()
  }
}

/** What the end that one side has seen means. */
export function judge(ledger, talk, side, outcome) {
  const lane = side === 'visitor' ? talk.down : talk.up
  const met = ledger.met(talk.slot, talk.opened)
  const story = () =>
    `${talk.mode} talk through client ${talk.slot}, ${lane.received} of ${lane.total ?? `${lane.sent} or more`} bytes, ` +
    `met ${met.map(({ kind }) => kind).join(', ') || 'no fault'}`

  if (outcome !== 'cut' && lane.isWhole) return ledger.count(`ended ${side}`)
  if (outcome !== 'cut') {
    // Where a process is killed, the system ends its sockets with a FIN: nobody can prevent that.
    const killed = met.find(({ kills }) => kills)
    if (killed) return ledger.count(`end at kill ${killed.kind}, ${side}`)
    // After its own FIN, Node shows a reset behind unread bytes as an end, and nothing tells them apart.
    if (outcome === 'unclear' && (met.some(({ cuts }) => cuts) || talk.mode.endsWith('resets')))
      return ledger.count('unclear')
    return ledger.fail(`a ${side} saw a clean end with bytes missing`, story())
  }
  ledger.count(`cut ${side}`)
  if (talk.mode.endsWith('resets') || met.some(({ cuts }) => cuts)) return
  const isJoined = talk.down.received > 0
  if (isJoined) ledger.fail(`a ${side} that was inside was cut without a cause`, story())
  else if (met.length === 0) ledger.fail(`a ${side} was cut while there was no fault`, story())
}

async function drained(socket) {
  const gaveUp = new AbortController()
  const { signal } = gaveUp
  try {
    await Promise.race([once(socket, 'drain', { signal }), once(socket, 'close', { signal })])
  } catch {
    // The socket tells by itself why it broke.
  } finally {
    gaveUp.abort()
  }
}
