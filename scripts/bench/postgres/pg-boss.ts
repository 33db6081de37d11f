/** pg-boss on the same server. */
import { PgBoss } from 'pg-boss'
import type { PeerRun } from '../harness/broker-bench.ts'
import type { Tasks } from '../harness/fresh-process.ts'
import { type Cost, expectCount, measure } from '../harness/measure.ts'
import { rollCall } from '../harness/roll-call.ts'
import { type Charge, chargeBatches } from '../harness/workload.ts'

export interface PgBossRun extends PeerRun {
  /** Jobs fetched at once by each worker. */
  readonly batchSize: number
  /** Workers of the process. */
  readonly localConcurrency: number
  /** Whether each job of a batch has an outcome of its own, or the batch has one. */
  readonly perJobResults: boolean
}

async function work(boss: PgBoss, run: PgBossRun, name: string, jobs: number): Promise<Cost> {
  const { batchSize, localConcurrency, perJobResults } = run
  await boss.createQueue(name)
  for (const batch of chargeBatches(0, jobs)) {
    await boss.insert(
      name,
      batch.map((data) => ({ data })),
    )
  }
  const roll = rollCall(0, jobs)
  const polling = { burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }
  const options = { batchSize, localConcurrency, perJobResults, ...polling }
  const cost = await measure(jobs, async () => {
    await boss.work<Charge>(name, options, async (batch) => {
      for (const { data } of batch) roll.present(data.orderId)
      return perJobResults ? batch.map(({ id }) => ({ id, status: 'completed' })) : undefined
    })
    await roll.complete
    await boss.offWork(name, { wait: true })
  })
  roll.check()
  const [stats] = await boss.getQueueStats(name, { force: true })
  const { queuedCount, activeCount, failedCount } = stats!
  expectCount('jobs left in pg-boss', queuedCount + activeCount + failedCount, 0)
  return cost
}

export async function workedByPgBoss(run: PgBossRun): Promise<Cost> {
  const boss = new PgBoss({ connectionString: run.url, supervise: false, schedule: false })
  boss.on('error', (error) => {
    throw error
  })
  await boss.start()
  await work(boss, run, 'warm', run.warmupJobs)
  const cost = await work(boss, run, 'bench', run.jobs)
  await boss.stop({ graceful: false })
  return cost
}

export const tasks: Tasks = { workedByPgBoss }
