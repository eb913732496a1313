/** The end of a run: all that was opened must be closed, and what it took must be given back. */
import { setTimeout as wait } from 'node:timers/promises'

/** How long connections may take to end once nobody talks any more, in milliseconds: flows end by a timeout. */
const DRAIN_TIMEOUT = 10_000
/** Bytes that a process may hold more than at its start: code that was compiled, caches, the first buffers. */
const MARGIN = 12e6

/** Closes everything; gives back what each process took at its start and at the end. */
export async function drain(world) {
  const { ledger, slots, server, link } = world
  if (!(await becomes(() => world.connections(), 0)))
    ledger.fail('connections were left when all visitors had gone', `${await world.connections()}`)
  if (!(await becomes(() => ledger.talks.size, 0)))
    ledger.fail(
      'targets were left with visitors that had gone',
      [...ledger.talks.values()].map(tell).join(', '),
    )

  for (const { child } of slots) await child.ask('closeAll')
  if (!(await becomes(async () => (await server.ask('status')).tunnels, 0)))
    ledger.fail('a server was left with tunnels that its clients had closed')
  if (!(await becomes(() => link.ask('pairs'), 0)))
    ledger.fail('connections between client and server were left', `${await link.ask('pairs')}`)
  const clients = slots.map(({ index, child }) => ({ name: `client ${index}`, child }))
  const used = []
  // The server last: it still listens, and is closed after it was looked at.
  for (const { name, child } of [...clients, { name: 'server', child: server }]) {
    used.push({ name, start: child.atStart, drained: await measure(ledger, name, child) })
  }
  await server.ask('close', {})
  for (const { name, child } of [...clients, { name: 'server', child: server }]) {
    if (!(await child.leave())) ledger.fail('a process did not end by itself when all was closed', name)
  }
  return used
}

async function measure(ledger, name, child) {
  const start = child.atStart
  const drained = await child.ask('usage')
  const more = drained.heap - start.heap
  if (more > MARGIN) ledger.fail(`memory of the ${name} has grown`, `by ${(more / 1e6).toFixed(1)} MB`)
  // The server still listens for clients.
  const mayHave = name === 'server' ? 1 : 0
  if (drained.files > start.files + mayHave)
    ledger.fail(`files of the ${name} were left open`, `${drained.files}, at start ${start.files}`)
  for (const [resource, count] of Object.entries(drained.resources)) {
    const before = start.resources[resource] ?? 0
    const own = resource === 'TCPServerWrap' ? mayHave : 0
    if (count > before + own)
      ledger.fail(`the ${name} is held by ${resource}`, `${count}, at start ${before}`)
  }
  return drained
}

/** Whether it becomes this in time. */
async function becomes(look, wanted) {
  const until = performance.now() + DRAIN_TIMEOUT
  while (performance.now() < until) {
    if ((await look()) === wanted) return true
    await wait(50)
  }
  return false
}

function tell({ mode = 'request', slot, up, down }) {
  return `${mode} through client ${slot}, ${up.received} and ${down.received} bytes`
}
