/** `crashed`: a claim says whether the start before it ended, so that a process-killer can be told from its neighbours. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CaseGroup } from '../case.ts'
import { until } from '../wait.ts'
import { type AnyStoreHarness, longTimes, request, type StoreBench } from './harness.ts'

export const crashCases: CaseGroup<AnyStoreHarness, StoreBench> = {
  name: 'crashes',
  cases: [
    {
      name: "'crashed' is true where the start before never ended and its lease ran out, whoever claims",
      async run(t) {
        const [store, other] = [await t.store(), await t.store()]
        const copy = request()
        const asks = { 'the same copy': copy, 'another job': { ...copy, jobId: randomUUID() } }
        for (const [who, ask] of Object.entries(asks)) {
          await t.claimed(store, { ...copy, key: `${copy.key} ${who}` }, t.shortTimes)
          const answer = await until(
            'the lease to end',
            t.scale.eventuallyMs,
            () => t.claim(other, { ...ask, key: `${copy.key} ${who}` }, longTimes),
            ({ status }) => status === 'claimed',
          )
          assert.equal(answer.status === 'claimed' && answer.crashed, true, who)
        }
      },
    },
    {
      name: "'crashed' is false after a release, a failure, an expiry and a takeover that ended, whoever claims",
      async run(t) {
        const store = await t.store()
        for (const state of ['released', 'failed'] as const) {
          const copy = request()
          const first = await t.claimed(store, copy)
          assert.equal(first.crashed, false, 'a new key')
          await t.ended(store, first.ref, { state })
          const next = await t.claimed(store, { ...copy, jobId: randomUUID() })
          assert.equal(next.crashed, false, `after '${state}'`)
          await t.ended(store, next.ref, { state })
          assert.equal((await t.claimed(store, { ...copy, replay: 1 })).crashed, false, `replayed after '${state}'`)
        }
        const copy = request()
        const times = { leaseMs: t.scale.leaseMs, retentionMs: t.scale.leaseMs }
        await t.claimed(store, copy, times)
        const expired = await until(
          'the row to expire',
          t.scale.eventuallyMs,
          () => t.claim(store, copy, t.shortTimes),
          ({ status }) => status === 'claimed',
        )
        assert.equal(expired.status === 'claimed' && expired.crashed, false, 'after the row expired')
        const takeover = await until(
          'the lease to end',
          t.scale.eventuallyMs,
          () => t.claim(store, copy, longTimes),
          ({ status }) => status === 'claimed',
        )
        assert.ok(takeover.status === 'claimed' && takeover.crashed, 'a takeover')
        const { scope, key } = copy
        await t.ended(store, { scope, key, token: takeover.token }, { state: 'released' })
        assert.equal((await t.claimed(store, copy)).crashed, false, 'the start before ended, the one before it did not')
      },
    },
    {
      name: 'a lapsed claim that was ended after all is no crash',
      async run(t) {
        const store = await t.store()
        const [copy, later] = [request(), request()]
        const late = await t.claimed(store, copy, t.shortTimes)
        // Claimed later and for as long: when it can be taken, the other lease is over too.
        await t.claimed(store, later, t.shortTimes)
        await until(
          'the lease to end',
          t.scale.eventuallyMs,
          () => t.claim(store, later, longTimes),
          ({ status }) => status === 'claimed',
        )
        await t.ended(store, late.ref, { state: 'released' })
        assert.equal((await t.claimed(store, copy)).crashed, false)
      },
    },
  ],
}
