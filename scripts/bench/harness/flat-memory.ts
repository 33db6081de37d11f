/** Whether a worker's memory stays flat over many jobs. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Mq, WorkerOptions } from '../../../packages/core/src/index.ts'
import { expectCount } from './measure.ts'
import { type Line, mib, percent } from './report.ts'
import { chargeOrder, charges, concurrency, countdown, enqueueAll, enqueueBatch } from './workload.ts'

export interface MemorySample {
  /** Share of the jobs that was done, from 0 to 1. */
  readonly at: number
  readonly rssBytes: number
  readonly heapUsedBytes: number
}

export interface FlatMemory {
  readonly jobs: number
  readonly seconds: number
  readonly samples: readonly MemorySample[]
}

const sampleAt = [0.1, 0.5, 1]
/** More wait nowhere: the backlog is not what is measured. */
const maxQueued = 4 * enqueueBatch

/**
 * One process enqueues and works `jobs` jobs. Each sample is taken with nothing queued, after a forced collection.
 * Run it under `--expose-gc`.
 * @param between called after each batch, for what a store would do in the background
 */
export async function sampleMemory(
  mq: Mq,
  jobs: number,
  options: WorkerOptions,
  between: () => Promise<unknown> = () => Promise.resolve(),
): Promise<FlatMemory> {
  const startedAtMs = performance.now()
  const samples: MemorySample[] = []
  let done = 0
  const { one, reached } = countdown('jobs worked', jobs)
  const worker = mq.worker({ concurrency, ...options }).handle(chargeOrder, () => {
    done++
    one()
  })
  await worker.start()
  let sent = 0
  for (const at of sampleAt) {
    while (sent < jobs * at) {
      const batch = charges(sent, Math.min(enqueueBatch, jobs * at - sent))
      await enqueueAll(mq, [batch])
      sent += batch.length
      await Promise.race([reached, atMostQueued(() => sent - done, maxQueued)])
      await between()
    }
    await Promise.race([reached, atMostQueued(() => sent - done, 0)])
    globalThis.gc!()
    const { rss, heapUsed } = process.memoryUsage()
    samples.push({ at, rssBytes: rss, heapUsedBytes: heapUsed })
  }
  await worker.stop()
  expectCount('handlers run', done, jobs)
  return { jobs, seconds: (performance.now() - startedAtMs) / 1_000, samples }
}

async function atMostQueued(queued: () => number, max: number): Promise<void> {
  while (queued() > max) await nextTurn()
}

export function memoryLines({ jobs, samples }: FlatMemory): Line[] {
  const [first, last] = [samples[0]!, samples.at(-1)!]
  return [
    ...samples.map(({ at, rssBytes, heapUsedBytes }) => ({
      what: `memory after ${percent(at)} of ${jobs.toLocaleString('en-US')} jobs: RSS, heap in use`,
      value: `${mib(rssBytes)}, ${mib(heapUsedBytes)}`,
    })),
    {
      what: `  growth from ${percent(first.at)} to ${percent(last.at)}: RSS (with pages V8 freed and keeps), heap in use`,
      value: `${mib(last.rssBytes - first.rssBytes)}, ${mib(last.heapUsedBytes - first.heapUsedBytes)}`,
    },
  ]
}
