/** Tokens, never time, decide writes: who lost the claim changes nothing, whoever won it is not disturbed. */
import assert from 'node:assert/strict'
import { type Clock, type InboxStore, systemClock, type Token } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { nowMs, pass, until } from '../wait.ts'
import {
  type AnyStoreHarness,
  type Claimed,
  endOf,
  longMs,
  longTimes,
  otherClock,
  request,
  type StoreBench,
} from './harness.ts'

/** One who let a claim lapse, and the one who took it over. */
async function takenOver(t: StoreBench, store: InboxStore<never>): Promise<{ loser: Claimed; holder: Claimed }> {
  const copy = request()
  const loser = await t.claimed(store, copy, t.shortTimes)
  const answer = await until(
    'a lapsed claim to be claimable',
    t.scale.eventuallyMs,
    () => t.claim(store, copy, longTimes),
    ({ status }) => status === 'claimed',
  )
  assert.ok(answer.status === 'claimed')
  const { scope, key } = copy
  return {
    loser,
    holder: { ref: { scope, key, token: answer.token }, attempt: answer.attempt, crashed: answer.crashed, steps: {} },
  }
}

export const fencingCases: CaseGroup<AnyStoreHarness, StoreBench> = {
  name: 'fencing',
  cases: [
    {
      name: "after a takeover renew, record and end of the loser are 'lost' and leave the holder its claim",
      async run(t) {
        const store = await t.store()
        const { loser, holder } = await takenOver(t, store)
        assert.deepEqual(await store.renew([loser.ref], longMs, t.signal), ['lost'], 'renew')
        assert.deepEqual(await store.record([{ ...loser.ref, step: 's', result: '1' }], t.signal), ['lost'], 'record')
        for (const state of ['completed', 'failed', 'released'] as const) {
          assert.equal(
            await t.end(store, loser.ref, { state, floor: 9, free: true, result: '"stolen"' }),
            'lost',
            state,
          )
        }
        assert.deepEqual(await store.renew([holder.ref], longMs, t.signal), ['held'], 'the holder was disturbed')
        await t.ended(store, holder.ref, { state: 'released' })
      },
    },
    {
      name: 'what the loser wrote after a takeover is nowhere: no step, no floor, no count, no result',
      async run(t) {
        const store = await t.store()
        const { loser, holder } = await takenOver(t, store)
        await store.record([{ ...loser.ref, step: 'stolen', result: '1' }], t.signal)
        await t.end(store, loser.ref, { state: 'completed', floor: 9, free: true, result: '"stolen"' })
        assert.equal(holder.attempt, 2)
        await t.ended(store, holder.ref, { state: 'released' })
        const { scope, key } = loser.ref
        const other = await t.claimed(store, request({ scope, key }))
        assert.equal(other.attempt, 3)
        assert.deepEqual(other.steps, {})
      },
    },
    {
      name: "ending twice is 'lost', and so is renewing or recording after the end",
      async run(t) {
        const store = await t.store()
        for (const state of ['completed', 'failed', 'released'] as const) {
          const { ref } = await t.claimed(store, request())
          await t.ended(store, ref, { state })
          assert.equal(await t.end(store, ref, { state }), 'lost', `${state} twice`)
          assert.equal(await t.end(store, ref, { state: 'released' }), 'lost', `released after ${state}`)
          assert.deepEqual(await store.renew([ref], longMs, t.signal), ['lost'], `renew after ${state}`)
          assert.deepEqual(await store.record([{ ...ref, step: 's', result: '1' }], t.signal), ['lost'])
        }
      },
    },
    {
      name: "a claim nobody made is 'lost': unknown key, or a token of another key",
      async run(t) {
        const store = await t.store()
        const one = await t.claimed(store, request())
        const two = await t.claimed(store, request())
        const absent = { ...one.ref, key: request().key }
        const crossed = { ...one.ref, token: two.ref.token }
        for (const ref of [absent, crossed]) {
          assert.deepEqual(await store.renew([ref], longMs, t.signal), ['lost'])
          assert.equal(await t.end(store, ref, { state: 'completed' }), 'lost')
        }
        assert.deepEqual(await store.renew([one.ref, two.ref], longMs, t.signal), ['held', 'held'])
      },
    },
    {
      name: 'a lapsed claim that nobody took still holds: it can be renewed, recorded under and ended',
      async run(t) {
        const store = await t.store()
        const { leaseMs } = t.scale
        const copies = [request(), request()]
        const [one, two] = [
          await t.claimed(store, copies[0]!, t.shortTimes),
          await t.claimed(store, copies[1]!, t.shortTimes),
        ]
        await pass(leaseMs * 1.2)
        assert.deepEqual(await store.record([{ ...one.ref, step: 's', result: '1' }], t.signal), ['held'], 'record')
        assert.deepEqual(await store.renew([one.ref], longMs, t.signal), ['held'], 'renew')
        assert.equal((await t.claim(store, copies[0]!)).status, 'busy', 'the renewed lease runs again')
        await t.ended(store, two.ref, { state: 'completed' })
        assert.deepEqual(await t.claim(store, copies[1]!), { status: 'completed' })
      },
    },
    {
      name: 'tokens never repeat: not by key, by end, by takeover or by connection',
      async run(t) {
        const stores = [await t.store(), await t.store()]
        const tokens: Token[] = []
        const copy = request()
        for (let round = 0; round < 6; round++) {
          const store = stores[round % 2]!
          const batch = [copy, request(), request()]
          const answers = await store.claim(batch, longTimes, t.signal)
          for (const answer of answers) {
            assert.ok(answer.status === 'claimed')
            tokens.push(answer.token)
          }
          const { scope, key } = copy
          await t.ended(store, { scope, key, token: tokens.at(-3)! }, { state: 'released', free: true })
        }
        assert.equal(new Set(tokens.map(String)).size, tokens.length, `tokens: ${tokens.join(', ')}`)
      },
    },
    {
      name: 'a lease holds for its time and no longer; busy says when to ask again',
      async run(t) {
        const [holder, other] = [await t.store(), await t.store()]
        const copy = request()
        const { leaseMs, toleranceMs } = t.scale
        const claimedMs = nowMs()
        await t.claimed(holder, copy, t.shortTimes)
        const busy = await t.claim(other, copy)
        assert.ok(busy.status === 'busy', `answered ${JSON.stringify(busy)}`)
        assert.ok(busy.retryAfterMs > 0, `retryAfterMs ${busy.retryAfterMs}`)
        assert.ok(
          busy.retryAfterMs <= Math.max(leaseMs, 100),
          `retryAfterMs ${busy.retryAfterMs} of a ${leaseMs} ms lease`,
        )
        await until(
          'the lease to end',
          leaseMs + toleranceMs,
          () => t.claim(other, copy),
          ({ status }) => status === 'claimed',
        )
        assert.ok(nowMs() - claimedMs >= leaseMs - 2, `taken after ${nowMs() - claimedMs} ms of a ${leaseMs} ms lease`)
      },
    },
    {
      name: 'renewing keeps the claim beyond its first lease',
      async run(t) {
        const [holder, other] = [await t.store(), await t.store()]
        const copy = request()
        const { leaseMs } = t.scale
        const { ref } = await t.claimed(holder, copy, t.shortTimes)
        const untilMs = nowMs() + leaseMs * 2
        while (nowMs() < untilMs) {
          assert.deepEqual(await holder.renew([ref], leaseMs, t.signal), ['held'])
          assert.equal((await t.claim(other, copy)).status, 'busy')
          await pass(leaseMs / 4)
        }
        await t.ended(holder, ref, { state: 'completed' })
      },
    },
    {
      name: 'the end of retention does not end a lease that runs',
      async run(t) {
        const store = await t.store()
        const copy = request()
        const { ref } = await t.claimed(store, copy, { leaseMs: longMs, retentionMs: t.scale.leaseMs })
        await pass(t.scale.leaseMs * 1.2)
        assert.equal((await t.claim(store, copy)).status, 'busy')
        await t.ended(store, ref, { state: 'completed' })
      },
    },
    {
      name: "leases and retention follow the database's clock, not the clock of the process",
      gates: [otherClock],
      async run(t) {
        const create = t.harness.createStoreWithClock
        assert.ok(create)
        const store = await t.store()
        for (const offsetMs of [-longMs * 10, longMs * 10]) {
          const skewed = await t.store(() => create(skewedClock(offsetMs)))
          const [live, lapsing] = [request(), request()]
          await t.claimed(store, live)
          assert.equal(
            (await t.claim(skewed, live)).status,
            'busy',
            `a live claim, seen by a clock off by ${offsetMs} ms`,
          )
          const mine = await t.claimed(skewed, request())
          assert.equal(
            (await t.claim(store, request(mine.ref))).status,
            'busy',
            `a claim by a clock off by ${offsetMs} ms`,
          )
          await t.claimed(skewed, lapsing, t.shortTimes)
          await until(
            `a lease given by a clock off by ${offsetMs} ms to end`,
            t.scale.leaseMs + t.scale.toleranceMs,
            () => t.claim(store, lapsing),
            ({ status }) => status === 'claimed',
          )
        }
      },
    },
    {
      name: 'a batch of ends under one dead token among live ones ends only the live ones',
      async run(t) {
        const store = await t.store()
        const live = await t.claimed(store, request())
        const { loser, holder } = await takenOver(t, store)
        const ends = [loser.ref, live.ref].map((ref) => endOf(ref, { state: 'completed' }))
        assert.deepEqual(await store.end(ends, longMs, t.signal), ['lost', 'held'])
        assert.deepEqual(await store.renew([holder.ref], longMs, t.signal), ['held'])
      },
    },
  ],
}

/** The system's clock, told wrong. */
function skewedClock(offsetMs: number): Clock {
  return {
    now: () => systemClock.now() + offsetMs,
    monotonicMs: () => systemClock.monotonicMs() + offsetMs,
    schedule: (callback, delayMs, unref) => systemClock.schedule(callback, delayMs, unref),
  }
}
