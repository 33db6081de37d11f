/** Batches: answers in order, each for its own key; at once from several connections, exactly one wins a key. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { ClaimAnswer, ClaimRequest } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { pass } from '../wait.ts'
import { type AnyStoreHarness, endOf, longMs, longTimes, request, type StoreBench } from './harness.ts'

const winners = (answers: readonly ClaimAnswer[]): number => answers.filter(({ status }) => status === 'claimed').length

export const batchCases: CaseGroup<AnyStoreHarness, StoreBench> = {
  name: 'batches',
  cases: [
    {
      name: 'one batch may get every kind of answer, in order, results with the completed ones',
      async run(t) {
        const store = await t.store()
        const [fresh, busy, completed, plain, stale, mismatch] = Array.from({ length: 6 }, () => request()) as [
          ClaimRequest,
          ClaimRequest,
          ClaimRequest,
          ClaimRequest,
          ClaimRequest,
          ClaimRequest,
        ]
        await t.claimed(store, busy)
        await t.ended(store, (await t.claimed(store, completed)).ref, { state: 'completed', result: '{"id":"ch_1"}' })
        await t.ended(store, (await t.claimed(store, plain)).ref, { state: 'completed' })
        await t.ended(store, (await t.claimed(store, stale)).ref, { state: 'released', floor: 2 })
        await t.ended(store, (await t.claimed(store, mismatch)).ref, { state: 'completed' })
        const batch = [busy, completed, fresh, { ...mismatch, fingerprint: 'fp-b' }, stale, plain]
        const answers = await store.claim(batch, longTimes, t.signal)
        assert.deepEqual(
          answers.map(({ status }) => status),
          ['busy', 'completed', 'claimed', 'mismatch', 'stale', 'completed'],
        )
        assert.deepEqual(answers[1], { status: 'completed', result: '{"id":"ch_1"}' })
        assert.deepEqual(answers[5], { status: 'completed' }, 'no result was kept, so none is told')
      },
    },
    {
      name: 'keys of 1,024 characters, of more bytes than an index may hold, are told apart and harm no neighbour',
      async run(t) {
        const store = await t.store()
        // Nothing that compresses: letters of three bytes, drawn at random.
        const long = (): string =>
          String.fromCharCode(...Array.from({ length: 1_023 }, () => 0x4e00 + Math.floor(Math.random() * 20_000)))
        const stem = long()
        const batch = [request(), request({ key: `${stem}a` }), request({ key: `${stem}b` })]
        const [short, one, two] = await store.claim(batch, longTimes, t.signal)
        assert.deepEqual(
          [short, one, two].map((answer) => answer?.status),
          ['claimed', 'claimed', 'claimed'],
        )
        assert.ok(one?.status === 'claimed')
        const ref = { scope: batch[1]!.scope, key: batch[1]!.key, token: one.token }
        assert.deepEqual(await store.renew([ref], longMs, t.signal), ['held'])
        await t.ended(store, ref, { state: 'completed', result: '1' })
        assert.deepEqual(await t.claim(store, batch[1]!), { status: 'completed', result: '1' })
        assert.equal((await t.claim(store, batch[2]!)).status, 'busy')
      },
    },
    {
      name: 'a large batch is answered in order, and each end is its own: states mixed',
      async run(t) {
        const store = await t.store()
        const batch = Array.from({ length: 150 }, () => request())
        const answers = await store.claim(batch, longTimes, t.signal)
        assert.equal(winners(answers), batch.length)
        const refs = answers.map((answer, index) => {
          assert.ok(answer.status === 'claimed')
          const { scope, key } = batch[index]!
          return { scope, key, token: answer.token }
        })
        assert.deepEqual(
          await store.renew(refs, longMs, t.signal),
          refs.map(() => 'held'),
        )
        const states = ['completed', 'failed', 'released'] as const
        // Every fourth under a token of its neighbour: lost, whatever stands beside it.
        const ends = refs.map((ref, index) => {
          const token = index % 4 === 3 ? refs[index - 1]!.token : ref.token
          return endOf({ ...ref, token }, { state: states[index % 3]!, result: `"${index}"` })
        })
        const held = await store.end(ends, longMs, t.signal)
        assert.deepEqual(
          held,
          refs.map((_, index) => (index % 4 === 3 ? 'lost' : 'held')),
        )
        const after = await store.claim(batch, longTimes, t.signal)
        const expected = batch.map((_, index): ClaimAnswer['status'] => {
          if (index % 4 === 3) return 'busy'
          return (['completed', 'stale', 'claimed'] as const)[index % 3]!
        })
        assert.deepEqual(
          after.map(({ status }) => status),
          expected,
        )
        for (const [index, answer] of after.entries()) {
          if (answer.status === 'completed') assert.equal(answer.result, `"${index}"`)
        }
      },
    },
    {
      name: 'fifty claims of one new key at once, from two connections: exactly one wins, the rest are busy',
      async run(t) {
        const stores = [await t.store(), await t.store()]
        const key = request().key
        const claims = Array.from({ length: 50 }, (_, at) =>
          t.claim(stores[at % 2]!, request({ key, jobId: randomUUID() })),
        )
        const answers = await Promise.all(claims)
        assert.equal(winners(answers), 1)
        assert.equal(answers.filter(({ status }) => status === 'busy').length, 49)
      },
    },
    {
      name: 'fifty claims of one lapsed key at once, from two connections: exactly one wins',
      async run(t) {
        const stores = [await t.store(), await t.store()]
        const { key } = request()
        await t.claimed(stores[0]!, request({ key }), t.shortTimes)
        await pass(t.scale.leaseMs * 1.2)
        const claims = Array.from({ length: 50 }, (_, at) => t.claim(stores[at % 2]!, request({ key })))
        assert.equal(winners(await Promise.all(claims)), 1)
      },
    },
    {
      name: 'a renewal and a takeover of a lapsed claim at once: one of them has it, never both',
      async run(t) {
        const [holder, taker] = [await t.store(), await t.store()]
        const copies = Array.from({ length: 10 }, () => request())
        const held = await Promise.all(copies.map((copy) => t.claimed(holder, copy, t.shortTimes)))
        await pass(t.scale.leaseMs * 1.2)
        const rounds = copies.map(async (copy, index) => {
          const [renewed, taken] = await Promise.all([
            holder.renew([held[index]!.ref], longMs, t.signal),
            t.claim(taker, copy),
          ])
          return [renewed[0], taken.status].join(' and ')
        })
        for (const outcome of await Promise.all(rounds)) {
          assert.ok(outcome === 'held and busy' || outcome === 'lost and claimed', `renewal and takeover: ${outcome}`)
        }
      },
    },
    {
      name: 'batches with the same keys in opposite orders, at once from two connections, do not lock each other',
      async run(t) {
        const stores = [await t.store(), await t.store()]
        const keys = Array.from({ length: 20 }, () => request().key)
        const batches = Array.from({ length: 12 }, (_, round) => {
          const ordered = round % 2 ? keys : keys.toReversed()
          return ordered.map((key) => request({ key }))
        })
        const answers = await Promise.all(batches.map((batch, at) => stores[at % 2]!.claim(batch, longTimes, t.signal)))
        const wins = new Map<string, number>()
        for (const [round, batch] of batches.entries()) {
          for (const [index, { key }] of batch.entries()) {
            if (answers[round]![index]!.status === 'claimed') wins.set(key, (wins.get(key) ?? 0) + 1)
          }
        }
        assert.deepEqual(
          keys.map((key) => wins.get(key)),
          keys.map(() => 1),
        )
      },
    },
    {
      name: 'keys are apart by scope, whatever characters they are made of',
      async run(t) {
        const store = await t.store()
        const id = randomUUID()
        const pairs = [
          ['a/b', `c-${id}`],
          ['a', `b/c-${id}`],
          ['a/b\n', `c-${id}`],
          ['a/b', `\nc-${id}`],
          ['A/b', `c-${id}`],
          ['a/b', `C-${id}`],
          ['a/b', `c-${id} `],
          ['a/b', `'; DROP TABLE x; -- ${id}`],
          ['a/b', `Ω🧾"\\%_*?[${id}`],
          ['a/b', `\u00e9-${id}`],
          ['a/b', `e\u0301-${id}`],
          ['a/b', `${id}${'k'.repeat(1024 - id.length)}`],
        ] as const
        const answers = await store.claim(
          pairs.map(([scope, key]) => request({ scope, key })),
          longTimes,
          t.signal,
        )
        assert.deepEqual(
          answers.map(({ status }) => status),
          pairs.map(() => 'claimed'),
        )
        const again = await store.claim(
          pairs.map(([scope, key]) => request({ scope, key })),
          longTimes,
          t.signal,
        )
        assert.deepEqual(
          again.map(({ status }) => status),
          pairs.map(() => 'busy'),
        )
      },
    },
    {
      name: 'results are kept as they are, up to 64 KiB, and any JSON',
      async run(t) {
        const store = await t.store()
        for (const result of ['null', '""', '{"a":[1,2.50,"Ω"]}', JSON.stringify('x'.repeat(65_000))]) {
          const copy = request()
          await t.ended(store, (await t.claimed(store, copy)).ref, { state: 'completed', result })
          const answer = await t.claim(await t.store(), copy)
          assert.ok(answer.status === 'completed')
          assert.deepEqual(JSON.parse(answer.result ?? 'undefined'), JSON.parse(result))
        }
      },
    },
  ],
}
