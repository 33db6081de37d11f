/** `holdMs`: after a release, duplicates of a job wait while its retry does. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CaseGroup } from '../case.ts'
import { nowMs, until } from '../wait.ts'
import { type AnyStoreHarness, longMs, request, type StoreBench } from './harness.ts'

export const holdCases: CaseGroup<AnyStoreHarness, StoreBench> = {
  name: 'holds',
  cases: [
    {
      name: 'within the hold of a release other jobs with the key are busy, and hear for how long',
      async run(t) {
        const [store, asking] = [await t.store(), await t.store()]
        const copy = request()
        const { ref } = await t.claimed(store, copy)
        await t.ended(store, ref, { state: 'released', floor: 2, holdMs: longMs })
        const busy = await t.claim(asking, { ...copy, jobId: randomUUID() })
        assert.ok(busy.status === 'busy', `within the hold: ${JSON.stringify(busy)}`)
        assert.ok(
          busy.retryAfterMs > 0 && busy.retryAfterMs <= longMs,
          `retryAfterMs ${busy.retryAfterMs} of ${longMs} ms`,
        )
      },
    },
    {
      name: 'a release with holdMs holds other jobs with the key back, for that long and no longer',
      async run(t) {
        const [store, asking] = [await t.store(), await t.store()]
        const copy = request()
        const other = { ...copy, jobId: randomUUID() }
        const holdMs = t.scale.leaseMs
        const { ref } = await t.claimed(store, copy)
        const releasedMs = nowMs()
        await t.ended(store, ref, { state: 'released', floor: 2, holdMs })
        await until(
          'the hold to end',
          holdMs + t.scale.toleranceMs,
          () => t.claim(asking, other),
          ({ status }) => status === 'claimed',
        )
        assert.ok(nowMs() - releasedMs >= holdMs - 2, `held for ${nowMs() - releasedMs} ms of ${holdMs} ms`)
      },
    },
    {
      name: 'holdMs is not in the way of the job itself: its copies at or above the floor may claim at once',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const first = await t.claimed(store, copy)
        await t.ended(store, first.ref, { state: 'released', floor: 2, holdMs: longMs })
        assert.deepEqual(await t.claim(store, copy), { status: 'stale' }, 'below the floor')
        const second = await t.claimed(store, { ...copy, attempt: 2 })
        assert.deepEqual([second.attempt, second.crashed], [2, false])
        await t.ended(store, second.ref, { state: 'released', floor: 3, holdMs: longMs })
        await t.claimed(store, { ...copy, replay: 1, attempt: 1 })
      },
    },
    {
      name: 'a release with holdMs 0 holds nobody back',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const { ref } = await t.claimed(store, copy)
        await t.ended(store, ref, { state: 'released', floor: 2 })
        await t.claimed(store, { ...copy, jobId: randomUUID() })
      },
    },
    {
      name: 'a hold ends with the claim that follows it: the next release says anew',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const first = await t.claimed(store, copy)
        await t.ended(store, first.ref, { state: 'released', holdMs: longMs })
        const second = await t.claimed(store, copy)
        await t.ended(store, second.ref, { state: 'released' })
        await t.claimed(store, { ...copy, jobId: randomUUID() })
      },
    },
    {
      name: 'another payload under a key that is held is a mismatch all the same',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const { ref } = await t.claimed(store, copy)
        await t.ended(store, ref, { state: 'released', holdMs: longMs })
        const other = { ...copy, jobId: randomUUID(), fingerprint: 'fp-b' }
        assert.deepEqual(await t.claim(store, other), { status: 'mismatch' })
      },
    },
    {
      name: 'completed and failed hold nobody back, whatever their holdMs says',
      async run(t) {
        const store = await t.store()
        const [done, failed] = [request(), request()]
        for (const [copy, state] of [
          [done, 'completed'],
          [failed, 'failed'],
        ] as const) {
          await t.ended(store, (await t.claimed(store, copy)).ref, { state, holdMs: longMs })
        }
        assert.deepEqual(await t.claim(store, { ...done, jobId: randomUUID() }), { status: 'completed' })
        await t.claimed(store, { ...failed, jobId: randomUUID() })
      },
    },
  ],
}
