// @ts-check
/** A process that sends datagrams back. */
import dgram from 'node:dgram'
import { once } from 'node:events'
import { answerParent } from './answer.js'

answerParent(async () => {
  const socket = dgram.createSocket('udp4')
  socket.on('message', (bytes, { port, address }) => socket.send(bytes, port, address))
  await once(socket.bind(0, '127.0.0.1'), 'listening')
  return { port: socket.address().port }
})
