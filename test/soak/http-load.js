/** Requests with bodies both ways: the target that answers them, and the visitors that send them. */
import { once } from 'node:events'
import http from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { bytesAt } from './random.js'

/** Longest body, in bytes: more than the buffers on the way hold. */
const MAX_BODY = 524_288
/** How long a request may take, in milliseconds: longer than any fault and any timeout of a tunnel. */
const REQUEST_TIMEOUT = 25_000

/** A target for the requests to one client. */
export async function listenForRequests(world, slot) {
  const { ledger } = world
  const server = http.createServer({ keepAliveTimeout: 0 }, async (request, response) => {
    const asked = ledger.talks.get(Number(request.url.slice(1)))
    // Its visitor has given up meanwhile, or it is one of those that throw garbage.
    if (!asked) return response.writeHead(404).end()
    if (asked.slot !== slot.index) ledger.fail('a request came to the wrong target')
    if (asked.hasCome) ledger.fail('a request came twice')
    asked.hasCome = true
    const body = await read(request)
    if (!body) return
    ledger.count('bytes', body.length)
    if (!bytesAt(asked.seed, 0, asked.up).equals(body)) ledger.fail('a target got a wrong body')
    else asked.isTaken = true
    response.setHeader('content-type', 'application/octet-stream')
    send(response, bytesAt(~asked.seed, 0, asked.down), asked.isChunked)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return server
}

/** Sends one request after the other until the run stops. */
export async function sendRequests(world, slot, name) {
  const random = world.random(`requests ${name}`)
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  try {
    while (!world.isStopping) {
      const isKept = random.chance(0.7)
      const isDone = await sendRequest(world, slot, random, isKept ? agent : false)
      await wait(isDone ? random.between(20, 120) : 100)
    }
  } finally {
    agent.destroy()
  }
}

/** One request; tells whether it was answered as it must be. */
export async function sendRequest(world, slot, random, agent, timeout = REQUEST_TIMEOUT) {
  const { ledger } = world
  const number = ledger.newNumber()
  const asked = {
    slot: slot.index,
    seed: world.seed ^ number,
    up: random.size(1, MAX_BODY),
    down: random.size(1, MAX_BODY),
    isChunked: random.chance(0.5),
  }
  ledger.talks.set(number, asked)
  const start = performance.now()
  try {
    const { status, body } = await exchange(slot.ports.http, number, asked, agent, timeout)
    if (status !== 200 || !asked.isTaken) {
      ledger.fail('a request was answered without having come', `status ${status}`)
      return false
    }
    ledger.count('bytes', body.length)
    if (!bytesAt(~asked.seed, 0, asked.down).equals(body)) ledger.fail('a visitor got a wrong body')
    ledger.count('requests')
    if (ledger.met(slot.index, start).length === 0) ledger.latencies.push(performance.now() - start)
    return true
  } catch (error) {
    ledger.count('requests cut')
    if (error.message === SLOW && timeout === REQUEST_TIMEOUT) ledger.fail('a request was never answered')
    else if (ledger.met(slot.index, start).length === 0)
      ledger.fail('a request broke while there was no fault', `${error.code} ${error.message}`)
    return false
  } finally {
    ledger.talks.delete(number)
  }
}

const SLOW = 'no answer'

async function exchange(port, number, { seed, up, isChunked }, agent, timeout) {
  const request = http.request({ host: '127.0.0.1', port, path: `/${number}`, method: 'POST', agent })
  // Beside what waits for it below: an error that comes later may not be thrown.
  request.on('error', () => {})
  const timer = setTimeout(() => request.destroy(new Error(SLOW)), timeout)
  try {
    send(request, bytesAt(seed, 0, up), isChunked)
    const [response] = await once(request, 'response')
    const body = await read(response)
    if (!body) throw new Error(request.errored?.message ?? 'cut')
    return { status: response.statusCode, body }
  } finally {
    clearTimeout(timer)
  }
}

function send(stream, body, isChunked) {
  if (!isChunked) stream.setHeader('content-length', body.length)
  for (let i = 0; i < body.length; i += 65_536) stream.write(body.subarray(i, i + 65_536))
  stream.end()
}

/** A whole body, or undefined where it was cut. */
async function read(stream) {
  const chunks = []
  try {
    for await (const chunk of stream) chunks.push(chunk)
  } catch {
    return undefined
  }
  return stream.complete ? Buffer.concat(chunks) : undefined
}
