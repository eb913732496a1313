/** How long answers take. */
import { setTimeout } from 'node:timers/promises'

const ROUNDS = 21

/**
 * By how many milliseconds the median of what conditions make longer differs from what it should be. A busy machine is late with
 * everything, so each round is compared with one without conditions in which bare timers wait as long as the latencies.
 */
export async function deviation(
  trip: () => Promise<unknown>,
  tripWithout: () => Promise<unknown>,
  latencies: number[],
): Promise<number> {
  const withConditions: number[] = []
  const expected: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    withConditions.push(await timed(trip))
    expected.push(
      await timed(async () => {
        await tripWithout()
        for (const latency of latencies) await setTimeout(latency)
      }),
    )
  }
  return median(withConditions) - median(expected)
}

export async function timed(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await action()
  return performance.now() - start
}

export function median(values: number[]): number {
  return [...values].sort((one, other) => one - other)[values.length >> 1] as number
}
