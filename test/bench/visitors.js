// @ts-check
/** Visitors of an echo that stay, in this process. */
import net from 'node:net'

/** How many come together: more would measure queues of the system. */
const TOGETHER = 50
/** How long an answer may take, in milliseconds. */
const ANSWER_TIMEOUT = 20_000

export class Visitors {
  /** @type {net.Socket[]} */
  #sockets = []
  #port

  /** @param {number} port */
  constructor(port) {
    this.#port = port
  }

  get count() {
    return this.#sockets.length
  }

  /**
   * Lets more of them come; resolves when each has got an answer.
   *
   * @param {number} count
   */
  async add(count) {
    const wanted = this.#sockets.length + count
    const comeOneByOne = async () => {
      while (this.#sockets.length < wanted) {
        const socket = net.connect({ host: '127.0.0.1', port: this.#port, noDelay: true })
        socket.on('error', () => {})
        this.#sockets.push(socket)
        await askEcho(socket, 1)
      }
    }
    await Promise.all(Array.from({ length: Math.min(TOGETHER, count) }, comeOneByOne))
  }

  /**
   * Milliseconds of round trips, each of another visitor.
   *
   * @param {number} count
   * @param {number} size
   */
  async ask(count, size) {
    const times = []
    for (let i = 0; i < count; i++) {
      const socket = this.#sockets[Math.floor((i * this.#sockets.length) / count)]
      if (!socket) throw new Error('there are no visitors')
      const start = performance.now()
      await askEcho(socket, size)
      times.push(performance.now() - start)
    }
    return times
  }

  leave() {
    for (const socket of this.#sockets) socket.resetAndDestroy()
    this.#sockets = []
  }
}

/**
 * Sends so many bytes; resolves when as many have come back.
 *
 * @param {net.Socket} socket
 * @param {number} size
 * @returns {Promise<void>}
 */
export function askEcho(socket, size) {
  return new Promise((resolve, reject) => {
    let missing = size
    const timer = setTimeout(() => socket.destroy(), ANSWER_TIMEOUT)
    /** @param {Buffer} bytes */
    const socketOnData = (bytes) => {
      missing -= bytes.length
      if (missing > 0) return
      stop()
      resolve()
    }
    const socketOnClose = () => {
      stop()
      reject(new Error('a visitor got no answer'))
    }
    const stop = () => {
      clearTimeout(timer)
      socket.off('data', socketOnData).off('close', socketOnClose)
    }
    socket.on('data', socketOnData).on('close', socketOnClose)
    socket.write(Buffer.alloc(size))
  })
}
