import { sleep, systemClock } from '@idemq/core'
import { protocolError } from './kafka-error.ts'

/** How long to wait for what the cluster is about to do, looking this often. */
const patienceMs = 5_000
const pauseMs = 25

/** Looks again and again while the broker answers with one of `passing`, for a bounded time. */
export async function patiently<T>(passing: ReadonlySet<string>, look: () => Promise<T>): Promise<T> {
  const untilMs = systemClock.monotonicMs() + patienceMs
  for (;;) {
    try {
      return await look()
    } catch (error) {
      if (!passing.has(protocolError(error) ?? '') || systemClock.monotonicMs() > untilMs) throw error
      await sleep(systemClock, pauseMs)
    }
  }
}
