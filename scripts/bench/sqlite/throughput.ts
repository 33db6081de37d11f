/** How fast many jobs are enqueued and worked through SQLite. */
import { StatementSync } from 'node:sqlite'
import { connect, type Mq, type SqlTransaction } from '../../../packages/core/src/index.ts'
import { sqlite } from '../../../packages/sqlite/src/index.ts'
import type { Tasks } from '../harness/fresh-process.ts'
import { type Cost, expectCount, measure } from '../harness/measure.ts'
import {
  chargeBatches,
  chargeOrder,
  charges,
  concurrency,
  countdown,
  enqueueAll,
  workAll,
} from '../harness/workload.ts'
import { expectWorked, insertByHand, openByHand, workByHand } from './by-hand.ts'

const warmupJobs = 20_000

export interface Run {
  readonly path: string
  readonly jobs: number
}

/** Makes the tables and the queue, and nothing else. */
export async function create(path: string): Promise<void> {
  const { driver } = sqlite(path)
  await driver.declare({ name: chargeOrder.queue, group: 'default' }, 'create', new AbortController().signal)
  await driver.close()
}

export async function enqueued({ path, jobs }: Run): Promise<Cost> {
  const warm = await connect(sqlite(`${path}.warm`))
  await enqueueAll(warm, chargeBatches(0, warmupJobs))
  await warm.close()
  const mq = await connect(sqlite(path))
  const batches = chargeBatches(0, jobs)
  const cost = await measure(jobs, () => enqueueAll(mq, batches))
  expectCount('jobs ready', (await mq.status(chargeOrder.queue)).stuck.ready ?? 0, jobs)
  await mq.close()
  return cost
}

export interface Worked {
  readonly cost: Cost
  readonly commitsPerHundred: number
}

export async function worked({ path, jobs }: Run): Promise<Worked> {
  const warm = await connect(sqlite(`${path}.warm`))
  await enqueueAll(warm, chargeBatches(0, warmupJobs))
  const commits = await countCommits(() => workAll(warm, warmupJobs))
  await warm.close()
  const mq = await connect(sqlite(path))
  const cost = await measure(jobs, () => workAll(mq, jobs))
  await mq.close()
  const database = openByHand(path)
  expectWorked(database, jobs)
  database.close()
  return { cost, commitsPerHundred: (commits * 100) / warmupJobs }
}

/** The commits of this process while `work` runs. */
async function countCommits(work: () => Promise<void>): Promise<number> {
  const { run } = StatementSync.prototype
  let commits = 0
  StatementSync.prototype.run = function (this: StatementSync, ...values: Parameters<typeof run>) {
    if (this.sourceSQL === 'COMMIT') commits++
    return run.apply(this, values)
  } as typeof run
  try {
    await work()
  } finally {
    StatementSync.prototype.run = run
  }
  return commits
}

export interface OneByOne {
  readonly one: Cost
  readonly hundred: Cost
}

/** Each caller enqueues a job when its last one is stored. */
export async function oneByOne({ path, jobs }: Run): Promise<OneByOne> {
  const mq = await connect(sqlite(path))
  await callers(mq, 10, 0, 2_000)
  const one = await measure(jobs, () => callers(mq, 1, 2_000, jobs))
  const hundred = await measure(10 * jobs, () => callers(mq, 100, 2_000 + jobs, 10 * jobs))
  expectCount('jobs ready', (await mq.status(chargeOrder.queue)).stuck.ready ?? 0, 2_000 + 11 * jobs)
  await mq.close()
  return { one, hundred }
}

async function callers(mq: Mq, atOnce: number, from: number, jobs: number): Promise<void> {
  const payloads = charges(from, jobs)[Symbol.iterator]()
  const caller = async (): Promise<void> => {
    for (const payload of payloads) await mq.enqueue(chargeOrder, payload)
  }
  await Promise.all(Array.from({ length: atOnce }, caller))
}

/** Each handler writes a row of its own in the transaction that completes its job. */
export async function inTransaction({ path, jobs }: Run): Promise<Cost> {
  const mq = await connect(sqlite(path))
  await enqueueAll(mq, chargeBatches(0, jobs))
  const setup = openByHand(path)
  setup.exec('CREATE TABLE charge (order_id TEXT PRIMARY KEY, amount_cents INTEGER NOT NULL)')
  setup.close()
  const { one, reached } = countdown('jobs worked', jobs)
  const worker = mq.worker<SqlTransaction>({ concurrency })
  worker.handleInTransaction(chargeOrder, async ({ orderId, amountCents }, _job, tx) => {
    await tx.query('INSERT INTO charge (order_id, amount_cents) VALUES ($1, $2)', [orderId, amountCents])
    one()
  })
  const cost = await measure(jobs, async () => {
    await worker.start()
    await reached
    await worker.stop()
  })
  await mq.close()
  const database = openByHand(path)
  expectWorked(database, jobs)
  const rows = database.prepare('SELECT count(*) AS n FROM charge').get() as { n: number }
  expectCount('effects', rows.n, jobs)
  database.close()
  return cost
}

export const tasks: Tasks = { enqueued, worked, oneByOne, inTransaction, insertByHand, workByHand }
