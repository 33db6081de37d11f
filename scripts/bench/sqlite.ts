/** What SQLite does, durable as by default, with the inbox on; beside the same rows written by hand. */
import { join } from 'node:path'
import { connect } from '../../packages/core/src/index.ts'
import { sqlite } from '../../packages/sqlite/src/index.ts'
import { type FlatMemory, memoryLines, sampleMemory } from './harness/flat-memory.ts'
import { inFreshProcess, type Tasks } from './harness/fresh-process.ts'
import { type Cost, median, quantile } from './harness/measure.ts'
import { atLeast, below, count, heading, ms, percent, print, rate, ratio, us } from './harness/report.ts'
import { inTemporaryDirectory } from './harness/temporary-directory.ts'
import { concurrency, enqueueBatch } from './harness/workload.ts'
import { type BacklogRound, takeFromBoth } from './sqlite/backlog.ts'
import { insertByHand, workByHand } from './sqlite/by-hand.ts'
import { acrossProcesses, withinProcess } from './sqlite/latency.ts'
import { create, enqueued, inTransaction, oneByOne, worked } from './sqlite/throughput.ts'

const jobs = 100_000
const rounds = 5
const singleJobs = 2_000
const transactionJobs = 20_000
const latencyJobs = 200
const backlog = { shortLength: 20_000, longLength: 1_000_000, jobs: 20_000, rounds: 11 }
const flatJobs = 1_000_000

const throughput = import.meta.resolve('./sqlite/throughput.ts')
const latency = import.meta.resolve('./sqlite/latency.ts')

/** One round of idemq and of the same by hand. */
interface Pair {
  readonly core: Cost
  readonly hand: Cost
}

async function manyJobs(directory: string): Promise<void> {
  const inserts: Pair[] = []
  const encodedInserts: Pair[] = []
  const works: Pair[] = []
  const commits: number[] = []
  for (let round = 0; round < rounds; round++) {
    const [path, handPath, encodedPath] = ['core', 'hand', 'encoded'].map((name) =>
      join(directory, `${name}-${round}.db`),
    ) as [string, string, string]
    for (const file of [path, handPath, encodedPath]) await create(file)
    const core = await inFreshProcess(throughput, enqueued, { path, jobs })
    const ready = { from: path, to: handPath, encode: false }
    inserts.push({ core, hand: await inFreshProcess(throughput, insertByHand, ready) })
    const encoding = { from: path, to: encodedPath, encode: true }
    encodedInserts.push({ core, hand: await inFreshProcess(throughput, insertByHand, encoding) })
    const { cost, commitsPerHundred } = await inFreshProcess(throughput, worked, { path, jobs })
    const same = { path: handPath, jobs, commitsPerHundred }
    works.push({ core: cost, hand: await inFreshProcess(throughput, workByHand, same) })
    commits.push(commitsPerHundred)
  }
  printRate(`enqueued in batches of ${count(enqueueBatch)}`, inserts, 20_000)
  printRatio('the same rows inserted by hand, encoded beforehand', inserts)
  printRatio('the same rows encoded to JSON and inserted by hand', encodedInserts)
  printRate(`worked, concurrency ${concurrency}`, works, 10_000)
  const perHundred = median(commits).toFixed(1)
  printRatio(`the same row work by hand, as many commits (${perHundred} per 100 jobs)`, works)
}

function printRate(what: string, pairs: readonly Pair[], target: number): void {
  const perSecond = median(pairs.map(({ core }) => core.jobsPerSecond))
  print(
    { what, value: rate(perSecond), target: atLeast(perSecond, target, rate(target)) },
    { what: '  CPU per job', value: us(median(pairs.map(({ core }) => core.cpuUsPerJob))) },
  )
}

function printRatio(hand: string, pairs: readonly Pair[]): void {
  const value = median(pairs.map((pair) => pair.core.jobsPerSecond / pair.hand.jobsPerSecond))
  const cpuUs = us(median(pairs.map((pair) => pair.hand.cpuUsPerJob)))
  print(
    {
      what: `  ${hand} (CPU per job ${cpuUs})`,
      value: rate(median(pairs.map((pair) => pair.hand.jobsPerSecond))),
    },
    { what: '    ratio', value: ratio(value), target: atLeast(value, 0.6, '0.60') },
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
  printBacklog('receive and settle', results.brokerOnly)
  printBacklog('receive, claim, complete and settle', results.withInbox)
}

function printBacklog(what: string, results: readonly BacklogRound[]): void {
  const { jobs: taken, shortLength, longLength } = backlog
  const slower = 1 - median(results.map(({ short, long }) => long.jobsPerSecond / short.jobsPerSecond))
  const moreCpu = median(results.map(({ short, long }) => long.cpuUsPerJob / short.cpuUsPerJob)) - 1
  const rateOf = (queue: keyof BacklogRound): string => rate(median(results.map((round) => round[queue].jobsPerSecond)))
  print(
    { what: `${what} ${count(taken)} jobs, ${count(shortLength)} queued`, value: rateOf('short') },
    { what: `${what} ${count(taken)} jobs, ${count(longLength)} queued`, value: rateOf('long') },
    {
      what: `  slower by (median of ${results.length} pairs; CPU ${percent(moreCpu)} more)`,
      value: percent(slower),
      target: below(slower, 0.1, '10 %'),
    },
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
