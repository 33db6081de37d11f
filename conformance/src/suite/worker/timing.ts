/** Time: delays longer than the broker's, snoozes, timeouts, and shutdown. */
import assert from 'node:assert/strict'
import type { Driver } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { byLease, type DriverHarness, extends_ } from '../driver/harness.ts'
import { expectRejection } from '../refusal.ts'
import { nowMs, pass } from '../wait.ts'
import { latch, payload, type WorkerBench, withChanges, withManifest } from './bench.ts'

export const timingCases: CaseGroup<DriverHarness, WorkerBench> = {
  name: 'timing',
  cases: [
    {
      name: 'a delayed job is never early, and runs',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const { delayMs } = t.scale
        let startedMs = 0
        await client
          .worker()
          .handle(job, () => {
            startedMs = nowMs()
          })
          .start()
        const sentMs = nowMs()
        await client.mq.enqueue(job, payload(), { delayMs })
        await t.until(
          'the job to run',
          () => startedMs,
          (at) => at > 0,
        )
        assert.ok(startedMs - sentMs >= delayMs - 2, `a delay of ${delayMs} ms ended after ${startedMs - sentMs} ms`)
      },
    },
    {
      name: 'a delay beyond the longest native one is kept in hops: not early, once, no attempt used',
      async run(t) {
        const { delayMs } = t.scale
        const asked: number[] = []
        const noting = (driver: Driver): Driver =>
          withChanges(driver, {
            send(target, batch, signal) {
              asked.push(...batch.map((message) => message.delayMs))
              return driver.send(target, batch, signal)
            },
          })
        const limited = withManifest({ maxDelayMs: delayMs })
        const client = await t.client({ driver: (driver) => limited(noting(driver)) })
        const job = t.job()
        const runs: { atMs: number; attempt: number }[] = []
        const worker = client.worker()
        worker.handle(job, (_, { attempt }) => void runs.push({ atMs: nowMs(), attempt }))
        await worker.start()
        const sentMs = nowMs()
        await client.mq.enqueue(job, payload(), { delayMs: delayMs * 2.5 })
        await t.until(
          'the job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        assert.ok(runs[0]!.atMs - sentMs >= delayMs * 2.5 - 2, `it ran after ${runs[0]!.atMs - sentMs} ms`)
        assert.deepEqual(
          runs.map(({ attempt }) => attempt),
          [1],
        )
        const beyond = asked.filter((askedMs) => askedMs > delayMs)
        assert.deepEqual(beyond, [], 'the driver was asked for more than its longest delay')
      },
    },
    {
      name: 'a delay that would outlive the broker’s retention is refused with UNSUPPORTED',
      async run(t) {
        const { mq } = await t.client({ driver: withManifest({ retentionMs: 60_000 }) })
        await expectRejection('enqueue', ['UNSUPPORTED'], () => mq.enqueue(t.job(), payload(), { delayMs: 60_001 }))
      },
    },
    {
      name: 'a snoozed job comes back after its time, without having used an attempt',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const { delayMs } = t.scale
        const runs: { atMs: number; attempt: number }[] = []
        const worker = client.worker()
        worker.handle(job, (_, context) => {
          runs.push({ atMs: nowMs(), attempt: context.attempt })
          if (runs.length < 3) context.snooze(delayMs)
        })
        await client.mq.enqueue(job, payload())
        await worker.start()
        await t.until(
          'the job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        assert.deepEqual(
          runs.map(({ attempt }) => attempt),
          [1, 1, 1],
        )
        const waits = [runs[1]!.atMs - runs[0]!.atMs, runs[2]!.atMs - runs[1]!.atMs]
        for (const waitMs of waits)
          assert.ok(waitMs >= delayMs - 2, `a snooze of ${delayMs} ms ended after ${waitMs} ms`)
      },
    },
    {
      name: 'a handler beyond its timeout is aborted, and its job tried again',
      async run(t) {
        const client = await t.client()
        const job = t.job({ timeoutMs: 50 })
        const reasons: unknown[] = []
        const worker = client.worker()
        worker.handle(job, async (_, { attempt, signal }) => {
          if (attempt > 1) return
          await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
          reasons.push((signal.reason as { code?: string }).code)
          throw signal.reason
        })
        await client.mq.enqueue(job, payload())
        await worker.start()
        await t.until(
          'the retry to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        assert.deepEqual(reasons, ['TIMEOUT'])
        assert.deepEqual(
          client.seen('succeeded').map(({ attempt }) => attempt),
          [2],
        )
      },
    },
    {
      name: 'a handler longer than the broker’s lease and its claim’s keeps both: it runs once',
      gates: [byLease, extends_],
      async run(t) {
        const { leaseMs } = t.scale
        const clients = [await t.client(), await t.client()]
        const job = t.job()
        let [runs, running, most] = [0, 0, 0]
        for (const client of clients) {
          const worker = client.worker({ leaseMs: leaseMs * 2, claimLeaseMs: leaseMs * 2 })
          worker.handle(job, async () => {
            runs++
            most = Math.max(most, ++running)
            await pass(leaseMs * 4)
            running--
          })
          await worker.start()
        }
        await clients[0]!.mq.enqueue(job, payload())
        const succeeded = (): number => clients.reduce((sum, { seen }) => sum + seen('succeeded').length, 0)
        await t.until('the job to succeed', succeeded, (count) => count === 1)
        assert.deepEqual({ runs, most }, { runs: 1, most: 1 })
      },
    },
    {
      name: 'stop waits for what runs, takes nothing new, and hands the rest back without using an attempt',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        await client.mq.enqueueMany(
          job,
          Array.from({ length: 6 }, () => payload()),
        )
        const release = latch()
        let started = 0
        const worker = client.worker({ concurrency: 2, prefetch: 6 })
        worker.handle(job, async () => {
          started++
          await release.opened
        })
        await worker.start()
        await t.until(
          'two to run',
          () => started,
          (count) => count === 2,
        )
        const stopping = worker.stop()
        const again = worker.stop()
        await pass(20)
        assert.deepEqual(client.seen('succeeded'), [], 'stop did not wait')
        release.open()
        await Promise.all([stopping, again])
        assert.equal(client.seen('succeeded').length, 2)
        assert.equal(started, 2, 'started after stop')
        await expectRejection('a second start', ['CLOSED'], () => worker.start())

        const next = await t.client()
        const attempts: number[] = []
        await next
          .worker()
          .handle(job, (_, { attempt }) => void attempts.push(attempt))
          .start()
        await t.until(
          'the rest to succeed',
          () => next.seen('succeeded').length,
          (count) => count === 4,
        )
        assert.deepEqual(attempts, [1, 1, 1, 1])
      },
    },
    {
      name: 'what still runs when the drain time is over is aborted and comes back with the same attempt',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        await client.mq.enqueue(job, payload())
        const reasons: unknown[] = []
        const worker = client.worker()
        worker.handle(job, async (_, { signal }) => {
          await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
          reasons.push((signal.reason as { code?: string }).code)
          throw signal.reason
        })
        await worker.start()
        await t.until(
          'the job to start',
          () => client.seen('started').length,
          (count) => count === 1,
        )
        await worker.stop({ drainMs: 0 })
        assert.deepEqual(reasons, ['ABORTED'])
        const attempts: number[] = []
        const next = await t.client()
        await next
          .worker()
          .handle(job, (_, { attempt }) => void attempts.push(attempt))
          .start()
        await t.until(
          'the job to succeed',
          () => next.seen('succeeded').length,
          (count) => count === 1,
        )
        assert.deepEqual(attempts, [1])
      },
    },
    {
      name: 'a closed client refuses with CLOSED, and closing waits for what was being sent',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const sends = Array.from({ length: 10 }, () => client.mq.enqueue(job, payload()))
        // Composed and on their way before close begins.
        await Promise.all(sends.slice(0, 1))
        await client.mq.close()
        const results = await Promise.allSettled(sends)
        const stored = results.filter(({ status }) => status === 'fulfilled').length
        await expectRejection('enqueue after close', ['CLOSED'], () => client.mq.enqueue(job, payload()))
        const driver = await t.driver()
        const queue = await t.declared(driver, { name: job.queue, group: 'default' })
        const receiver = await t.open(driver, queue)
        await t.take(receiver, stored)
      },
    },
  ],
}
