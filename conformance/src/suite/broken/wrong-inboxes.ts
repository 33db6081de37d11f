/** Inboxes that are wrong in one way each, and the case that must catch each. */
import { randomUUID } from 'node:crypto'
import type { ClaimEnd, ClaimRef, InboxStore, SqlTransaction, Token } from '@idemq/core'

export interface WrongStore<Tx> {
  readonly fault: string
  readonly caughtBy: string
  /** Called once for a database; its result wraps each connection to it. */
  readonly make: () => (store: InboxStore<Tx>) => InboxStore<Tx>
}

export type WrongInbox = WrongStore<unknown>
export type WrongTransactions = WrongStore<SqlTransaction>

const rowOf = ({ scope, key }: { readonly scope: string; readonly key: string }): string => `${scope}\n${key}`

/** `end` of `store` with other holds. */
function endingWith(store: InboxStore, holdMs: (asked: number) => number): InboxStore['end'] {
  return (batch, retentionMs, signal) =>
    store.end(
      batch.map((end) => ({ ...end, holdMs: holdMs(end.holdMs) })),
      retentionMs,
      signal,
    )
}

export const wrongInboxes: readonly WrongInbox[] = [
  {
    fault: 'claim ignores the floor',
    caughtBy: 'the floor rises by end, never falls, and bars what is below it',
    make: () => (store) => ({
      ...store,
      end: (batch, retentionMs, signal) =>
        store.end(
          batch.map((end) => ({ ...end, floor: 1 })),
          retentionMs,
          signal,
        ),
    }),
  },
  {
    fault: 'end ignores the token',
    caughtBy: "after a takeover renew, record and end of the loser are 'lost' and leave the holder its claim",
    make: () => {
      const latest = new Map<string, Token>()
      return (store) => ({
        ...store,
        async claim(batch, times, signal) {
          const answers = await store.claim(batch, times, signal)
          for (const [index, answer] of answers.entries()) {
            if (answer.status === 'claimed') latest.set(rowOf(batch[index]!), answer.token)
          }
          return answers
        },
        end: (batch, retentionMs, signal) =>
          store.end(
            batch.map((end) => ({ ...end, token: latest.get(rowOf(end)) ?? end.token })),
            retentionMs,
            signal,
          ),
      })
    },
  },
  {
    fault: 'renew asks nobody',
    caughtBy: "ending twice is 'lost', and so is renewing or recording after the end",
    make: () => (store) => ({ ...store, renew: async (batch) => batch.map(() => 'held') }),
  },
  {
    fault: 'the count is never raised',
    caughtBy: 'each claim counts one start, whether the last ended by release or by its lease',
    make: () => (store) => ({
      ...store,
      async claim(batch, times, signal) {
        const answers = await store.claim(batch, times, signal)
        return answers.map((answer, index) =>
          answer.status === 'claimed' ? { ...answer, attempt: batch[index]!.attempt } : answer,
        )
      },
    }),
  },
  {
    fault: 'starts are counted by job, so that duplicates reset each other',
    caughtBy: 'two jobs with one key share the count: neither resets the other',
    make: () => {
      const jobs = new Map<string, { jobId: string; starts: number }>()
      return (store) => ({
        ...store,
        async claim(batch, times, signal) {
          const answers = await store.claim(batch, times, signal)
          return answers.map((answer, index) => {
            if (answer.status !== 'claimed') return answer
            const { jobId, attempt } = batch[index]!
            const known = jobs.get(rowOf(batch[index]!))
            const starts = known?.jobId === jobId ? known.starts + 1 : attempt
            jobs.set(rowOf(batch[index]!), { jobId, starts })
            return { ...answer, attempt: starts }
          })
        },
      })
    },
  },
  {
    fault: 'a free end keeps the start',
    caughtBy: 'a free end gives the start back',
    make: () => (store) => ({
      ...store,
      end: (batch, retentionMs, signal) =>
        store.end(
          batch.map((end) => ({ ...end, free: false })),
          retentionMs,
          signal,
        ),
    }),
  },
  {
    fault: 'claim looks first and writes later, so two can win',
    caughtBy: 'fifty claims of one new key at once, from two connections: exactly one wins, the rest are busy',
    make: () => {
      const taken = new Set<string>()
      return (store) => ({
        ...store,
        async claim(batch, times, signal) {
          const free = batch.map((request) => !taken.has(rowOf(request)))
          await new Promise((resolve) => setImmediate(resolve))
          for (const request of batch) taken.add(rowOf(request))
          const answers = await store.claim(batch, times, signal)
          return answers.map((answer, index) =>
            free[index] && answer.status === 'busy'
              ? { status: 'claimed', token: -1, attempt: 1, crashed: false }
              : answer,
          )
        },
      })
    },
  },
  {
    fault: 'the fingerprint is ignored',
    caughtBy: 'a claim of a row that is completed is answered as the table says, for every version and payload',
    make: () => (store) => ({
      ...store,
      claim: (batch, times, signal) =>
        store.claim(
          batch.map((request) => ({ ...request, fingerprint: '' })),
          times,
          signal,
        ),
    }),
  },
  {
    fault: 'failed blocks like completed, so that no replay can start',
    caughtBy: 'a claim of a row that is failed is answered as the table says, for every version and payload',
    make: () => (store) => ({
      ...store,
      end: (batch, retentionMs, signal) =>
        store.end(
          batch.map((end) => (end.state === 'failed' ? { ...end, state: 'completed' } : end)),
          retentionMs,
          signal,
        ),
    }),
  },
  {
    fault: 'tokens repeat',
    caughtBy: 'tokens never repeat: not by key, by end, by takeover or by connection',
    make: () => {
      const real = new Map<string, Token>()
      const restore = <T extends ClaimRef>(ref: T): T => ({ ...ref, token: real.get(rowOf(ref)) ?? ref.token })
      return (store) => ({
        ...store,
        async claim(batch, times, signal) {
          const answers = await store.claim(batch, times, signal)
          return answers.map((answer, index) => {
            if (answer.status !== 'claimed') return answer
            real.set(rowOf(batch[index]!), answer.token)
            return { ...answer, token: 1 }
          })
        },
        renew: (batch, leaseMs, signal) => store.renew(batch.map(restore), leaseMs, signal),
        record: (batch, signal) => store.record(batch.map(restore), signal),
        end: (batch, retentionMs, signal) => store.end(batch.map(restore), retentionMs, signal),
      })
    },
  },
  {
    fault: 'answers of claim are sorted by status',
    caughtBy: 'one batch may get every kind of answer, in order, results with the completed ones',
    make: () => (store) => ({
      ...store,
      claim: async (batch, times, signal) =>
        (await store.claim(batch, times, signal)).sort((a, b) => a.status.localeCompare(b.status)),
    }),
  },
  {
    fault: 'leases end at half their time',
    caughtBy: 'a lease holds for its time and no longer; busy says when to ask again',
    make: () => (store) => ({
      ...store,
      claim: (batch, times, signal) => store.claim(batch, { ...times, leaseMs: times.leaseMs / 2 }, signal),
    }),
  },
  {
    fault: 'rows never expire',
    caughtBy: 'a key whose row expired counts anew: what it used before is forgotten',
    make: () => (store) => ({
      ...store,
      claim: (batch, times, signal) => store.claim(batch, { ...times, retentionMs: 1e9 }, signal),
      end: (batch, _, signal) => store.end(batch, 1e9, signal),
    }),
  },
  {
    fault: 'steps are forgotten by a release',
    caughtBy: 'recorded steps come with every later claim of the key: after a release, a crash and a replay',
    make: () => (store) => ({ ...store, record: async (batch, signal) => store.renew(batch, 600_000, signal) }),
  },
  {
    fault: 'every start after the first passes for one after a crash',
    caughtBy: "'crashed' is false after a release, a failure, an expiry and a takeover that ended, whoever claims",
    make: () => (store) => ({
      ...store,
      claim: async (batch, times, signal) =>
        (await store.claim(batch, times, signal)).map((answer) =>
          answer.status === 'claimed' ? { ...answer, crashed: answer.crashed || answer.attempt > 1 } : answer,
        ),
    }),
  },
  {
    fault: 'a start after a crash passes for any other',
    caughtBy: "'crashed' is true where the start before never ended and its lease ran out, whoever claims",
    make: () => (store) => ({
      ...store,
      claim: async (batch, times, signal) =>
        (await store.claim(batch, times, signal)).map((answer) =>
          answer.status === 'claimed' ? { ...answer, crashed: false } : answer,
        ),
    }),
  },
  {
    fault: 'nobody is held back after a release',
    caughtBy: 'a release with holdMs holds other jobs with the key back, for that long and no longer',
    make: () => (store) => ({ ...store, end: endingWith(store, () => 0) }),
  },
  {
    fault: 'a hold lasts for good',
    caughtBy: 'a release with holdMs holds other jobs with the key back, for that long and no longer',
    make: () => (store) => ({ ...store, end: endingWith(store, (holdMs) => holdMs * 1_000) }),
  },
  {
    fault: 'every release holds others back, asked or not',
    caughtBy: 'a release with holdMs 0 holds nobody back',
    make: () => (store) => ({ ...store, end: endingWith(store, () => 60_000) }),
  },
  {
    fault: 'a hold is in the way of the job itself',
    caughtBy: 'holdMs is not in the way of the job itself: its copies at or above the floor may claim at once',
    make: () => {
      const heldUntilMs = new Map<string, number>()
      return (store) => ({
        ...store,
        async claim(batch, times, signal) {
          const answers = await store.claim(batch, times, signal)
          return answers.map((answer, index) => {
            const leftMs = (heldUntilMs.get(rowOf(batch[index]!)) ?? 0) - performance.now()
            return leftMs > 0 ? { status: 'busy', retryAfterMs: leftMs } : answer
          })
        },
        end(batch, retentionMs, signal) {
          for (const end of batch) heldUntilMs.set(rowOf(end), performance.now() + end.holdMs)
          return store.end(batch, retentionMs, signal)
        },
      })
    },
  },
  {
    fault: 'keys are cut where an index ends',
    caughtBy: 'keys of 1,024 characters, of more bytes than an index may hold, are told apart and harm no neighbour',
    make: () => (store) => {
      const cut = <T extends { readonly key: string }>(batch: readonly T[]): T[] =>
        batch.map((each) => ({ ...each, key: each.key.slice(0, 900) }))
      return {
        ...store,
        claim: (batch, times, signal) => store.claim(cut(batch), times, signal),
        renew: (batch, leaseMs, signal) => store.renew(cut(batch), leaseMs, signal),
        record: (batch, signal) => store.record(cut(batch), signal),
        end: (batch, retentionMs, signal) => store.end(cut(batch), retentionMs, signal),
      }
    },
  },
  {
    fault: 'purge ignores its limit',
    caughtBy: 'purge deletes rows past their retention, at most max at a time, and no others',
    make: () => (store) => ({ ...store, purge: (_, signal) => store.purge(10_000, signal) }),
  },
]

/** Wrong only in transactions; they wrap a store that has them. */
export const wrongTransactions: readonly WrongTransactions[] = [
  {
    fault: 'a lost claim is answered as committed',
    caughtBy: 'a claim that was lost rolls the effect back',
    make: () => (store) => ({
      ...store,
      async transact<T>(
        effect: (tx: SqlTransaction) => Promise<T>,
        end: (result: T) => ClaimEnd,
        retentionMs: number,
        signal: AbortSignal,
      ) {
        let value: T | undefined
        const noting = async (tx: SqlTransaction): Promise<T> => {
          value = await effect(tx)
          return value
        }
        await store.transact!(noting, end, retentionMs, signal)
        return { status: 'committed' as const, value: value as T }
      },
    }),
  },
  {
    fault: 'an abort is answered, but the transaction goes on and commits',
    caughtBy:
      'an abort while the effect runs rolls it back at once, though it listens to nothing, and refuses what it does next',
    make: () => (store) => ({
      ...store,
      transact<T>(
        effect: (tx: SqlTransaction) => Promise<T>,
        end: (result: T) => ClaimEnd,
        retentionMs: number,
        signal: AbortSignal,
      ) {
        const deaf = store.transact!(effect, end, retentionMs, new AbortController().signal)
        const given = new Promise<never>((_, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason as Error))
        })
        return Promise.race([deaf, given])
      },
    }),
  },
  {
    fault: 'the effect and the end are two transactions',
    caughtBy: 'an effect made twice under one claim is committed once',
    make: () => (store) => ({
      ...store,
      async transact<T>(
        effect: (tx: SqlTransaction) => Promise<T>,
        end: (result: T) => ClaimEnd,
        retentionMs: number,
        signal: AbortSignal,
      ) {
        // A claim made only to have a transaction whose end holds.
        const own = { scope: 'apart', key: randomUUID(), fingerprint: '', jobId: 'apart', replay: 0, attempt: 1 }
        const [claim] = await store.claim([own], { leaseMs: 60_000, retentionMs }, signal)
        if (claim?.status !== 'claimed') return { status: 'lost' as const }
        const ref = { scope: own.scope, key: own.key, token: claim.token }
        const ownEnd = (): ClaimEnd => ({ ...ref, state: 'completed', floor: 1, free: false, holdMs: 0 })
        const done = await store.transact!(effect, ownEnd, retentionMs, signal)
        if (done.status === 'lost') return done
        const [held] = await store.end([end(done.value)], retentionMs, signal)
        return held === 'held' ? done : { status: 'lost' as const }
      },
    }),
  },
]
