/** Setting up and cleaning up: the manifest, preparation, purge, close. */
import assert from 'node:assert/strict'
import type { CaseGroup } from '../case.ts'
import { within } from '../case.ts'
import { abortedSignals, expectCode, expectRejection } from '../refusal.ts'
import { pass, until } from '../wait.ts'
import { type AnyStoreHarness, expiresByPurge, longTimes, request, type StoreBench, unprepared } from './harness.ts'

export const setUpCases: CaseGroup<AnyStoreHarness, StoreBench> = {
  name: 'set-up',
  cases: [
    {
      name: 'the store has the manifest that the harness states, and transact if and only if it says so',
      async run(t) {
        const store = await t.store()
        assert.deepEqual(store.capabilities, t.harness.capabilities)
        assert.equal(store.transact !== undefined, t.harness.capabilities.transactions, 'transact is there')
      },
    },
    {
      name: 'prepare is idempotent, keeps what is there, and may run at once from two connections',
      async run(t) {
        const [one, two] = [await t.store(), await t.store()]
        const copy = request()
        await t.ended(one, (await t.claimed(one, copy)).ref, { state: 'completed' })
        await Promise.all([one, two, one].map((store) => store.prepare('create', t.signal)))
        await two.prepare('check', t.signal)
        assert.deepEqual(await t.claim(two, copy), { status: 'completed' })
      },
    },
    {
      name: "prepare 'check' refuses a database where nothing was prepared with QUEUE_MISSING, and creates nothing",
      gates: [unprepared],
      async run(t) {
        const store = await t.store(t.harness.createUnpreparedStore, 'unprepared')
        for (const look of ['first', 'second']) {
          await expectRejection(`${look} check`, ['QUEUE_MISSING'], () => store.prepare('check', t.signal))
        }
        await store.prepare('create', t.signal)
        await store.prepare('check', t.signal)
        await t.claimed(store, request())
      },
    },
    {
      name: 'what one connection ended, a later one knows',
      async run(t) {
        const first = await t.harness.createStore()
        await first.prepare('create', t.signal)
        const copy = request()
        await t.ended(first, (await t.claimed(first, copy)).ref, { state: 'completed', result: '1' })
        await first.close()
        assert.deepEqual(await t.claim(await t.store(), copy), { status: 'completed', result: '1' })
      },
    },
    {
      name: 'purge deletes rows past their retention, at most max at a time, and no others',
      gates: [expiresByPurge],
      async run(t) {
        const store = await t.store()
        const kept = request()
        const held = request()
        const soonGone = { leaseMs: 1, retentionMs: 1 }
        await t.ended(store, (await t.claimed(store, kept, soonGone)).ref, { state: 'completed' })
        const holding = await t.claimed(store, held)
        for (let row = 0; row < 5; row++) {
          await t.ended(store, (await t.claimed(store, request())).ref, { state: 'completed' }, 1)
        }
        await pass(t.scale.delayMs)
        let purged = 0
        await until(
          'purge to find nothing more',
          t.scale.eventuallyMs,
          async () => {
            const count = await store.purge(2, t.signal)
            assert.ok(count >= 0 && count <= 2, `purge(2) deleted ${count}`)
            purged += count
            return count
          },
          (count) => count === 0,
        )
        assert.ok(purged >= 5, `purge deleted ${purged} of at least 5 rows past their retention`)
        assert.deepEqual(await t.claim(store, kept), { status: 'completed' }, 'a row within its retention')
        await t.ended(store, holding.ref, { state: 'completed' })
      },
    },
    {
      name: 'retention counts from the last change of a row',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const { ref } = await t.claimed(store, copy, { leaseMs: 1, retentionMs: t.scale.delayMs })
        await t.ended(store, ref, { state: 'completed' })
        await pass(t.scale.delayMs * 2)
        assert.deepEqual(await t.claim(store, copy), { status: 'completed' })
      },
    },
    {
      name: 'close is idempotent, and calls after it are refused with CLOSED',
      async run(t) {
        const store = await t.store()
        await store.close()
        await store.close()
        await expectRejection('claim after close', ['CLOSED'], () => store.claim([request()], longTimes, t.signal))
      },
    },
    {
      name: 'a call whose signal is already aborted ends at once: with its reason, ABORTED if none of ours, or an answer that holds',
      async run(t) {
        const store = await t.store()
        for (const { signal, code } of abortedSignals()) {
          const copy = request()
          const ended = within(t.scale.toleranceMs, 'an aborted claim to end', store.claim([copy], longTimes, signal))
          const answers = await ended.catch((error: unknown) => void expectCode('an aborted claim', [code], error))
          if (!answers) continue
          assert.equal(answers[0]?.status, 'claimed')
          assert.equal((await t.claim(store, copy)).status, 'busy', 'it was answered that it is claimed')
        }
      },
    },
  ],
}
