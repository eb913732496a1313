// @ts-check
/** A process with a tunnel server. */
import { createServer } from 'pipe-tunnel'
import { answerParent } from './answer.js'

answerParent(async (options) => {
  const { port } = await createServer(options)
  return { port }
})
