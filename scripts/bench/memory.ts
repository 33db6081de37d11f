/** What core adds to a job, measured where the broker costs next to nothing. */
import { connect } from '../../packages/core/src/index.ts'
import { memory } from '../../packages/memory/src/index.ts'
import { type FlatMemory, memoryLines, sampleMemory } from './harness/flat-memory.ts'
import { inFreshProcess, type Tasks } from './harness/fresh-process.ts'
import { type Cost, expectCount, measure, median } from './harness/measure.ts'
import { below, count, heading, print, rate, us } from './harness/report.ts'
import { chargeBatches, chargeOrder, charges, concurrency, enqueueAll, workAll } from './harness/workload.ts'

const jobs = 200_000
const warmupJobs = 50_000
const rounds = 3
const flatJobs = 1_000_000

/** Enqueues and works with core. */
async function withCore(): Promise<{ enqueued: Cost; worked: Cost }> {
  const mq = await connect(memory())
  await enqueueAll(mq, chargeBatches(0, warmupJobs))
  await workAll(mq, warmupJobs)
  const batches = chargeBatches(warmupJobs, jobs)
  const enqueued = await measure(jobs, () => enqueueAll(mq, batches))
  const worked = await measure(jobs, () => workAll(mq, jobs))
  await mq.close()
  return { enqueued, worked }
}

/** The same messages through the same driver and inbox, called directly: what remains when core is taken away. */
async function byHand(): Promise<Cost> {
  const { driver, inbox } = memory()
  const mq = await connect({ driver })
  await enqueueAll(mq, chargeBatches(0, warmupJobs))
  const { signal } = new AbortController()
  const queue = { name: chargeOrder.queue, group: 'default' }
  const times = { leaseMs: 15_000, retentionMs: 14 * 24 * 3_600_000 }
  const fingerprint = chargeOrder.fingerprint({})
  await driver.declare(queue, 'create', signal)
  const receiver = await driver.open(
    queue,
    { maxUnsettled: 2 * concurrency, leaseMs: 30_000, onLost: () => {} },
    signal,
  )

  async function work(keys: readonly string[]): Promise<void> {
    for (let done = 0; done < keys.length; ) {
      const deliveries = await receiver.receive(concurrency, 0, signal)
      const requests = deliveries.map((_, i) => ({
        scope: `default/${chargeOrder.name}`,
        key: keys[done + i]!,
        fingerprint,
        jobId: keys[done + i]!,
        replay: 0,
        attempt: 1,
      }))
      const answers = await inbox!.claim(requests, times, signal)
      const ends = answers.map((answer, i) => {
        if (answer.status !== 'claimed') throw new Error(`claim by hand: ${answer.status}`)
        const { scope, key } = requests[i]!
        return { scope, key, token: answer.token, state: 'completed', floor: 1, free: false, holdMs: 0 } as const
      })
      await inbox!.end(ends, times.retentionMs, signal)
      await receiver.settle(
        deliveries.map((delivery) => ({ delivery, outcome: 'ack' })),
        signal,
      )
      done += deliveries.length
      if (deliveries.length === 0) expectCount('jobs worked by hand', done, keys.length)
    }
  }

  await work(keysOf(0, warmupJobs))
  await enqueueAll(mq, chargeBatches(warmupJobs, jobs))
  const keys = keysOf(warmupJobs, jobs)
  const cost = await measure(jobs, () => work(keys))
  await mq.close()
  return cost
}

function keysOf(from: number, many: number): string[] {
  return charges(from, many).map((charge) => (chargeOrder.idempotencyKey as (c: typeof charge) => string)(charge))
}

/** The inbox would keep every key for a fortnight, in this process: here it forgets at once, so that it is not measured. */
async function flat(): Promise<FlatMemory> {
  const adapter = memory()
  const mq = await connect(adapter)
  const { signal } = new AbortController()
  const result = await sampleMemory(mq, flatJobs, { retentionMs: 1 }, () => adapter.inbox!.purge(flatJobs, signal))
  await mq.close()
  return result
}

export const tasks: Tasks = { withCore, byHand, flat }

export async function bench(): Promise<void> {
  heading(
    `memory · ${count(jobs)} jobs a round, ${rounds} rounds, medians; concurrency ${concurrency}, inbox on, zod payload`,
  )
  const core: { enqueued: Cost; worked: Cost }[] = []
  const hand: Cost[] = []
  for (let round = 0; round < rounds; round++) {
    core.push(await inFreshProcess(import.meta.url, withCore, undefined))
    hand.push(await inFreshProcess(import.meta.url, byHand, undefined))
  }
  const coreUs = median(core.map(({ worked }) => worked.cpuUsPerJob))
  const handUs = median(hand.map(({ cpuUsPerJob }) => cpuUsPerJob))
  const added = coreUs - handUs
  print(
    { what: 'CPU per job: driver and inbox called by hand, in hundreds', value: us(handUs) },
    { what: 'CPU per job: worker', value: us(coreUs) },
    { what: 'CPU per job that core adds', value: us(added), target: below(added, 15, '15 µs') },
    { what: 'worked', value: rate(median(core.map(({ worked }) => worked.jobsPerSecond))) },
    { what: 'CPU per job: enqueueMany, in thousands', value: us(median(core.map((c) => c.enqueued.cpuUsPerJob))) },
    { what: 'enqueued', value: rate(median(core.map((c) => c.enqueued.jobsPerSecond))) },
  )
  print(...memoryLines(await inFreshProcess(import.meta.url, flat, undefined, ['--expose-gc'])))
}
