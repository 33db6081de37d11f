/** From the call of `enqueue` to the start of the handler, with nothing else to do. */
import { setTimeout as delay } from 'node:timers/promises'
import { connect, type Mq } from '../../../packages/core/src/index.ts'
import { sqlite } from '../../../packages/sqlite/src/index.ts'
import { inFreshProcess, type Tasks } from '../harness/fresh-process.ts'
import { chargeOrder, charges, countdown } from '../harness/workload.ts'
import type { Run } from './throughput.ts'

const warmupJobs = 20

/** A clock that all processes of this machine share, in milliseconds. */
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6

/** Milliseconds from enqueue to start of each job, producer and worker in one process. */
export async function withinProcess({ path, jobs }: Run): Promise<number[]> {
  const mq = await connect(sqlite(path))
  const { started } = await startWorker(mq, jobs)
  const sentAtMs = await sendSlowly(mq, jobs)
  const latencies = between(sentAtMs, await started())
  await mq.close()
  return latencies
}

/** The same with the producer in another process. */
export async function acrossProcesses({ path, jobs }: Run): Promise<number[]> {
  const mq = await connect(sqlite(path))
  const { started } = await startWorker(mq, jobs)
  const sentAtMs = await inFreshProcess(import.meta.url, produce, { path, jobs })
  const latencies = between(sentAtMs, await started())
  await mq.close()
  return latencies
}

export async function produce({ path, jobs }: Run): Promise<Map<string, number>> {
  const mq = await connect(sqlite(path))
  const sentAtMs = await sendSlowly(mq, jobs)
  await mq.close()
  return sentAtMs
}

/** Resolves once the worker runs. `started` holds, when all did, the instants at which the handlers started, by order. */
async function startWorker(mq: Mq, jobs: number): Promise<{ started: () => Promise<Map<string, number>> }> {
  const startedAtMs = new Map<string, number>()
  const { one, reached } = countdown('jobs started', warmupJobs + jobs)
  const worker = mq.worker().handle(chargeOrder, ({ orderId }) => {
    startedAtMs.set(orderId, nowMs())
    one()
  })
  await worker.start()
  return { started: () => reached.then(() => startedAtMs) }
}

/** At odd intervals, so that no poll keeps step with them. */
async function sendSlowly(mq: Mq, jobs: number): Promise<Map<string, number>> {
  const sentAtMs = new Map<string, number>()
  for (const [i, charge] of charges(0, warmupJobs + jobs).entries()) {
    await delay(20 + ((i * 7) % 16))
    if (i >= warmupJobs) sentAtMs.set(charge.orderId, nowMs())
    await mq.enqueue(chargeOrder, charge)
  }
  return sentAtMs
}

function between(sentAtMs: ReadonlyMap<string, number>, startedAtMs: ReadonlyMap<string, number>): number[] {
  return [...sentAtMs].map(([orderId, sentMs]) => startedAtMs.get(orderId)! - sentMs)
}

export const tasks: Tasks = { withinProcess, acrossProcesses, produce }
