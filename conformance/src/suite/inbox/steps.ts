/** Step results: written under the token, kept through retries and replays, gone with the row. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CaseGroup } from '../case.ts'
import { until } from '../wait.ts'
import { type AnyStoreHarness, longTimes, request, type StoreBench } from './harness.ts'

export const stepCases: CaseGroup<AnyStoreHarness, StoreBench> = {
  name: 'steps',
  cases: [
    {
      name: 'recorded steps come with every later claim of the key: after a release, a crash and a replay',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const first = await t.claimed(store, copy)
        assert.deepEqual(first.steps, {})
        assert.deepEqual(await store.record([{ ...first.ref, step: 'charge', result: '{"id":1}' }], t.signal), ['held'])
        await t.ended(store, first.ref, { state: 'released', floor: 2 })

        const other = await t.store()
        const second = await t.claimed(other, { ...copy, attempt: 2 }, t.shortTimes)
        assert.deepEqual(second.steps, { charge: '{"id":1}' }, 'after a release')
        await other.record([{ ...second.ref, step: 'mail', result: 'null' }], t.signal)
        const both = { charge: '{"id":1}', mail: 'null' }
        const crashed = await until(
          'the lease to end',
          t.scale.eventuallyMs,
          () => t.claim(store, { ...copy, attempt: 2 }),
          ({ status }) => status === 'claimed',
        )
        assert.ok(crashed.status === 'claimed')
        assert.deepEqual(crashed.steps, both, 'after a crash')

        const { scope, key } = copy
        await t.ended(store, { scope, key, token: crashed.token }, { state: 'failed', floor: 2 })
        const replayed = await t.claimed(store, { ...copy, replay: 1, attempt: 1 })
        assert.deepEqual(replayed.steps, both, 'after a replay')
      },
    },
    {
      name: 'steps of one batch go to their own keys, several to one key too',
      async run(t) {
        const store = await t.store()
        const copies = [request(), request()]
        const [one, two] = [await t.claimed(store, copies[0]!), await t.claimed(store, copies[1]!)]
        const dead = { ...one.ref, key: request().key }
        const held = await store.record(
          [
            { ...one.ref, step: 'a', result: '1' },
            { ...dead, step: 'a', result: '2' },
            { ...two.ref, step: 'a', result: '3' },
            { ...one.ref, step: 'b', result: '4' },
          ],
          t.signal,
        )
        assert.deepEqual(held, ['held', 'lost', 'held', 'held'])
        for (const { ref } of [one, two]) await t.ended(store, ref, { state: 'released' })
        assert.deepEqual((await t.claimed(store, copies[0]!)).steps, { a: '1', b: '4' })
        assert.deepEqual((await t.claimed(store, copies[1]!)).steps, { a: '3' })
      },
    },
    {
      name: 'steps recorded at once are all kept',
      async run(t) {
        const [store, other] = [await t.store(), await t.store()]
        const copy = request()
        const { ref } = await t.claimed(store, copy)
        const names = Array.from({ length: 20 }, (_, index) => `step ${index}`)
        const writes = names.map((step, at) =>
          (at % 2 ? store : other).record([{ ...ref, step, result: `${at}` }], t.signal),
        )
        assert.deepEqual(
          await Promise.all(writes),
          names.map(() => ['held']),
        )
        await t.ended(store, ref, { state: 'released' })
        const { steps } = await t.claimed(store, copy)
        assert.deepEqual(steps, Object.fromEntries(names.map((step, at) => [step, `${at}`])))
      },
    },
    {
      name: 'names and results of steps are any text and JSON',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const { ref } = await t.claimed(store, copy)
        const steps: Record<string, string> = {
          '': 'null',
          "it's": '"\\u0000"',
          '$.a[0]': '[1,2.5]',
          'Ω🧾': '{"a":"Ω"}',
          'to.string': JSON.stringify('x'.repeat(60_000)),
        }
        await store.record(
          Object.entries(steps).map(([step, result]) => ({ ...ref, step, result })),
          t.signal,
        )
        await t.ended(store, ref, { state: 'released' })
        const recorded = (await t.claimed(store, copy)).steps
        const parsed = (each: Readonly<Record<string, string>>): Record<string, unknown> =>
          Object.fromEntries(Object.entries(each).map(([name, json]) => [name, JSON.parse(json)]))
        assert.deepEqual(parsed(recorded), parsed(steps))
      },
    },
    {
      name: 'steps end with their row: a new job with an expired key does not skip its own work',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const { ref } = await t.claimed(store, copy)
        await store.record([{ ...ref, step: 'charge', result: '1' }], t.signal)
        await t.ended(store, ref, { state: 'completed' }, t.scale.leaseMs)
        const answer = await until(
          'the row to expire',
          t.scale.eventuallyMs,
          () => t.claim(store, { ...copy, jobId: randomUUID() }, longTimes),
          ({ status }) => status === 'claimed',
        )
        assert.ok(answer.status === 'claimed')
        assert.deepEqual(answer.steps ?? {}, {})
      },
    },
  ],
}
