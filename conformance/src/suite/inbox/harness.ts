/** What the author of an inbox gives to {@link storeSuite}, and the workbench of one case. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type {
  ClaimAnswer,
  ClaimEnd,
  ClaimRef,
  ClaimRequest,
  ClaimTimes,
  Clock,
  Held,
  InboxStore,
  StoreCapabilities,
} from '@idemq/core'
import type { Case, Gate } from '../case.ts'
import { resolveScale, type Scale } from '../wait.ts'

/** Effects a test can make within a transaction of the store and count from outside it. */
export interface TestEffects<Tx> {
  /** Writes one row named `id` through `tx`. */
  readonly write: (tx: Tx, id: string) => Promise<void>
  /** Committed rows named `id`. */
  readonly count: (id: string) => Promise<number>
}

export interface StoreHarness<Tx = unknown> {
  /** Heads every case. */
  readonly name: string
  /** The manifest: must equal `store.capabilities`. */
  readonly capabilities: StoreCapabilities
  /** A fresh connection to the same database, as another process would have. The suite prepares and closes it. */
  readonly createStore: () => Promise<InboxStore<Tx>>
  readonly scale?: Scale
  /** Needed where `capabilities.transactions`. */
  readonly effects?: TestEffects<Tx>
  /** A connection to the same database from a process whose clock is `clock`. Absent where the store has no other clock. */
  readonly createStoreWithClock?: (clock: Clock) => Promise<InboxStore<Tx>>
  /** A connection to a database in which nothing was prepared. The suite closes it. */
  readonly createUnpreparedStore?: () => Promise<InboxStore<Tx>>
}

type StoreGate = Gate<StoreHarness<never>>

export const transactions: StoreGate = { text: 'transactions', holds: (h) => h.capabilities.transactions }
export const noTransactions: StoreGate = { text: 'transactions: false', holds: (h) => !h.capabilities.transactions }
export const expiresByPurge: StoreGate = { text: 'expiresItself: false', holds: (h) => !h.capabilities.expiresItself }
export const otherClock: StoreGate = {
  text: 'harness.createStoreWithClock',
  holds: (h) => h.createStoreWithClock !== undefined,
}
export const unprepared: StoreGate = {
  text: 'harness.createUnpreparedStore',
  holds: (h) => h.createUnpreparedStore !== undefined,
}

/** Cases neither know nor care what a transaction of the store is. */
export type AnyStoreHarness = StoreHarness<never>
export type StoreCase = Case<AnyStoreHarness, StoreBench>

/** A lease and a retention that no case outlives. */
export const longMs = 600_000
export const longTimes: ClaimTimes = { leaseMs: longMs, retentionMs: longMs }

export class StoreBench {
  readonly harness: AnyStoreHarness
  readonly scale: Required<Scale>
  readonly signal: AbortSignal = new AbortController().signal
  readonly #opened: InboxStore<never>[] = []

  constructor(harness: AnyStoreHarness) {
    this.harness = harness
    this.scale = resolveScale(harness.scale)
  }

  async dispose(): Promise<void> {
    for (const store of this.#opened) await store.close()
  }

  async store(
    create: () => Promise<InboxStore<never>> = this.harness.createStore,
    mode: 'create' | 'unprepared' = 'create',
  ): Promise<InboxStore<never>> {
    const store = await create()
    this.#opened.push(store)
    if (mode === 'create') await store.prepare('create', this.signal)
    return store
  }

  /** A lease that ends within the case. */
  get shortTimes(): ClaimTimes {
    return { leaseMs: this.scale.leaseMs, retentionMs: longMs }
  }

  async claim(store: InboxStore<never>, request: ClaimRequest, times: ClaimTimes = longTimes): Promise<ClaimAnswer> {
    const answers = await store.claim([request], times, this.signal)
    assert.equal(answers.length, 1, 'claim answers once for each request')
    return answers[0] as ClaimAnswer
  }

  /** Claims what must be claimable. */
  async claimed(store: InboxStore<never>, request: ClaimRequest, times: ClaimTimes = longTimes): Promise<Claimed> {
    const answer = await this.claim(store, request, times)
    assert.ok(answer.status === 'claimed', `expected to claim ${request.key}, got ${JSON.stringify(answer)}`)
    const { scope, key } = request
    const { token, attempt, crashed, steps = {} } = answer
    return { ref: { scope, key, token }, attempt, crashed, steps }
  }

  async end(store: InboxStore<never>, ref: ClaimRef, end: EndOptions, retentionMs: number = longMs): Promise<Held> {
    const [held] = await store.end([endOf(ref, end)], retentionMs, this.signal)
    return held as Held
  }

  /** Ends a claim that must still hold. */
  async ended(store: InboxStore<never>, ref: ClaimRef, end: EndOptions, retentionMs: number = longMs): Promise<void> {
    assert.equal(await this.end(store, ref, end, retentionMs), 'held', `end of ${ref.key} as ${end.state}`)
  }
}

export interface Claimed {
  readonly ref: ClaimRef
  readonly attempt: number
  readonly crashed: boolean
  readonly steps: Readonly<Record<string, string>>
}

export interface EndOptions {
  readonly state: ClaimEnd['state']
  /** @default 1 */
  readonly floor?: number
  /** @default false */
  readonly free?: boolean
  /** @default 0 */
  readonly holdMs?: number
  readonly result?: string
}

export function endOf(ref: ClaimRef, { state, floor = 1, free = false, holdMs = 0, result }: EndOptions): ClaimEnd {
  return { ...ref, state, floor, free, holdMs, ...(result !== undefined && { result }) }
}

/** A claim on a key nobody has used: first attempt of a job of its own, unless said otherwise. */
export function request(change: Partial<ClaimRequest> = {}): ClaimRequest {
  const key = `key-${randomUUID()}`
  return { scope: 'default/job', key, fingerprint: 'fp-a', jobId: randomUUID(), replay: 0, attempt: 1, ...change }
}
