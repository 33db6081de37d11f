/** graphile-worker on the same server. */
import { Logger, makeWorkerUtils, run } from 'graphile-worker'
import pg from 'pg'
import type { PeerRun } from '../harness/broker-bench.ts'
import type { Tasks } from '../harness/fresh-process.ts'
import { type Cost, expectCount, measure } from '../harness/measure.ts'
import { rollCall } from '../harness/roll-call.ts'
import { type Charge, chargeBatches } from '../harness/workload.ts'

export interface GraphileWorkerRun extends PeerRun {
  readonly concurrentJobs: number
  /** Jobs fetched at once, and completed in batches. Absent: each by itself, as by default. */
  readonly localQueueSize?: number
}

const identifier = 'charge-order'
const logger = new Logger(() => (level, message) => {
  if (level === 'error' || level === 'warning') console.error(`graphile-worker: ${message}`)
})

async function work({ url, concurrentJobs, localQueueSize }: GraphileWorkerRun, jobs: number): Promise<Cost> {
  const worker = {
    connectionString: url,
    concurrentJobs,
    maxPoolSize: concurrentJobs + 1,
    ...(localQueueSize && { localQueue: { size: localQueueSize }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }),
    logger,
  }
  const utils = await makeWorkerUtils({ preset: { worker } })
  await utils.migrate()
  for (const batch of chargeBatches(0, jobs)) await utils.addJobs(batch.map((payload) => ({ identifier, payload })))
  await utils.release()
  const roll = rollCall(0, jobs)
  const taskList = { [identifier]: (payload: unknown): void => roll.present((payload as Charge).orderId) }
  const cost = await measure(jobs, async () => {
    const runner = await run({ preset: { worker }, taskList, parsedCronItems: [], noHandleSignals: true })
    await roll.complete
    await runner.stop()
  })
  roll.check()
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const { rows } = await client.query<{ jobs: string }>('SELECT count(*) AS jobs FROM graphile_worker._private_jobs')
  expectCount('jobs left in graphile-worker', Number(rows[0]!.jobs), 0)
  await client.end()
  return cost
}

export async function workedByGraphileWorker(given: GraphileWorkerRun): Promise<Cost> {
  await work(given, given.warmupJobs)
  return work(given, given.jobs)
}

export const tasks: Tasks = { workedByGraphileWorker }
