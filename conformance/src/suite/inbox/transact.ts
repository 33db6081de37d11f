/** Transactions: the effect and its end are one commit, or neither happened. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { type ClaimRef, IdemqError, type InboxStore } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { within } from '../case.ts'
import { abortedSignals, expectCode, expectRejection } from '../refusal.ts'
import { until } from '../wait.ts'
import {
  type AnyStoreHarness,
  endOf,
  longMs,
  longTimes,
  request,
  type StoreBench,
  type TestEffects,
  transactions,
} from './harness.ts'

type Outcome = Awaited<ReturnType<NonNullable<InboxStore<never>['transact']>>>

function effectsOf(t: StoreBench): TestEffects<never> {
  assert.ok(t.harness.effects, 'a store with transactions needs harness.effects')
  return t.harness.effects
}

/** Writes the effects `ids`, then ends `ref` as completed with `result`. */
async function transact(
  t: StoreBench,
  store: InboxStore<never>,
  ref: ClaimRef,
  ids: readonly string[],
  result = '"done"',
): Promise<Outcome> {
  assert.ok(store.transact, 'transact is missing')
  const { write } = effectsOf(t)
  return store.transact(
    async (tx) => {
      for (const id of ids) await write(tx, id)
      return result
    },
    (value) => endOf(ref, { state: 'completed', result: value }),
    longMs,
    t.signal,
  )
}

export const transactCases: CaseGroup<AnyStoreHarness, StoreBench> = {
  name: 'transactions',
  cases: [
    {
      name: 'the effect and the completion are committed together, and the value is passed on',
      gates: [transactions],
      async run(t) {
        const store = await t.store()
        const copy = request()
        const { ref } = await t.claimed(store, copy)
        const ids = [randomUUID(), randomUUID()]
        assert.deepEqual(await transact(t, store, ref, ids, '{"n":1}'), { status: 'committed', value: '{"n":1}' })
        for (const id of ids) assert.equal(await effectsOf(t).count(id), 1)
        assert.deepEqual(await t.claim(await t.store(), copy), { status: 'completed', result: '{"n":1}' })
      },
    },
    {
      name: 'a claim that was lost rolls the effect back',
      gates: [transactions],
      async run(t) {
        const store = await t.store()
        const copy = request()
        const loser = await t.claimed(store, copy, t.shortTimes)
        const taken = await until(
          'a lapsed claim to be claimable',
          t.scale.eventuallyMs,
          () => t.claim(store, copy, longTimes),
          ({ status }) => status === 'claimed',
        )
        assert.ok(taken.status === 'claimed')
        const id = randomUUID()
        assert.deepEqual(await transact(t, store, loser.ref, [id]), { status: 'lost' })
        assert.equal(await effectsOf(t).count(id), 0, 'the effect of a lost claim was committed')
        const held = await store.renew([{ ...loser.ref, token: taken.token }], longMs, t.signal)
        assert.deepEqual(held, ['held'], 'the new holder was disturbed')
      },
    },
    {
      name: 'an effect that throws is rolled back, its error passed on, and the claim still held',
      gates: [transactions],
      async run(t) {
        const store = await t.store()
        const copy = request()
        const { ref } = await t.claimed(store, copy)
        const id = randomUUID()
        const thrown = new Error('out of stock')
        assert.ok(store.transact)
        const work = store.transact(
          async (tx) => {
            await effectsOf(t).write(tx, id)
            throw thrown
          },
          () => endOf(ref, { state: 'completed' }),
          longMs,
          t.signal,
        )
        await assert.rejects(work, (error) => error === thrown)
        assert.equal(await effectsOf(t).count(id), 0, 'the effect was committed though it threw')
        await t.ended(store, ref, { state: 'released', floor: 2 })
        assert.equal((await t.claimed(store, { ...copy, attempt: 2 })).attempt, 2)
      },
    },
    {
      name: 'an effect made twice under one claim is committed once',
      gates: [transactions],
      async run(t) {
        const store = await t.store()
        const { ref } = await t.claimed(store, request())
        const id = randomUUID()
        const outcomes = await Promise.all([transact(t, store, ref, [id]), transact(t, store, ref, [id])])
        assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['committed', 'lost'])
        assert.equal(await effectsOf(t).count(id), 1)
      },
    },
    {
      name: 'transactions at once on different keys are all committed',
      gates: [transactions],
      async run(t) {
        const stores = [await t.store(), await t.store()]
        const ids = Array.from({ length: 10 }, () => randomUUID())
        const work = ids.map(async (id, at) => {
          const store = stores[at % 2]!
          const { ref } = await t.claimed(store, request())
          return (await transact(t, store, ref, [id])).status
        })
        assert.deepEqual(
          await Promise.all(work),
          ids.map(() => 'committed'),
        )
        for (const id of ids) assert.equal(await effectsOf(t).count(id), 1)
      },
    },
    {
      name: 'a signal that is already aborted is refused with its reason, ABORTED if none of ours, or the commit holds',
      gates: [transactions],
      async run(t) {
        const store = await t.store()
        for (const { signal, code } of abortedSignals()) {
          const { ref } = await t.claimed(store, request())
          const id = randomUUID()
          assert.ok(store.transact)
          const work = store.transact(
            async (tx) => effectsOf(t).write(tx, id),
            () => endOf(ref, { state: 'completed' }),
            longMs,
            signal,
          )
          const outcome = await work.catch((error: unknown) => void expectCode('an aborted transaction', [code], error))
          assert.notEqual(outcome?.status, 'lost')
          assert.equal(await effectsOf(t).count(id), outcome ? 1 : 0, 'the effect and the answer differ')
        }
      },
    },
    {
      name: 'an abort while the effect runs rolls it back at once, though it listens to nothing, and refuses what it does next',
      gates: [transactions],
      async run(t) {
        const store = await t.store()
        const { ref } = await t.claimed(store, request())
        const { write, count } = effectsOf(t)
        const [early, late] = [randomUUID(), randomUUID()]
        const abort = new AbortController()
        const goOn = Promise.withResolvers<void>()
        const next = Promise.withResolvers<'accepted' | 'refused'>()
        const effect = async (tx: never): Promise<void> => {
          await write(tx, early)
          abort.abort(new IdemqError('TIMEOUT', 'the handler took too long'))
          await goOn.promise
          await write(tx, late).then(
            () => next.resolve('accepted'),
            () => next.resolve('refused'),
          )
        }
        assert.ok(store.transact)
        const work = store.transact(effect, () => endOf(ref, { state: 'completed' }), longMs, abort.signal)
        try {
          await expectRejection('an aborted transaction', ['TIMEOUT'], () =>
            within(t.scale.toleranceMs, 'a transaction to end on abort', work),
          )
          assert.equal(await count(early), 0, 'rolled back')
          assert.deepEqual(await store.renew([ref], longMs, t.signal), ['held'], 'the claim is still ours')
        } finally {
          goOn.resolve()
        }
        assert.equal(await next.promise, 'refused', 'a write after the transaction ended')
        assert.deepEqual([await count(early), await count(late)], [0, 0])
        await t.ended(store, ref, { state: 'released' })
      },
    },
  ],
}
