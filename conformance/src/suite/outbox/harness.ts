/** What the author of an outbox gives to {@link outboxSuite}, and the workbench of one case. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { OutboxClaim, OutboxRow, OutboxStore } from '@idemq/core'
import type { Case, Gate } from '../case.ts'
import { nowMs, resolveScale, type Scale } from '../wait.ts'

/** One outbox in a database of its own. */
export interface OutboxUnderTest<Tx> {
  /** A fresh connection, as another process would have. The suite prepares and closes it. */
  readonly connect: () => Promise<OutboxStore<Tx>>
  /** Runs `body` in a user's transaction: commits when it resolves, rolls back when it rejects and passes that on. */
  readonly transaction: <T>(body: (tx: Tx) => Promise<T>) => Promise<T>
  /** Drops the database. Called after every connection is closed. */
  readonly dispose: () => Promise<void>
}

export interface OutboxHarness<Tx = unknown> {
  /** Heads every case. */
  readonly name: string
  /** An empty outbox that no other case uses. */
  readonly create: () => Promise<OutboxUnderTest<Tx>>
  /** Several user transactions can be open at once, and rows be claimed meanwhile. */
  readonly concurrentTransactions: boolean
  readonly scale?: Scale
}

export const concurrent: Gate<OutboxHarness<never>> = {
  text: 'harness.concurrentTransactions',
  holds: (h) => h.concurrentTransactions,
}

export type AnyOutboxHarness = OutboxHarness<never>
export type OutboxCase = Case<AnyOutboxHarness, OutboxBench>

/** A lease that no case outlives. */
export const longLeaseMs = 600_000

export class OutboxBench {
  readonly harness: AnyOutboxHarness
  readonly scale: Required<Scale>
  readonly signal: AbortSignal = new AbortController().signal
  readonly #stores: OutboxStore<never>[] = []
  #outbox: Promise<OutboxUnderTest<never>> | undefined

  constructor(harness: AnyOutboxHarness) {
    this.harness = harness
    this.scale = resolveScale(harness.scale)
  }

  async dispose(): Promise<void> {
    for (const store of this.#stores) await store.close()
    await (await this.#outbox)?.dispose()
  }

  outbox(): Promise<OutboxUnderTest<never>> {
    this.#outbox ??= this.harness.create()
    return this.#outbox
  }

  async connect(): Promise<OutboxStore<never>> {
    const store = await (await this.outbox()).connect()
    this.#stores.push(store)
    await store.prepare('create', this.signal)
    return store
  }

  /** Commits `rows` in one transaction. */
  async commit(store: OutboxStore<never>, rows: readonly OutboxRow[]): Promise<void> {
    await (await this.outbox()).transaction((tx) => store.insert(tx, rows))
  }

  /** Claims until there are `count`, for `leaseMs`. */
  async take(store: OutboxStore<never>, count: number, leaseMs: number = longLeaseMs): Promise<OutboxClaim[]> {
    const claims: OutboxClaim[] = []
    const endMs = nowMs() + this.scale.eventuallyMs
    while (claims.length < count && nowMs() < endMs) {
      const got = await store.claim(count - claims.length, leaseMs, this.signal)
      assert.ok(got.length <= count - claims.length, 'a claim returned more than max')
      claims.push(...got)
      if (got.length === 0) await store.wait(20, this.signal)
    }
    assert.equal(claims.length, count, `rows claimed within ${this.scale.eventuallyMs} ms`)
    return claims
  }

  async expectNone(store: OutboxStore<never>, why: string): Promise<void> {
    const got = await store.claim(100, longLeaseMs, this.signal)
    assert.deepEqual(copyIds(got), [], why)
  }
}

export function outboxRow(change: Partial<OutboxRow> = {}): OutboxRow {
  const jobId = randomUUID()
  return {
    queue: 'orders',
    copyId: `${jobId}.0.1.0`,
    jobId,
    partitionKey: `key-${jobId}`,
    ordered: false,
    body: Buffer.from('{}'),
    ...change,
  }
}

export function copyIds(claims: readonly OutboxClaim[]): string[] {
  return claims.map(({ row }) => row.copyId)
}
