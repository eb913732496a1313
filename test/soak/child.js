/** What the processes of the soak have in common: they answer what their parent asks, and end with it. */
import { readdirSync } from 'node:fs'

/** How often a process looks at what it takes, in milliseconds. */
const LOOK_INTERVAL = 500

// Node opens them when they are first looked at, and where they are pipes, they would count as something that is held.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})

const peak = { heap: 0, rss: 0, files: 0, handles: 0 }

/** Answers each question with what the handler of its name gives. */
export function answerParent(handlers) {
  const all = { usage, leave, ...handlers }
  process.on('message', async ({ number, question, argument }) => {
    try {
      tell({ number, result: await all[question](argument) })
    } catch (error) {
      tell({ number, error: { code: error.code, message: error.message } })
    }
  })
  process.on('disconnect', parentOnGone)
  // Ctrl-C is for everybody at the terminal. The parent ends us when it has heard it.
  process.on('SIGINT', () => {})
  setInterval(look, LOOK_INTERVAL).unref()
}

/** Tells the parent something that it did not ask for. */
export function tell(message) {
  if (process.connected) process.send(message)
}

/** Lets this process end by itself, as soon as nothing holds it any more. */
function leave() {
  process.off('disconnect', parentOnGone)
  setImmediate(() => process.disconnect())
}

function parentOnGone() {
  process.exit()
}

/** What this process holds, once it has thrown away what nobody needs. */
async function usage() {
  look()
  for (let i = 0; i < 3; i++) {
    global.gc()
    await new Promise(setImmediate)
  }
  const resources = {}
  for (const name of process.getActiveResourcesInfo()) resources[name] = (resources[name] ?? 0) + 1
  return { ...measure(), resources, peak: { ...peak } }
}

function look() {
  const now = measure()
  for (const name of Object.keys(peak)) peak[name] = Math.max(peak[name], now[name] ?? 0)
}

function measure() {
  const { heapUsed, external, rss } = process.memoryUsage()
  return { heap: heapUsed + external, rss, files: files(), handles: process.getActiveResourcesInfo().length }
}

/** How many files and sockets are open, where the system tells. */
function files() {
  if (process.platform !== 'linux') return undefined
  // One of them is the folder that is being read.
  return readdirSync('/proc/self/fd').length - 1
}
