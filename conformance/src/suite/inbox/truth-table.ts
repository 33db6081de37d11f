/**
 * Who may claim: every state of a row against every kind of copy, with the same payload and with another.
 *
 * Of those that are claimed, 'crashed' is true where the row was claimed and its lease is over, and nowhere else.
 *
 * The row was made by job A at replay 1, whose attempt 1 has a durable successor: its floor is 2.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { ClaimAnswer, ClaimRequest, InboxStore } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { until } from '../wait.ts'
import { type AnyStoreHarness, longMs, longTimes, request, type StoreBench, type StoreCase } from './harness.ts'

/** Job A's copies by version; `other` is the first attempt of another job with the same key. */
const copies = {
  same: { replay: 1, attempt: 2 },
  older: { replay: 1, attempt: 1 },
  'older replay': { replay: 0, attempt: 9 },
  newer: { replay: 1, attempt: 3 },
  'higher replay': { replay: 2, attempt: 1 },
  other: { replay: 0, attempt: 1 },
} as const

type Copy = keyof typeof copies
type Status = ClaimAnswer['status']
type Row = Readonly<Record<Copy, Status>>

const row = (
  same: Status,
  older: Status,
  olderReplay: Status,
  newer: Status,
  higherReplay: Status,
  other: Status,
): Row => ({ same, older, 'older replay': olderReplay, newer, 'higher replay': higherReplay, other })

const all = (status: Status): Row => row(status, status, status, status, status, status)

/** For each state of the row: the answers to the same payload, then to another. */
const table = {
  absent: [all('claimed'), all('claimed')],
  'claimed, lease running': [
    row('busy', 'stale', 'stale', 'busy', 'busy', 'busy'),
    row('mismatch', 'stale', 'stale', 'mismatch', 'mismatch', 'mismatch'),
  ],
  'claimed, lease over': [
    row('claimed', 'stale', 'stale', 'claimed', 'claimed', 'claimed'),
    row('mismatch', 'stale', 'stale', 'mismatch', 'mismatch', 'mismatch'),
  ],
  released: [
    row('claimed', 'stale', 'stale', 'claimed', 'claimed', 'claimed'),
    row('mismatch', 'stale', 'stale', 'mismatch', 'mismatch', 'mismatch'),
  ],
  failed: [
    row('stale', 'stale', 'stale', 'stale', 'claimed', 'claimed'),
    row('stale', 'stale', 'stale', 'stale', 'claimed', 'claimed'),
  ],
  completed: [all('completed'), all('mismatch')],
  'expired, was claimed': [all('claimed'), all('claimed')],
  'expired, was released': [all('claimed'), all('claimed')],
  'expired, was failed': [all('claimed'), all('claimed')],
  'expired, was completed': [all('claimed'), all('claimed')],
} as const satisfies Record<string, readonly [Row, Row]>

type State = keyof typeof table

const fingerprints = ['same payload', 'other payload'] as const

interface Cell {
  readonly copy: Copy
  readonly payload: (typeof fingerprints)[number]
  readonly expected: Status
  /** What made the row, and the copy that now asks. Each cell has a key of its own. */
  readonly first: ClaimRequest
  readonly asks: ClaimRequest
}

function cellsOf(state: State): Cell[] {
  return fingerprints.flatMap((payload, column) =>
    (Object.keys(copies) as Copy[]).map((copy): Cell => {
      const jobA = randomUUID()
      const first = request({ jobId: jobA, replay: 1, attempt: 1 })
      const asks: ClaimRequest = {
        ...first,
        ...copies[copy],
        jobId: copy === 'other' ? randomUUID() : jobA,
        fingerprint: payload === 'same payload' ? first.fingerprint : 'fp-b',
      }
      return { copy, payload, expected: table[state][column]![copy], first, asks }
    }),
  )
}

/** Brings every cell's row into `state`, in one batch for each step on the way. */
async function prepare(t: StoreBench, store: InboxStore<never>, state: State, cells: readonly Cell[]): Promise<void> {
  if (state === 'absent') return
  const expires = state.startsWith('expired')
  const retentionMs = expires ? t.scale.leaseMs : longMs
  const claimAll = async (attempt: number, leaseMs: number, keepMs: number): Promise<ClaimAnswer[]> => {
    const requests = cells.map(({ first }) => ({ ...first, attempt }))
    const answers = await store.claim(requests, { leaseMs, retentionMs: keepMs }, t.signal)
    assert.deepEqual(
      answers.map(({ status }) => status),
      cells.map(() => 'claimed'),
      'making the row',
    )
    return answers
  }
  const endAll = async (
    answers: ClaimAnswer[],
    end: 'completed' | 'failed' | 'released',
    keepMs: number,
  ): Promise<void> => {
    const ends = cells.map(({ first: { scope, key } }, index) => {
      const answer = answers[index]!
      assert.ok(answer.status === 'claimed')
      return { scope, key, token: answer.token, state: end, floor: 2, free: false, holdMs: 0 }
    })
    assert.deepEqual(
      await store.end(ends, keepMs, t.signal),
      cells.map(() => 'held'),
      'making the row',
    )
  }

  const first = await claimAll(1, longMs, longMs)
  if (state === 'released') return endAll(first, 'released', longMs)
  await endAll(first, 'released', longMs)
  const lapses = state === 'claimed, lease over' || state === 'expired, was claimed'
  const second = await claimAll(2, lapses ? t.scale.leaseMs : longMs, retentionMs)
  const end = (['released', 'failed', 'completed'] as const).find((each) => state.endsWith(each))
  if (end) await endAll(second, end, retentionMs)
  if (lapses || expires) await untilLapsed(t, store, retentionMs)
}

/** By the store's own clock: a row that was claimed later and for as long is claimable again. */
async function untilLapsed(t: StoreBench, store: InboxStore<never>, retentionMs: number): Promise<void> {
  const probe = request()
  const times = { leaseMs: t.scale.leaseMs, retentionMs }
  await t.claimed(store, probe, times)
  await until(
    `a lease of ${times.leaseMs} ms to end`,
    t.scale.eventuallyMs,
    () => t.claim(store, probe, longTimes),
    ({ status }) => status === 'claimed',
  )
}

const tableCases = (Object.keys(table) as State[]).map(
  (state): StoreCase => ({
    name: `a claim of a row that is ${state} is answered as the table says, for every version and payload`,
    async run(t) {
      const store = await t.store()
      const cells = cellsOf(state)
      await prepare(t, store, state, cells)
      const asking = await t.store()
      const answers = await asking.claim(
        cells.map(({ asks }) => asks),
        longTimes,
        t.signal,
      )
      const named = (status: (cell: Cell, index: number) => Status | undefined): Record<string, Status | undefined> =>
        Object.fromEntries(cells.map((cell, index) => [`${cell.copy}, ${cell.payload}`, status(cell, index)]))
      assert.deepEqual(
        named((_, index) => answers[index]?.status),
        named(({ expected }) => expected),
      )
      for (const [index, answer] of answers.entries()) {
        if (answer.status !== 'claimed') continue
        const { copy, payload } = cells[index]!
        assert.equal(answer.crashed, state === 'claimed, lease over', `crashed, told to ${copy}, ${payload}`)
      }
    },
  }),
)

export const truthTableCases: CaseGroup<AnyStoreHarness, StoreBench> = { name: 'who may claim', cases: tableCases }
