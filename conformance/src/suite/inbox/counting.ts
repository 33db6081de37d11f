/** Starts are counted per key, whichever copy or job claims it; the floor rises only by `end`. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CaseGroup } from '../case.ts'
import { until } from '../wait.ts'
import { type AnyStoreHarness, longTimes, request, type StoreBench } from './harness.ts'

export const countingCases: CaseGroup<AnyStoreHarness, StoreBench> = {
  name: 'counting',
  cases: [
    {
      name: 'the count of a new key begins at the attempt of the copy',
      async run(t) {
        const store = await t.store()
        assert.equal((await t.claimed(store, request())).attempt, 1)
        assert.equal((await t.claimed(store, request({ attempt: 4 }))).attempt, 4)
      },
    },
    {
      name: 'each claim counts one start, whether the last ended by release or by its lease',
      async run(t) {
        const store = await t.store()
        const copy = request()
        for (let starts = 1; starts <= 3; starts++) {
          const { ref, attempt } = await t.claimed(store, copy)
          assert.equal(attempt, starts, `after ${starts - 1} releases`)
          await t.ended(store, ref, { state: 'released' })
        }
        await t.claimed(store, copy, t.shortTimes)
        const crashed = await until(
          'the lease to end',
          t.scale.eventuallyMs,
          () => t.claim(store, copy),
          ({ status }) => status === 'claimed',
        )
        assert.equal(crashed.status === 'claimed' && crashed.attempt, 5, 'a claim nobody ended is a start')
      },
    },
    {
      name: 'a retry copy and its release count one start between them',
      async run(t) {
        const store = await t.store()
        const first = request()
        const { ref } = await t.claimed(store, first)
        await t.ended(store, ref, { state: 'released', floor: 2 })
        assert.equal((await t.claimed(store, { ...first, attempt: 2 })).attempt, 2)
      },
    },
    {
      name: 'two jobs with one key share the count: neither resets the other',
      async run(t) {
        const store = await t.store()
        const one = request()
        const other = { ...one, jobId: randomUUID() }
        for (let starts = 1; starts <= 6; starts++) {
          const { ref, attempt } = await t.claimed(store, starts % 2 ? one : other)
          assert.equal(attempt, starts)
          await t.ended(store, ref, { state: 'released' })
        }
      },
    },
    {
      name: 'a free end gives the start back',
      async run(t) {
        const store = await t.store()
        const copy = request()
        for (let round = 0; round < 3; round++) {
          const { ref, attempt } = await t.claimed(store, copy)
          assert.equal(attempt, 1, `after ${round} free releases`)
          await t.ended(store, ref, { state: 'released', free: true })
        }
        const counted = await t.claimed(store, copy)
        await t.ended(store, counted.ref, { state: 'released' })
        assert.equal((await t.claimed(store, copy)).attempt, 2, 'a start that was not given back')
      },
    },
    {
      name: 'a replay of the job begins a new series, from any state it may claim',
      async run(t) {
        const store = await t.store()
        for (const state of ['failed', 'released'] as const) {
          const copy = request({ attempt: 5 })
          const { ref } = await t.claimed(store, copy)
          await t.ended(store, ref, { state, floor: 5 })
          const replayed = { ...copy, replay: 1, attempt: 1 }
          const again = await t.claimed(store, replayed)
          assert.equal(again.attempt, 1, `replayed after '${state}'`)
          await t.ended(store, again.ref, { state: 'released', floor: 1 })
          assert.equal((await t.claimed(store, replayed)).attempt, 2, 'the second start of the replay')
        }
      },
    },
    {
      name: 'another job begins a new series after the first failed for good',
      async run(t) {
        const store = await t.store()
        const copy = request({ attempt: 5 })
        const { ref } = await t.claimed(store, copy)
        await t.ended(store, ref, { state: 'failed', floor: 5 })
        assert.equal((await t.claimed(store, { ...copy, jobId: randomUUID(), attempt: 1 })).attempt, 1)
      },
    },
    {
      name: 'a key whose row expired counts anew: what it used before is forgotten',
      async run(t) {
        const store = await t.store()
        const { leaseMs } = t.scale
        for (const state of ['completed', 'failed', 'released'] as const) {
          const copy = request({ attempt: 5 })
          const { ref } = await t.claimed(store, copy)
          await t.ended(store, ref, { state, floor: 5 }, leaseMs)
          const again = { ...copy, jobId: randomUUID(), attempt: 1, fingerprint: 'fp-other' }
          const answer = await until(
            'the row to expire',
            t.scale.eventuallyMs,
            () => t.claim(store, again),
            ({ status }) => status === 'claimed',
          )
          if (answer.status !== 'claimed') continue
          assert.equal(answer.attempt, 1, `a new job after an expired '${state}' would be dead-lettered unstarted`)
        }
      },
    },
    {
      name: 'the floor rises by end, never falls, and bars what is below it',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const first = await t.claimed(store, copy)
        await t.ended(store, first.ref, { state: 'released', floor: 3 })
        assert.deepEqual(await t.claim(store, copy), { status: 'stale' }, 'the attempt whose successor is stored')
        const third = await t.claimed(store, { ...copy, attempt: 3 })
        await t.ended(store, third.ref, { state: 'released', floor: 1 })
        assert.deepEqual(await t.claim(store, { ...copy, attempt: 1 }), { status: 'stale' })
        assert.deepEqual(await t.claim(store, { ...copy, attempt: 2 }), { status: 'stale' })
        assert.equal((await t.claim(store, { ...copy, attempt: 3 })).status, 'claimed')
      },
    },
    {
      name: 'a claim alone bars nothing: after a crash the same copy runs again',
      async run(t) {
        const store = await t.store()
        const copy = request({ attempt: 2 })
        await t.claimed(store, copy, t.shortTimes)
        const again = await until(
          'the lease to end',
          t.scale.eventuallyMs,
          () => t.claim(store, copy, longTimes),
          ({ status }) => status !== 'busy',
        )
        assert.equal(again.status, 'claimed', 'the only copy of a job was refused after a crash')
      },
    },
    {
      name: "a floor is the job's own: it does not bar another job with the same key",
      async run(t) {
        const store = await t.store()
        const copy = request()
        const { ref } = await t.claimed(store, copy)
        await t.ended(store, ref, { state: 'released', floor: 4 })
        const other = { ...copy, jobId: randomUUID() }
        const claimed = await t.claimed(store, other)
        await t.ended(store, claimed.ref, { state: 'released', floor: 1 })
        assert.equal((await t.claim(store, other)).status, 'claimed')
      },
    },
  ],
}
