// @ts-check
/** A process that passes the datagrams of one visitor on, as little as Node needs for it: outside by UDP, and between two of its kind by a stream. */
import dgram from 'node:dgram'
import { once } from 'node:events'
import net from 'node:net'
import { answerParent } from './answer.js'

const HEADER = 2

answerParent(({ target, isOutside }) => (isOutside ? listenOutside(target) : listenInside(target)))

/** @param {number} target */
async function listenOutside(target) {
  const stream = net.connect({ port: target, host: '127.0.0.1', noDelay: true })
  const socket = dgram.createSocket('udp4')
  socket.on('error', () => {})
  let visitor = 0
  socket.on('message', (bytes, { port }) => {
    visitor = port
    stream.write(frame(bytes))
  })
  onDatagrams(stream, (bytes) => socket.send(bytes, visitor, '127.0.0.1'))
  await once(socket.bind(0, '127.0.0.1'), 'listening')
  return { port: socket.address().port }
}

/** @param {number} target */
async function listenInside(target) {
  const listener = net.createServer({ noDelay: true }, (stream) => {
    const socket = dgram.createSocket('udp4')
    socket.on('error', () => {})
    socket.connect(target, '127.0.0.1')
    socket.on('message', (bytes) => stream.write(frame(bytes)))
    onDatagrams(stream, (bytes) => socket.send(bytes))
  })
  await once(listener.listen(0, '127.0.0.1'), 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (listener.address())
  return { port }
}

/** @param {Buffer} bytes */
function frame(bytes) {
  const framed = Buffer.allocUnsafe(HEADER + bytes.length)
  framed.writeUInt16BE(bytes.length)
  bytes.copy(framed, HEADER)
  return framed
}

/**
 * @param {net.Socket} stream
 * @param {(bytes: Buffer) => void} take
 */
function onDatagrams(stream, take) {
  let rest = Buffer.alloc(0)
  stream.on('error', () => {})
  stream.on('data', (chunk) => {
    const bytes = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk
    let at = 0
    while (bytes.length - at >= HEADER) {
      const end = at + HEADER + bytes.readUInt16BE(at)
      if (end > bytes.length) break
      take(bytes.subarray(at + HEADER, end))
      at = end
    }
    rest = bytes.subarray(at)
  })
}
