// @ts-check
/** What the ways lead to. */
import { once } from 'node:events'
import { truncateSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { makeFolder, removeFolder, startChild } from './processes.js'
import { startServer } from './programs.js'

/** Bytes of the file for short requests, and of the one for a long answer. */
const SMALL = 1_024
const LARGE = 67_108_864

/**
 * A target that is open.
 *
 * @typedef {object} Target
 * @property {number} port At 127.0.0.1.
 * @property {() => Promise<void>} stop
 */

/** @returns {Promise<Target>} */
export function startIperf() {
  return startServer('iperf3', (port) => ['-s', '-B', '127.0.0.1', '-p', `${port}`])
}

/** @returns {Promise<Target>} */
export function startSockperf() {
  return startServer('sockperf', (port) => ['server', '--tcp', '-i', '127.0.0.1', '-p', `${port}`])
}

/**
 * nginx with two files, `small` and `large`.
 *
 * @returns {Promise<Target>}
 */
export async function startNginx() {
  const folder = makeFolder()
  writeFileSync(path.join(folder, 'small'), Buffer.alloc(SMALL, 'x'))
  writeFileSync(path.join(folder, 'large'), '')
  truncateSync(path.join(folder, 'large'), LARGE)
  const nginx = await startServer('nginx', (port) => {
    const file = path.join(folder, `nginx-${port}.conf`)
    writeFileSync(file, configuration(folder, port))
    return ['-p', folder, '-c', file, '-e', 'stderr']
  })
  return {
    port: nginx.port,
    async stop() {
      await nginx.stop()
      removeFolder(folder)
    },
  }
}

/**
 * It sends back what it gets, in this process.
 *
 * @returns {Promise<Target>}
 */
export async function startEcho() {
  /** @type {Set<net.Socket>} */
  const sockets = new Set()
  const server = net.createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    socket.on('data', (bytes) => socket.write(bytes))
  })
  // 10,000 may come together.
  await once(server.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 }), 'listening')
  return {
    port: /** @type {net.AddressInfo} */ (server.address()).port,
    async stop() {
      for (const socket of sockets) socket.destroy()
      await once(server.close(), 'close')
    },
  }
}

/**
 * The same over UDP, in a process of its own.
 *
 * @returns {Promise<Target>}
 */
export async function startUdpEcho() {
  const child = await startChild('udp-echo.js')
  const { port } = await child.ask({})
  return { port, stop: child.stop }
}

/**
 * @param {string} folder
 * @param {number} port
 */
function configuration(folder, port) {
  // One process, so that whoever ends it has ended it all.
  return `daemon off; master_process off; pid nginx.pid; error_log stderr;
    events { worker_connections 1024; }
    http {
      access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
      client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
      uwsgi_temp_path uwsgi; scgi_temp_path scgi;
      server { listen 127.0.0.1:${port} backlog=1024; root ${folder}; }
    }`
}
