import { setTimeout as delay } from 'node:timers/promises'
import type { Mq } from '@idemq/core'

export interface IdleOptions {
  readonly signal: AbortSignal
  /** What else may become work: rows in an outbox, handlers of other processes. @default nothing */
  readonly elsewhere?: () => Promise<number>
}

const lookEveryMs = 250
/** Looks in a row that must find nothing: a job on its way from an outbox to its queue is nowhere for a moment. */
const quietLooks = 4
/** The same for a broker that cannot say what waits: longer than the leases and most delays of the examples. */
const blindQuietLooks = 40

/**
 * Resolves when nothing waits, runs or is delayed in `queues`, as far as the broker can say.
 * @throws the reason of the signal
 */
export async function untilIdle(mq: Mq, queues: readonly string[], options: IdleOptions): Promise<void> {
  const { signal, elsewhere = async () => 0 } = options
  for (let quiet = 0; ; ) {
    const pending = await Promise.all(queues.map((queue) => pendingJobs(mq, queue)))
    const isBusy = pending.some(({ jobs }) => jobs > 0) || (await elsewhere()) > 0
    quiet = isBusy ? 0 : quiet + 1
    if (quiet >= (pending.every(({ known }) => known) ? quietLooks : blindQuietLooks)) return
    await delay(lookEveryMs, undefined, { signal })
  }
}

/** Jobs of a queue that have not ended, those that run in this process included. `known`: the broker could say. */
export async function pendingJobs(mq: Mq, queue: string): Promise<{ readonly jobs: number; readonly known: boolean }> {
  const { ready, delayed, inFlight, runningHere } = (await mq.status(queue)).stuck
  const counts = [ready, delayed, inFlight].filter((n) => n !== undefined)
  const jobs = counts.reduce((sum, n) => sum + n, 0)
  return { jobs: Math.max(jobs, runningHere), known: counts.length > 0 }
}
