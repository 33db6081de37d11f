/** Rows are seen if and only if their transaction committed, each by one relay at a time, and none is passed over. */
import assert from 'node:assert/strict'
import type { OutboxRow } from '@idemq/core'
import { type CaseGroup, within } from '../case.ts'
import { expectCode } from '../refusal.ts'
import { nowMs, pass, until } from '../wait.ts'
import { type AnyOutboxHarness, concurrent, copyIds, longLeaseMs, type OutboxBench, outboxRow } from './harness.ts'

const rows = (count: number): OutboxRow[] => Array.from({ length: count }, () => outboxRow())
const ids = (of: readonly OutboxRow[]): string[] => of.map(({ copyId }) => copyId)

/** A gate that a test opens. */
function latch(): { opened: Promise<void>; open: () => void } {
  let open = (): void => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open }
}

const visibilityCases: CaseGroup<AnyOutboxHarness, OutboxBench> = {
  name: 'visibility',
  cases: [
    {
      name: 'rows of a committed transaction are claimed, with every field as it was inserted',
      async run(t) {
        const store = await t.connect()
        const full = outboxRow({
          queue: 'Orders.eu-1',
          ordered: true,
          partitionKey: "cust'omer Ω",
          notBeforeMs: 4_102_444_800_123,
          body: Uint8Array.of(0, 0xff, 0xc3, 0x28, 10, 13),
        })
        const plain = outboxRow({ body: new Uint8Array(0) })
        await t.commit(store, [full, plain])
        const claims = await t.take(await t.connect(), 2)
        const found = claims.map(({ row }) => ({ ...row, body: [...row.body] }))
        assert.deepEqual(
          found,
          [full, plain].map((row) => ({ ...row, body: [...row.body] })),
        )
      },
    },
    {
      name: 'rows of a transaction that was rolled back are never seen',
      async run(t) {
        const store = await t.connect()
        const outbox = await t.outbox()
        const thrown = new Error('business rule')
        const work = outbox.transaction(async (tx) => {
          await store.insert(tx, rows(2))
          throw thrown
        })
        await assert.rejects(work, (error) => error === thrown)
        await t.expectNone(store, 'rows of a rolled back transaction')
        assert.deepEqual(await store.stats(t.signal), { pending: 0 })
      },
    },
    {
      name: 'rows are not seen before the commit, and seen after it',
      gates: [concurrent],
      async run(t) {
        const [store, relay] = [await t.connect(), await t.connect()]
        const row = outboxRow()
        await (await t.outbox()).transaction(async (tx) => {
          await store.insert(tx, [row])
          await t.expectNone(relay, 'a row whose transaction is still open')
        })
        assert.deepEqual(copyIds(await t.take(relay, 1)), [row.copyId])
      },
    },
    {
      name: 'a transaction that began first and committed last is not passed over',
      gates: [concurrent],
      async run(t) {
        const [store, relay] = [await t.connect(), await t.connect()]
        const outbox = await t.outbox()
        const [inserted, finish] = [latch(), latch()]
        const slow = outboxRow()
        const slowCommit = outbox.transaction(async (tx) => {
          await store.insert(tx, [slow])
          inserted.open()
          await finish.opened
        })
        await inserted.opened
        const quick = rows(3)
        await t.commit(store, quick)
        const claims = await t.take(relay, 3)
        assert.deepEqual(copyIds(claims), ids(quick))
        await relay.markSent(claims, t.signal)
        finish.open()
        await slowCommit
        assert.deepEqual(copyIds(await t.take(relay, 1)), [slow.copyId], 'the row that committed late')
      },
    },
    {
      name: 'rows come oldest first, at most max at a time',
      async run(t) {
        const store = await t.connect()
        const all = rows(7)
        for (const row of all) await t.commit(store, [row])
        const first = await store.claim(3, longLeaseMs, t.signal)
        assert.deepEqual(copyIds(first), ids(all.slice(0, 3)))
        const rest = await store.claim(100, longLeaseMs, t.signal)
        assert.deepEqual(copyIds(rest), ids(all.slice(3)))
      },
    },
    {
      name: 'many rows of one transaction keep their order',
      async run(t) {
        const store = await t.connect()
        const all = rows(250)
        await t.commit(store, all)
        assert.deepEqual(copyIds(await t.take(store, 250)), ids(all))
      },
    },
  ],
}

const relayCases: CaseGroup<AnyOutboxHarness, OutboxBench> = {
  name: 'relays',
  cases: [
    {
      name: 'a claimed row is hidden from other relays for its lease, and comes back if it was not marked',
      async run(t) {
        const [one, two] = [await t.connect(), await t.connect()]
        const { leaseMs, toleranceMs } = t.scale
        await t.commit(one, rows(1))
        const claimedMs = nowMs()
        const [first] = await t.take(one, 1, leaseMs)
        const back = await until(
          'a lapsed row to come back',
          leaseMs + toleranceMs,
          () => two.claim(1, longLeaseMs, t.signal),
          (claims) => claims.length > 0,
        )
        const tookMs = nowMs() - claimedMs
        assert.ok(tookMs >= leaseMs - 2, `claimed again after ${tookMs} ms of a lease of ${leaseMs} ms`)
        assert.deepEqual(back[0]?.row.copyId, first?.row.copyId)
        assert.notEqual(String(back[0]?.token), String(first?.token), 'the token of a new claim')
      },
    },
    {
      name: 'two relays at once never claim one row, and miss none',
      async run(t) {
        const stores = [await t.connect(), await t.connect(), await t.connect(), await t.connect()]
        const all = rows(120)
        await t.commit(stores[0]!, all)
        const claimed: string[] = []
        const relays = stores.map(async (store) => {
          for (;;) {
            const claims = await store.claim(7, longLeaseMs, t.signal)
            claimed.push(...copyIds(claims))
            // Empty may mean that another has the next ones locked: the end is when all are seen.
            if (claimed.length >= all.length) return
            if (claims.length === 0) await pass(2)
          }
        })
        await within(t.scale.eventuallyMs, 'the relays to claim every row', Promise.all(relays))
        assert.deepEqual(claimed.sort(), ids(all).sort())
      },
    },
    {
      name: 'what was marked as sent never comes back, not even past its lease',
      async run(t) {
        const store = await t.connect()
        await t.commit(store, rows(3))
        const claims = await t.take(store, 3, t.scale.leaseMs)
        await store.markSent(claims.slice(0, 2), t.signal)
        await pass(t.scale.leaseMs * 1.2)
        const back = await t.take(await t.connect(), 1)
        assert.deepEqual(copyIds(back), copyIds(claims.slice(2)))
        await t.expectNone(store, 'a row that was marked as sent')
      },
    },
    {
      name: 'marking again, or under a token that lapsed, harms nobody: the row stays with its new relay',
      async run(t) {
        const [one, two] = [await t.connect(), await t.connect()]
        await t.commit(one, rows(1))
        const stale = await t.take(one, 1, t.scale.leaseMs)
        await pass(t.scale.leaseMs * 1.2)
        const fresh = await t.take(two, 1, t.scale.leaseMs)
        await one.markSent(stale, t.signal)
        await pass(t.scale.leaseMs * 1.2)
        const again = await t.take(two, 1)
        assert.deepEqual(copyIds(again), copyIds(fresh), 'the mark under a lapsed token took effect')
        await two.markSent(again, t.signal)
        await two.markSent(again, t.signal)
        await t.expectNone(one, 'a row that was marked as sent')
      },
    },
    {
      name: 'pending and the age of the oldest unsent row are told, claimed or not',
      async run(t) {
        const store = await t.connect()
        assert.deepEqual(await store.stats(t.signal), { pending: 0 })
        await t.commit(store, rows(2))
        const { delayMs, eventuallyMs } = t.scale
        await pass(delayMs)
        await t.commit(store, rows(1))
        const claims = await t.take(store, 1)
        const waiting = await (await t.connect()).stats(t.signal)
        assert.equal(waiting.pending, 3)
        const ageMs = waiting.oldestUnsentAgeMs ?? -1
        assert.ok(ageMs >= delayMs - 5 && ageMs <= delayMs + eventuallyMs, `oldestUnsentAgeMs is ${ageMs}`)
        await store.markSent([...claims, ...(await t.take(store, 2))], t.signal)
        assert.deepEqual(await store.stats(t.signal), { pending: 0 })
      },
    },
    {
      name: 'wait ends when rows are committed, or after waitMs, or on abort',
      async run(t) {
        const store = await t.connect()
        const { delayMs, toleranceMs, eventuallyMs } = t.scale
        const startMs = nowMs()
        await store.wait(delayMs, t.signal)
        const tookMs = nowMs() - startMs
        assert.ok(tookMs >= delayMs / 2 && tookMs <= delayMs + toleranceMs, `waited ${tookMs} ms of ${delayMs}`)
        const waiting = store.wait(eventuallyMs * 2, t.signal)
        await t.commit(store, rows(1))
        await within(toleranceMs, 'wait to see a commit of its own process', waiting)
        await t.take(store, 1)
        const abort = new AbortController()
        const aborted = store.wait(eventuallyMs * 2, abort.signal).catch((error: unknown) => {
          expectCode('an aborted wait', ['ABORTED'], error)
        })
        abort.abort()
        await within(toleranceMs, 'an aborted wait to end', aborted)
      },
    },
    {
      name: 'prepare is idempotent and keeps rows; close is idempotent; rows outlive their connection',
      async run(t) {
        const store = await t.connect()
        const row = outboxRow()
        await t.commit(store, [row])
        await Promise.all([store.prepare('create', t.signal), store.prepare('create', t.signal)])
        await store.prepare('check', t.signal)
        await store.close()
        await store.close()
        assert.deepEqual(copyIds(await t.take(await t.connect(), 1)), [row.copyId])
      },
    },
  ],
}

export const outboxGroups: readonly CaseGroup<AnyOutboxHarness, OutboxBench>[] = [visibilityCases, relayCases]
