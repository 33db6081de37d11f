/** Jobs run: once each, within their limits, without holding each other up. */
import assert from 'node:assert/strict'
import type { CaseGroup } from '../case.ts'
import { type DriverHarness, groups, noGroups, noOrdering, ordering } from '../driver/harness.ts'
import { expectRejection } from '../refusal.ts'
import { nowMs } from '../wait.ts'
import { latch, type Payload, payload, type WorkerBench } from './bench.ts'

const payloads = (count: number): Payload[] => Array.from({ length: count }, (_, index) => payload(index))

export const runningCases: CaseGroup<DriverHarness, WorkerBench> = {
  name: 'running',
  cases: [
    {
      name: 'a job runs once with the payload and headers it was enqueued with, and nothing is left of it',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const sent = payload({ text: 'naïve 🧾', list: [1, 2.5, null] })
        const options = { headers: { tenant: 'a' }, correlationId: 'c-1' }
        const { jobId, idempotencyKey } = await client.mq.enqueue(job, sent, options)
        assert.equal(idempotencyKey, sent.key)
        const runs: unknown[] = []
        const worker = client.worker()
        worker.handle(job, (got, { id, key, attempt, replay, headers, correlationId }) => {
          runs.push({ got, id, key, attempt, replay, headers, correlationId })
        })
        await worker.start()
        await t.until(
          'the job to succeed',
          () => client.seen('succeeded').length,
          (count) => count > 0,
        )
        const { stuck, failing } = await t.until(
          'the queue to be empty',
          () => client.mq.status(job.queue),
          (status) => !status.stuck.ready && !status.stuck.inFlight,
        )
        assert.equal(stuck.delayed ?? 0, 0)
        assert.deepEqual(failing.groups, [])
        const identity = { id: jobId, key: sent.key, attempt: 1, replay: 0 }
        assert.deepEqual(runs, [{ got: sent, ...identity, headers: options.headers, correlationId: 'c-1' }])
      },
    },
    {
      name: 'jobs enqueued before and while two workers run are each done once',
      async run(t) {
        const [one, two] = [await t.client(), await t.client()]
        const job = t.job()
        const all = payloads(60)
        const done: string[] = []
        const results = await one.mq.enqueueMany(job, all.slice(0, 30))
        for (const client of [one, two]) {
          const worker = client.worker()
          worker.handle(job, ({ key }) => void done.push(key))
          await worker.start()
        }
        results.push(...(await two.mq.enqueueMany(job, all.slice(30))))
        assert.deepEqual(
          results.map(({ status }) => status),
          all.map(() => 'stored'),
        )
        await t.until(
          'all jobs to be done',
          () => new Set(done).size,
          (count) => count === all.length,
        )
        assert.deepEqual(done.toSorted(), all.map(({ key }) => key).sort())
      },
    },
    {
      name: 'no more handlers run at once than concurrency allows, and all slots are used',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        await client.mq.enqueueMany(job, payloads(20))
        let [running, most, done] = [0, 0, 0]
        const full = latch()
        const worker = client.worker({ concurrency: 4 })
        worker.handle(job, async () => {
          running++
          most = Math.max(most, running)
          if (running === 4) full.open()
          // The first four wait for each other: if fewer ran at once, this would never end.
          await full.opened
          running--
          done++
        })
        await worker.start()
        await t.until(
          'all jobs to be done',
          () => done,
          (count) => count === 20,
        )
        assert.equal(most, 4, 'handlers at once')
      },
    },
    {
      name: 'a slow handler does not hold up the others',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const release = latch()
        let quick = 0
        const worker = client.worker({ concurrency: 2, prefetch: 2 })
        worker.handle(job, async ({ value }) => {
          if (value === 'slow') await release.opened
          else quick++
        })
        await client.mq.enqueue(job, payload('slow'))
        await worker.start()
        await t.until(
          'the slow one to start',
          () => client.seen('started').length,
          (count) => count === 1,
        )
        await client.mq.enqueueMany(job, payloads(15))
        await t.until(
          'the quick ones to be done',
          () => quick,
          (count) => count === 15,
        )
        release.open()
        await t.until(
          'the slow one to be done',
          () => client.seen('succeeded').length,
          (count) => count === 16,
        )
      },
    },
    {
      name: 'jobs of one ordering key run one at a time in order, and other keys beside them',
      gates: [ordering],
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const lanes = ['a', 'b', 'c']
        const order: Record<string, number[]> = { a: [], b: [], c: [] }
        let running = 0
        const busy = new Set<string>()
        const together = latch()
        for (let index = 0; index < 6; index++) {
          for (const lane of lanes) await client.mq.enqueue(job, payload({ lane, index }), { orderingKey: lane })
        }
        const worker = client.worker({ concurrency: 10 })
        worker.handle(job, async ({ value }) => {
          const { lane, index } = value as { lane: string; index: number }
          assert.ok(!busy.has(lane), `two jobs of key ${lane} ran at once`)
          busy.add(lane)
          if (++running === lanes.length) together.open()
          await together.opened
          order[lane]?.push(index)
          running--
          busy.delete(lane)
        })
        await worker.start()
        await t.until(
          'all jobs to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 18,
        )
        const inOrder = [0, 1, 2, 3, 4, 5]
        assert.deepEqual(order, { a: inOrder, b: inOrder, c: inOrder })
      },
    },
    {
      name: 'an ordering key is refused with UNSUPPORTED at enqueue, and nothing is sent',
      gates: [noOrdering],
      async run(t) {
        const { mq } = await t.client()
        const job = t.job()
        await expectRejection('enqueue with orderingKey', ['UNSUPPORTED'], () =>
          mq.enqueue(job, payload(), { orderingKey: 'a' }),
        )
        const driver = await t.driver()
        const queue = await t.declared(driver, { name: job.queue, group: 'default' })
        const receiver = await t.open(driver, queue)
        assert.deepEqual(await receiver.receive(1, 0, t.signal), [])
      },
    },
    {
      name: 'every group of workers does every job, and a retry of one is not seen by the other',
      gates: [groups],
      async run(t) {
        const job = t.job()
        const runs: Record<string, number[]> = { email: [], audit: [] }
        const clients = [await t.client(), await t.client()]
        for (const [index, group] of ['email', 'audit'].entries()) {
          const worker = clients[index]!.worker({ group })
          worker.handle(job, (_, { attempt }) => {
            runs[group]?.push(attempt)
            if (group === 'email' && attempt === 1) throw new Error('mail server')
          })
          await worker.start()
        }
        const producer = await t.client()
        await producer.mq.enqueue(job, payload())
        const succeeded = (): number => clients.reduce((sum, { seen }) => sum + seen('succeeded').length, 0)
        await t.until('both groups to succeed', succeeded, (count) => count === 2)
        assert.deepEqual(runs, { email: [1, 2], audit: [1] })
      },
    },
    {
      name: 'a group is refused with UNSUPPORTED when the worker starts, and for dead letters',
      gates: [noGroups],
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const worker = client.worker({ group: 'email' }).handle(job, () => {})
        await expectRejection('a worker with a group', ['UNSUPPORTED'], () => worker.start())
        await expectRejection('dead letters of a group', ['UNSUPPORTED'], async () =>
          client.mq.deadLetters(job.queue, { group: 'email' }),
        )
      },
    },
    {
      name: 'a job enqueued while the worker waits starts promptly',
      async run(t) {
        const client = await t.client()
        const producer = await t.client()
        const job = t.job()
        let startedMs = 0
        const worker = client.worker()
        worker.handle(job, () => {
          startedMs = nowMs()
        })
        await worker.start()
        const sentMs = nowMs()
        await producer.mq.enqueue(job, payload())
        await t.until(
          'the job to start',
          () => startedMs,
          (at) => at > 0,
        )
        const tookMs = startedMs - sentMs
        assert.ok(tookMs <= t.scale.toleranceMs, `it took ${tookMs} ms from enqueue to start on an idle worker`)
      },
    },
  ],
}
