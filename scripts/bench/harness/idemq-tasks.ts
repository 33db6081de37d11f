/** What idemq does on a real broker, wherever the URL leads. Each task ends by looking whether all of it was done. */
import { connect, type Mq, noInbox, type WorkerOptions } from '../../../packages/core/src/index.ts'
import type { Tasks } from './fresh-process.ts'
import { type Cost, expectCount, measure } from './measure.ts'
import { rollCall } from './roll-call.ts'
import {
  chargeBatches,
  chargeOrder,
  concurrency,
  countdown,
  enqueueAll,
  enqueueBatch,
  unkeyedCharge,
} from './workload.ts'

const adapters = {
  redis: () => import('../../../packages/redis/src/index.ts'),
  postgres: () => import('../../../packages/postgres/src/index.ts'),
}

export function open(url: string): Promise<Mq> {
  return connect(url, { adapters })
}

/** An empty place on a server. */
export interface Place {
  readonly url: string
  /** A second one, which knows nothing of the first. */
  readonly otherUrl: string
}

export interface IdemqRun extends Place {
  readonly jobs: number
  /** Done beforehand in the other place. */
  readonly warmupJobs: number
}

/** Enqueues in batches of {@link enqueueBatch}, one after the other, and leaves it there. */
export async function published({ url, otherUrl, jobs, warmupJobs }: IdemqRun): Promise<Cost> {
  const warm = await open(otherUrl)
  await enqueueAll(warm, chargeBatches(0, warmupJobs), unkeyedCharge)
  await warm.close()
  const mq = await open(url)
  await expectEmpty(mq)
  const batches = chargeBatches(0, jobs)
  const cost = await measure(jobs, () => enqueueAll(mq, batches, unkeyedCharge))
  expectCount('jobs ready', (await mq.status(unkeyedCharge.queue)).stuck.ready ?? 0, jobs)
  await mq.close()
  return cost
}

/** Works what {@link published} left, {@link enqueueBatch} at once. */
export async function worked({ url, otherUrl, jobs, warmupJobs }: IdemqRun): Promise<Cost> {
  const options = { concurrency: enqueueBatch, inbox: noInbox() }
  const warm = await open(otherUrl)
  await work(warm, warmupJobs, options)
  await warm.close()
  const mq = await open(url)
  const cost = await work(mq, jobs, options)
  await mq.close()
  return cost
}

async function work(mq: Mq, jobs: number, options: WorkerOptions): Promise<Cost> {
  const job = options.inbox ? unkeyedCharge : chargeOrder
  const roll = rollCall(0, jobs)
  const worker = mq.worker(options).handle(job, ({ orderId }) => roll.present(orderId))
  const cost = await measure(jobs, async () => {
    await worker.start()
    await roll.complete
    await worker.stop()
  })
  roll.check()
  await expectEmpty(mq)
  return cost
}

export interface InboxRun extends IdemqRun {
  readonly concurrency: number
}

/** Enqueues, works with the inbox, and works some of the same again: the inbox must know them. */
export async function workedWithInbox({ url, otherUrl, jobs, warmupJobs, concurrency }: InboxRun): Promise<Cost> {
  const warm = await open(otherUrl)
  await enqueueAll(warm, chargeBatches(0, warmupJobs))
  await work(warm, warmupJobs, { concurrency })
  await warm.close()
  const mq = await open(url)
  await enqueueAll(mq, chargeBatches(0, jobs))
  const cost = await work(mq, jobs, { concurrency })
  await expectDeduplicated(mq, enqueueBatch)
  await mq.close()
  return cost
}

/** @throws Error unless the inbox answers for each of the first `jobs` that it was done */
async function expectDeduplicated(mq: Mq, jobs: number): Promise<void> {
  await enqueueAll(mq, chargeBatches(0, jobs))
  const { one, reached } = countdown('duplicates', jobs)
  const worker = mq.worker({ concurrency }).handle(chargeOrder, () => {
    throw new Error('a job that was done ran again')
  })
  mq.on('deduplicated', one)
  mq.on('failed', ({ error }) => {
    throw error
  })
  await worker.start()
  await reached
  await worker.stop()
  await expectEmpty(mq)
}

/** @throws Error if a job is in the queue, in flight, delayed or dead */
export async function expectEmpty(mq: Mq): Promise<void> {
  const { stuck, failing } = await mq.status(chargeOrder.queue)
  const { ready = 0, delayed = 0, inFlight = 0 } = stuck
  expectCount('jobs left', ready + delayed + inFlight, 0)
  expectCount('dead letters', failing.dead ?? 0, 0)
}

export const tasks: Tasks = { published, worked, workedWithInbox }
