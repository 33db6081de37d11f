/** What cannot hold is refused when the worker starts, before anything is consumed. */
import assert from 'node:assert/strict'
import { byJobId, connect, noInbox } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import type { DriverHarness } from '../driver/harness.ts'
import { expectRejection } from '../refusal.ts'
import { payload, type WorkerBench, withManifest } from './bench.ts'

export const refusalCases: CaseGroup<DriverHarness, WorkerBench> = {
  name: 'refusals',
  cases: [
    {
      name: 'a worker without an inbox is refused with INBOX_REQUIRED',
      async run(t) {
        const mq = await connect(await t.driver())
        const worker = mq.worker().handle(t.job(), () => {})
        await expectRejection('start', ['INBOX_REQUIRED'], () => worker.start())
      },
    },
    {
      name: 'without an inbox a business key is refused with UNSUPPORTED',
      async run(t) {
        const mq = await connect(await t.driver())
        const worker = mq.worker({ inbox: noInbox() }).handle(t.job(), () => {})
        await expectRejection('start', ['UNSUPPORTED'], () => worker.start())
      },
    },
    {
      name: 'without an inbox a broker that counts nothing is refused with UNSUPPORTED',
      async run(t) {
        const client = await t.client({ driver: withManifest({ counts: 'none' }) })
        const job = t.job({ idempotencyKey: byJobId })
        const worker = client.worker({ inbox: noInbox() }).handle(job, () => {})
        await expectRejection('start', ['UNSUPPORTED'], () => worker.start())
      },
    },
    {
      name: 'a timeout beyond what the broker holds is refused with UNSUPPORTED',
      async run(t) {
        const beyondHold = await t.client({ driver: withManifest({ maxHoldMs: 5_000 }) })
        const job = t.job({ timeoutMs: 5_000 })
        const worker = beyondHold.worker({ graceMs: 1 }).handle(job, () => {})
        await expectRejection('start', ['UNSUPPORTED'], () => worker.start())
        const beyondLease = await t.client({ driver: withManifest({ returnsBy: 'lease', canExtend: false }) })
        const other = beyondLease.worker({ leaseMs: 5_000, graceMs: 1 }).handle(job, () => {})
        await expectRejection('start', ['UNSUPPORTED'], () => other.start())
      },
    },
    {
      name: 'handleInTransaction is done in one commit where the inbox has transactions, else refused with UNSUPPORTED',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const sent = payload()
        let runs = 0
        const worker = client.worker().handleInTransaction(job, (_, { attempt }) => {
          runs++
          if (attempt === 1) throw new Error('rolled back')
        })
        if (!client.inbox.capabilities.transactions) {
          await expectRejection('start', ['UNSUPPORTED'], () => worker.start())
          return
        }
        await worker.start()
        await client.mq.enqueue(job, sent)
        await t.until(
          'the job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        await client.mq.enqueue(job, sent)
        await t.until(
          'its duplicate to be seen',
          () => client.seen('deduplicated').length,
          (count) => count === 1,
        )
        assert.equal(runs, 2)
      },
    },
  ],
}
