/** Inboxes and outboxes that are wrong in one way each. */
import type { Adapter, ClaimEnd, InboxStore, OutboxStore } from '@idemq/core'
import { bound } from './tap.ts'

function withInbox(adapter: Adapter, change: (inbox: InboxStore) => Partial<InboxStore>): Adapter {
  if (!adapter.inbox) throw new Error('this control needs an adapter with an inbox')
  return { ...adapter, inbox: { ...bound(adapter.inbox), ...change(adapter.inbox) } }
}

function withOutbox(adapter: Adapter, change: (outbox: OutboxStore) => Partial<OutboxStore>): Adapter {
  if (!adapter.outbox) throw new Error('this control needs an adapter with an outbox')
  return { ...adapter, outbox: { ...bound(adapter.outbox), ...change(adapter.outbox) } }
}

/** The same inbox with every end passed through `change`. */
function withEnds(adapter: Adapter, change: (end: ClaimEnd) => ClaimEnd): Adapter {
  return withInbox(adapter, (inbox) => {
    const { transact } = inbox
    return {
      end: (batch, retentionMs, signal) => inbox.end(batch.map(change), retentionMs, signal),
      ...(transact && {
        transact: (effect, end, retentionMs, signal) =>
          transact.call(inbox, effect, (result) => change(end(result as never)), retentionMs, signal) as never,
      }),
    }
  })
}

export function noFloor(adapter: Adapter): Adapter {
  return withEnds(adapter, (end) => ({ ...end, floor: 0 }))
}

export function forgetCompleted(adapter: Adapter): Adapter {
  return withEnds(adapter, ({ result: _, ...end }) => {
    return end.state === 'completed' ? { ...end, state: 'released', floor: 0 } : end
  })
}

export function tokenIgnored(adapter: Adapter): Adapter {
  return withInbox(adapter, (inbox) => ({
    renew: async (batch, leaseMs, signal) => (await inbox.renew(batch, leaseMs, signal)).map(() => 'held'),
    record: async (batch, signal) => (await inbox.record(batch, signal)).map(() => 'held'),
    end: async (batch, retentionMs, signal) => (await inbox.end(batch, retentionMs, signal)).map(() => 'held'),
  }))
}

export function claimAlwaysGranted(adapter: Adapter): Adapter {
  let granted = 0
  return withInbox(adapter, (inbox) => ({
    async claim(batch, times, signal) {
      const answers = await inbox.claim(batch, times, signal)
      return answers.map((answer, i) =>
        answer.status === 'claimed'
          ? answer
          : { status: 'claimed', token: `granted-${++granted}`, attempt: batch[i]!.attempt, crashed: false },
      )
    },
    renew: async (batch, leaseMs, signal) => (await inbox.renew(batch, leaseMs, signal)).map(() => 'held'),
    record: async (batch, signal) => (await inbox.record(batch, signal)).map(() => 'held'),
    end: async (batch, retentionMs, signal) => (await inbox.end(batch, retentionMs, signal)).map(() => 'held'),
  }))
}

export function countNeverRaised(adapter: Adapter): Adapter {
  return withInbox(adapter, (inbox) => ({
    async claim(batch, times, signal) {
      const answers = await inbox.claim(batch, times, signal)
      return answers.map((answer, i) =>
        answer.status === 'claimed' ? { ...answer, attempt: batch[i]!.attempt } : answer,
      )
    },
  }))
}

export function memoDropped(adapter: Adapter): Adapter {
  return withInbox(adapter, () => ({ record: async (batch) => batch.map(() => 'held') }))
}

export function outboxMarksFirst(adapter: Adapter): Adapter {
  return withOutbox(adapter, (outbox) => ({
    async claim(max, leaseMs, signal) {
      const claims = await outbox.claim(max, leaseMs, signal)
      await outbox.markSent(claims, signal)
      return claims
    },
    markSent: async () => {},
  }))
}

export function outboxIgnoresRollback(adapter: Adapter): Adapter {
  return withOutbox(adapter, () => ({
    async insert(_tx, rows) {
      for (const { queue, copyId, jobId, partitionKey, ordered, body } of rows) {
        const message = { copyId, jobId, partitionKey, ordered, body, delayMs: 0 }
        const send = (): unknown => adapter.driver.send({ name: queue }, [message], new AbortController().signal)
        // Not awaited: the broker may be the very database whose transaction is open.
        setTimeout(send, 20)
      }
    },
  }))
}
