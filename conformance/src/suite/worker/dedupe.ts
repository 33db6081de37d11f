/** Duplicates: of an action, of a delivery, in a row and at once. The effect happens once. */
import assert from 'node:assert/strict'
import { byJobId, type Driver, type InboxStore, type Settled } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { byLease, type DriverHarness } from '../driver/harness.ts'
import { payload, type WorkerBench, withChanges } from './bench.ts'

/** An inbox that says once that a claim is somebody else's. */
function losesOneRenewal(lose: () => boolean): (inbox: InboxStore) => InboxStore {
  let lost = false
  return (inbox) =>
    withChanges(inbox, {
      async renew(batch, leaseMs, signal) {
        if (lost || !lose()) return inbox.renew(batch, leaseMs, signal)
        lost = true
        return batch.map(() => 'lost')
      },
    })
}

/** A driver whose first settlement gets lost on the way to the broker. */
function losesFirstAck(driver: Driver): Driver {
  let lost = false
  return withChanges(driver, {
    async open(...args) {
      const receiver = await driver.open(...args)
      return withChanges(receiver, {
        async settle(batch, signal): Promise<Settled[]> {
          if (lost) return receiver.settle(batch, signal)
          lost = true
          return batch.map(() => ({ status: 'unknown' }))
        },
      })
    },
  })
}

export const dedupeCases: CaseGroup<DriverHarness, WorkerBench> = {
  name: 'dedupe',
  cases: [
    {
      name: 'two jobs with one key, one after the other and on two workers: the second is deduplicated',
      async run(t) {
        const [one, two] = [await t.client(), await t.client()]
        const job = t.job()
        const sent = payload()
        let runs = 0
        const first = one.worker().handle(job, () => void runs++)
        await first.start()
        await one.mq.enqueue(job, sent)
        await t.until(
          'the first to succeed',
          () => one.seen('succeeded').length,
          (count) => count === 1,
        )
        // Drained: what the first worker knew is in the inbox now, and nowhere else.
        await first.stop()
        await two
          .worker()
          .handle(job, () => void runs++)
          .start()
        await two.mq.enqueue(job, sent)
        await t.until(
          'the second to be deduplicated',
          () => two.seen('deduplicated').length,
          (count) => count === 1,
        )
        assert.equal(runs, 1)
      },
    },
    {
      name: 'fifty jobs with one key, at once, on two workers: one runs, the others are deduplicated, none is dead',
      async run(t) {
        const clients = [await t.client(), await t.client()]
        const job = t.job()
        const sent = payload()
        let [runs, running, most] = [0, 0, 0]
        for (const client of clients) {
          const worker = client.worker()
          worker.handle(job, async () => {
            runs++
            most = Math.max(most, ++running)
            await new Promise((resolve) => setTimeout(resolve, 30))
            running--
          })
          await worker.start()
        }
        await clients[0]!.mq.enqueueMany(
          job,
          Array.from({ length: 50 }, () => sent),
        )
        const ended = (): number =>
          clients.reduce((sum, { seen }) => sum + seen('succeeded').length + seen('deduplicated').length, 0)
        await t.until('all fifty to end', ended, (count) => count === 50)
        assert.equal(runs, 1, 'runs of one key')
        assert.equal(most, 1)
        await t.dead(clients[0]!.mq, job, 0)
      },
    },
    {
      name: 'the same job id twice, without a business key, is one job',
      async run(t) {
        const client = await t.client()
        const job = t.job({ idempotencyKey: byJobId })
        const sent = payload()
        const { jobId } = await client.mq.enqueue(job, sent)
        await client.mq.enqueue(job, sent, { jobId })
        let runs = 0
        const worker = client.worker()
        worker.handle(job, () => void runs++)
        await worker.start()
        // While the first is not settled a repeat changes nothing at the broker: it may take more than one.
        await t.until(
          'a repeat to be deduplicated',
          async () => {
            await client.mq.enqueue(job, sent, { jobId })
            return client.seen('deduplicated').length
          },
          (count) => count > 0,
        )
        assert.equal(runs, 1)
      },
    },
    {
      name: 'the same key with another payload is dead-lettered as a mismatch, and the first stands',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const { key } = payload()
        const runs: unknown[] = []
        const worker = client.worker()
        worker.handle(job, ({ value }) => void runs.push(value))
        await worker.start()
        await client.mq.enqueue(job, { key, value: 'first' })
        await t.until(
          'the first to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        await client.mq.enqueue(job, { key, value: 'other' })
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(letter?.reason, 'key_mismatch')
        assert.deepEqual(letter.envelope?.payload, { key, value: 'other' })
        assert.deepEqual(runs, ['first'])
      },
    },
    {
      name: 'a job whose ack was lost is delivered again and not run again',
      gates: [byLease],
      async run(t) {
        const client = await t.client({ driver: losesFirstAck })
        const job = t.job()
        await client.mq.enqueue(job, payload())
        let runs = 0
        const worker = client.worker({ leaseMs: t.scale.leaseMs })
        worker.handle(job, () => void runs++)
        await worker.start()
        await t.until(
          'the redelivery to be deduplicated',
          () => client.seen('deduplicated').length,
          (count) => count > 0,
        )
        assert.equal(runs, 1)
      },
    },
    {
      name: 'results of steps are kept: a retry skips what was done, and the key for a provider stays the same',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const sent = payload()
        await client.mq.enqueue(job, sent)
        const keys: string[] = []
        const results: unknown[] = []
        const worker = client.worker()
        worker.handle(job, async (_, context) => {
          const charge = await context.step('charge', ({ idempotencyKey }) => {
            keys.push(idempotencyKey)
            return { id: 'ch_1' }
          })
          const mail = await context.step('mail', ({ idempotencyKey }) => {
            keys.push(idempotencyKey)
            if (context.attempt === 1) throw new Error('mail server')
            return 'sent'
          })
          results.push([charge, mail])
        })
        await worker.start()
        await t.until(
          'the job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        assert.deepEqual(keys, [`${sent.key}/charge`, `${sent.key}/mail`, `${sent.key}/mail`])
        assert.deepEqual(results, [[{ id: 'ch_1' }, 'sent']])
      },
    },
    {
      name: 'who loses its claim has its signal aborted and records nothing; the job is done by the next',
      async run(t) {
        let running = false
        const client = await t.client({ inbox: losesOneRenewal(() => running) })
        const job = t.job()
        await client.mq.enqueue(job, payload())
        const aborted: unknown[] = []
        const worker = client.worker({ claimLeaseMs: t.scale.leaseMs })
        worker.handle(job, async (_, { attempt, signal }) => {
          if (attempt > 1) return
          running = true
          await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
          aborted.push((signal.reason as { code?: string }).code)
          throw signal.reason
        })
        await worker.start()
        await t.until(
          'the next start to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        assert.deepEqual(aborted, ['CLAIM_LOST'])
        assert.equal(client.seen('claim_lost').length, 1)
        assert.deepEqual(
          client.seen('succeeded').map(({ attempt }) => attempt),
          [2],
        )
      },
    },
  ],
}
