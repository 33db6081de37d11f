/** Outboxes that are wrong in one way each, and the case that must catch each. */
import type { OutboxClaim, OutboxStore } from '@idemq/core'
import type { Pending } from './memory-outbox.ts'

export interface WrongOutbox {
  readonly fault: string
  readonly caughtBy: string
  /** Called once for a database; its result wraps each connection to it. */
  readonly make: () => (store: OutboxStore<Pending>) => OutboxStore<Pending>
}

export const wrongOutboxes: readonly WrongOutbox[] = [
  {
    fault: 'claim ignores the lease of others',
    caughtBy: 'two relays at once never claim one row, and miss none',
    make: () => (store) => ({ ...store, claim: (max, _, signal) => store.claim(max, 0, signal) }),
  },
  {
    fault: 'claimed rows never come back',
    caughtBy: 'a claimed row is hidden from other relays for its lease, and comes back if it was not marked',
    make: () => (store) => ({ ...store, claim: (max, _, signal) => store.claim(max, 1e9, signal) }),
  },
  {
    fault: 'a cursor passes over what commits late',
    caughtBy: 'a transaction that began first and committed last is not passed over',
    make: () => {
      let highest = 0
      return (store) => ({
        ...store,
        async claim(max, leaseMs, signal) {
          const claims = (await store.claim(max, leaseMs, signal)).filter(({ id }) => Number(id) > highest)
          highest = Math.max(highest, ...claims.map(({ id }) => Number(id)))
          return claims
        },
      })
    },
  },
  {
    fault: 'markSent ignores the token',
    caughtBy: 'marking again, or under a token that lapsed, harms nobody: the row stays with its new relay',
    make: () => {
      const latest = new Map<string, OutboxClaim>()
      return (store) => ({
        ...store,
        async claim(max, leaseMs, signal) {
          const claims = await store.claim(max, leaseMs, signal)
          for (const claim of claims) latest.set(claim.id, claim)
          return claims
        },
        markSent: (claims, signal) =>
          store.markSent(
            claims.map((claim) => latest.get(claim.id) ?? claim),
            signal,
          ),
      })
    },
  },
  {
    fault: 'rows are written outside the transaction',
    caughtBy: 'rows of a transaction that was rolled back are never seen',
    make: () => {
      const written: OutboxClaim[] = []
      return (store) => ({
        ...store,
        async insert(tx, rows) {
          await store.insert(tx, rows)
          written.push(...rows.map((row) => ({ id: row.copyId, token: 0, row })))
        },
        claim: async () => written.splice(0),
      })
    },
  },
  {
    fault: 'markSent does nothing',
    caughtBy: 'what was marked as sent never comes back, not even past its lease',
    make: () => (store) => ({ ...store, markSent: async () => {} }),
  },
  {
    fault: 'claimed rows count as sent',
    caughtBy: 'pending and the age of the oldest unsent row are told, claimed or not',
    make: () => {
      let claimed = 0
      return (store) => ({
        ...store,
        async claim(max, leaseMs, signal) {
          const claims = await store.claim(max, leaseMs, signal)
          claimed += claims.length
          return claims
        },
        async stats(signal) {
          const stats = await store.stats(signal)
          return { ...stats, pending: stats.pending - claimed }
        },
      })
    },
  },
]
