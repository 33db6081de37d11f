/** What SQLite does, durable as by default, with the inbox on; beside the same rows written by hand. */
import { join } from 'node:path'
import { connect } from '../../packages/core/src/index.ts'
import { sqlite } from '../../packages/sqlite/src/index.ts'
import { type FlatMemory, memoryLines, sampleMemory } from './harness/flat-memory.ts'
import { inFreshProcess, type Tasks } from './harness/fresh-process.ts'
import { type Cost, median, quantile } from './harness/measure.ts'
import { atLeast, below, count, heading, ms, percent, print, rate, us } from './harness/report.ts'
import { inTemporaryDirectory } from './harness/temporary-directory.ts'
import { concurrency, enqueueBatch } from './harness/workload.ts'
import { takeFromBoth } from './sqlite/backlog.ts'
import { insertByHand, workByHand } from './sqlite/by-hand.ts'
import { acrossProcesses, withinProcess } from './sqlite/latency.ts'
import { create, enqueued, inTransaction, oneByOne, type Worked, worked } from './sqlite/throughput.ts'

const jobs = 100_000
const rounds = 3
const singleJobs = 2_000
const transactionJobs = 20_000
const latencyJobs = 200
const backlog = { shortLength: 20_000, longLength: 1_000_000, jobs: 20_000, rounds: 7 }
const flatJobs = 250_000

const throughput = import.meta.resolve('./sqlite/throughput.ts')
const latency = import.meta.resolve('./sqlite/latency.ts')

async function manyJobs(directory: string): Promise<void> {
  const enqueues: { readonly core: Cost; readonly hand: Cost }[] = []
  const works: { readonly core: Worked; readonly hand: Cost }[] = []
  for (let round = 0; round < rounds; round++) {
    const path = join(directory, `core-${round}.db`)
    const handPath = join(directory, `hand-${round}.db`)
    await create(path)
    await create(handPath)
    const enqueue = await inFreshProcess(throughput, enqueued, { path, jobs })
    const insert = await inFreshProcess(throughput, insertByHand, { from: path, to: handPath })
    enqueues.push({ core: enqueue, hand: insert })
    const work = await inFreshProcess(throughput, worked, { path, jobs })
    const { commitsPerHundred } = work
    works.push({
      core: work,
      hand: await inFreshProcess(throughput, workByHand, { path: handPath, jobs, commitsPerHundred }),
    })
  }
  const ratioOf = (pairs: readonly { core: Cost; hand: Cost }[]): number =>
    median(pairs.map(({ core, hand }) => core.jobsPerSecond / hand.jobsPerSecond))
  const lines = (pairs: readonly { core: Cost; hand: Cost }[], what: string, hand: string, target: number): void => {
    const perSecond = median(pairs.map(({ core }) => core.jobsPerSecond))
    const ratio = ratioOf(pairs)
    print(
      { what, value: rate(perSecond), target: atLeast(perSecond, target, rate(target)) },
      { what: `  ${hand}`, value: rate(median(pairs.map((pair) => pair.hand.jobsPerSecond))) },
      { what: '  ratio', value: ratio.toFixed(2), target: atLeast(ratio, 0.6, '0.60') },
      {
        what: '  CPU per job: idemq, by hand',
        value: `${us(median(pairs.map(({ core }) => core.cpuUsPerJob)))}, ${us(median(pairs.map((pair) => pair.hand.cpuUsPerJob)))}`,
      },
    )
  }
  lines(enqueues, `enqueued in batches of ${count(enqueueBatch)}`, 'the same rows inserted by hand', 20_000)
  const commits = median(works.map(({ core }) => core.commitsPerHundred)).toFixed(1)
  lines(
    works.map(({ core, hand }) => ({ core: core.cost, hand })),
    `worked, concurrency ${concurrency}`,
    `the same row work by hand, as many commits (${commits} per 100 jobs)`,
    10_000,
  )
}

async function singleJobsAndTransactions(directory: string): Promise<void> {
  const { one, hundred } = await inFreshProcess(throughput, oneByOne, {
    path: join(directory, 'one.db'),
    jobs: singleJobs,
  })
  const transactions = await inFreshProcess(throughput, inTransaction, {
    path: join(directory, 'tx.db'),
    jobs: transactionJobs,
  })
  print(
    { what: 'enqueued one by one, 1 caller', value: rate(one.jobsPerSecond) },
    { what: 'enqueued one by one, 100 callers at once', value: rate(hundred.jobsPerSecond) },
    {
      what: `handleInTransaction, one insert each, concurrency ${concurrency}`,
      value: rate(transactions.jobsPerSecond),
    },
  )
}

async function latencies(directory: string): Promise<void> {
  const within = await inFreshProcess(latency, withinProcess, { path: join(directory, 'within.db'), jobs: latencyJobs })
  const across = await inFreshProcess(latency, acrossProcesses, {
    path: join(directory, 'across.db'),
    jobs: latencyJobs,
  })
  const both = (values: readonly number[]): string => `${ms(quantile(values, 0.5))}, ${ms(quantile(values, 0.99))}`
  print(
    { what: 'idle, enqueue to start of handler, one process: p50, p99', value: both(within) },
    { what: 'idle, enqueue to start of handler, two processes: p50, p99', value: both(across) },
  )
}

async function longQueue(directory: string): Promise<void> {
  const results = await inFreshProcess(import.meta.resolve('./sqlite/backlog.ts'), takeFromBoth, {
    shortPath: join(directory, 'short.db'),
    longPath: join(directory, 'long.db'),
    ...backlog,
  })
  const { jobs: taken, shortLength, longLength } = backlog
  const slower = 1 - median(results.map(({ short, long }) => long.jobsPerSecond / short.jobsPerSecond))
  const cpuSlower = median(results.map(({ short, long }) => long.cpuUsPerJob / short.cpuUsPerJob)) - 1
  print(
    {
      what: `receive and settle ${count(taken)} jobs, ${count(shortLength)} queued`,
      value: rate(median(results.map(({ short }) => short.jobsPerSecond))),
    },
    {
      what: `receive and settle ${count(taken)} jobs, ${count(longLength)} queued`,
      value: rate(median(results.map(({ long }) => long.jobsPerSecond))),
    },
    {
      what: `  slower by (median of ${results.length} pairs)`,
      value: percent(slower),
      target: below(slower, 0.1, '10 %'),
    },
    { what: '  more CPU by', value: percent(cpuSlower) },
  )
}

async function flat({ path }: { readonly path: string }): Promise<FlatMemory> {
  const mq = await connect(sqlite(path))
  const result = await sampleMemory(mq, flatJobs, {})
  await mq.close()
  return result
}

export const tasks: Tasks = { flat }

export async function bench(): Promise<void> {
  await inTemporaryDirectory(async (directory) => {
    heading(
      `sqlite · synchronous=FULL, WAL, inbox on; ${directory}; ${count(jobs)} jobs a round, ${rounds} rounds, medians`,
    )
    await manyJobs(directory)
    await singleJobsAndTransactions(directory)
    await latencies(directory)
    await longQueue(directory)
    print(
      ...memoryLines(
        await inFreshProcess(import.meta.url, flat, { path: join(directory, 'flat.db') }, ['--expose-gc']),
      ),
    )
  })
}
