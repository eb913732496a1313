/** The processes that the soak starts, and kills. */
import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'

/** How long a process may take to answer, in milliseconds: it may be stopped meanwhile. */
const ANSWER_TIMEOUT = 30_000
/** How long a process may go on once nothing holds it any more. */
const LEAVE_TIMEOUT = 5_000

const running = new Set()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export class Child {
  #process
  #waiting = new Map()
  #lastNumber = 0
  /** Whether we have ended it, or told it to end. */
  #isDone = false
  /** Resolves with how it ended. */
  exited

  constructor(process) {
    this.#process = process
    running.add(process)
    this.exited = once(process, 'exit').then(([code, signal]) => {
      running.delete(process)
      const error = new Error(`the process ended with ${signal ?? code}`)
      for (const { reject } of this.#waiting.values()) reject(error)
      this.#waiting.clear()
      return code ?? signal
    })
    process.on('error', () => {})
  }

  /** Starts it; resolves when it has loaded the package. */
  static async start(file, { onEvent = () => {}, onCrash }) {
    const options = { execArgv: ['--expose-gc'], serialization: 'json' }
    const forked = fork(path.join(import.meta.dirname, file), options)
    const child = new Child(forked)
    forked.on('message', (message) => {
      if (message.event) onEvent(message)
      else child.#settle(message)
    })
    child.exited.then((how) => {
      if (!child.#isDone) onCrash(`${file} ended with ${how}`)
    })
    child.atStart = await child.ask('usage')
    return child
  }

  get pid() {
    return this.#process.pid
  }

  async ask(question, argument) {
    const number = ++this.#lastNumber
    const { promise, resolve, reject } = withResolvers()
    this.#waiting.set(number, { resolve, reject })
    const timer = setTimeout(() => {
      reject(new Error(`no answer to ${question} within ${ANSWER_TIMEOUT} ms`))
    }, ANSWER_TIMEOUT)
    // One that has just been killed is told of by `exited`.
    this.#process.send({ number, question, argument }, (error) => {
      if (error) reject(error)
    })
    try {
      return await promise
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(number)
    }
  }

  async kill() {
    this.#isDone = true
    this.#process.kill('SIGKILL')
    await this.exited
  }

  /**
   * Stops it for so long. Another process wakes it up, so that it does not stand still for ever if this one dies
   * meanwhile.
   */
  async stop(milliseconds) {
    const script = 'kill -STOP "$0" && sleep "$1"; kill -CONT "$0"'
    const shell = spawn('sh', ['-c', script, String(this.pid), String(milliseconds / 1_000)], {
      stdio: 'ignore',
    })
    await once(shell, 'exit')
  }

  /** Lets it end by itself, and tells whether it did. */
  async leave() {
    this.#isDone = true
    await this.ask('leave').catch(() => {})
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), LEAVE_TIMEOUT)
    const how = await this.exited
    clearTimeout(timer)
    return how === 0
  }

  #settle({ number, result, error }) {
    const waiting = this.#waiting.get(number)
    if (error) waiting?.reject(Object.assign(new Error(error.message), { code: error.code }))
    else waiting?.resolve(result)
  }
}

function withResolvers() {
  const resolvers = {}
  resolvers.promise = new Promise((resolve, reject) => Object.assign(resolvers, { resolve, reject }))
  return resolvers
}
