/** BullMQ on the same server. */
import { Queue, Worker } from 'bullmq'
import type { PeerRun } from '../harness/broker-bench.ts'
import type { Tasks } from '../harness/fresh-process.ts'
import { type Cost, expectCount, measure } from '../harness/measure.ts'
import { rollCall } from '../harness/roll-call.ts'
import { type Charge, chargeBatches } from '../harness/workload.ts'

export interface BullMqRun extends PeerRun {
  readonly concurrency: number
}

const removeOnComplete = true

async function work({ url, concurrency }: BullMqRun, name: string, jobs: number): Promise<Cost> {
  const connection = { url, maxRetriesPerRequest: null }
  const queue = new Queue<Charge>(name, { connection })
  for (const batch of chargeBatches(0, jobs)) {
    await queue.addBulk(batch.map((data) => ({ name: 'charge-order', data, opts: { removeOnComplete } })))
  }
  const roll = rollCall(0, jobs)
  const worker = new Worker<Charge>(name, async ({ data }) => roll.present(data.orderId), {
    connection,
    concurrency,
    autorun: false,
  })
  await worker.waitUntilReady()
  const cost = await measure(jobs, async () => {
    const running = worker.run()
    await roll.complete
    await worker.close()
    await running
  })
  roll.check()
  const counts = await queue.getJobCounts()
  for (const [state, left] of Object.entries(counts)) expectCount(`BullMQ jobs ${state}`, left, 0)
  await queue.close()
  return cost
}

export async function workedByBullMq(run: BullMqRun): Promise<Cost> {
  await work(run, 'warm', run.warmupJobs)
  return work(run, 'bench', run.jobs)
}

export const tasks: Tasks = { workedByBullMq }
