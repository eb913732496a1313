// @ts-check
/** What the processes of the benchmark have in common: they answer one question after the other, and end with their parent. */

/**
 * Answers each question with what this gives. A question is `any`, because each child has a kind of its own, and its parent is ours.
 *
 * @param {(question: any) => Promise<object>} answer
 */
export function answerParent(answer) {
  process.on('message', async (question) => {
    try {
      process.send?.(await answer(question))
    } catch (error) {
      process.send?.({ error: error instanceof Error ? error.message : String(error) })
    }
  })
  process.on('disconnect', () => process.exit())
  // Ctrl-C is for everybody at the terminal. The parent ends us when it has heard it.
  process.on('SIGINT', () => {})
  process.send?.({ isReady: true })
}
