/** Bytes that no client and no visitor would send. */
import dgram from 'node:dgram'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { bytesAt } from './random.js'

/** Connections to each port. */
const CONNECTIONS = 6
const DATAGRAMS = 20

const garbage = [
  (random) => bytesAt(random.between(0, 1e9), 0, random.size(1, 3_000)),
  () => Buffer.from('GET / HTTP/1.1\r\nhost: nobody\r\n\r\n'),
  // The header of a message that is too long, one of an empty one, and one of which half is missing.
  () => Buffer.from('ffffffff', 'hex'),
  () => Buffer.from('00000000', 'hex'),
  () => Buffer.from('000000207b2274797065223a2268656c6c6f22', 'hex'),
  // How TLS begins.
  () => Buffer.from('16030100a5010000a10303', 'hex'),
  () => message('{"type":"hello","version":1,"nonce":7}'),
  () => message('{"type":"exchange","id":"6fa459ea-ee8a-4ca4-894e-db77e160355e"}'),
]

/** At the port for clients, directly and through the link, and at the public ports of a client. */
export async function throwGarbage(world, slot, random) {
  const ports = [world.controlPort, slot.port, slot.ports.http, slot.ports.tcp]
  await Promise.all([
    ...ports.flatMap((port) => Array.from({ length: CONNECTIONS }, () => throwAt(port, random))),
    throwDatagrams(slot.ports.udp, random),
  ])
}

async function throwAt(port, random) {
  const socket = net.connect({ host: '127.0.0.1', port })
  socket.on('error', () => {}).resume()
  const closed = new Promise((resolve) => socket.once('close', resolve))
  socket.write(random.pick(garbage)(random))
  await Promise.race([closed, wait(random.between(0, 400))])
  if (socket.connecting || random.chance(0.5)) socket.destroy()
  else socket.resetAndDestroy()
  await closed
}

async function throwDatagrams(port, random) {
  const socket = dgram.createSocket('udp4')
  socket.on('error', () => {})
  for (let i = 0; i < DATAGRAMS; i++)
    socket.send(bytesAt(random.between(0, 1e9), 0, i * 50), port, '127.0.0.1', () => {})
  await wait(50)
  socket.close()
}

function message(json) {
  const header = Buffer.alloc(4)
  header.writeUInt32BE(json.length)
  return Buffer.concat([header, Buffer.from(json)])
}
