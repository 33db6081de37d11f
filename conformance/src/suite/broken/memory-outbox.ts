/** A right outbox whose transactions can overlap: what the wrong ones wrap. A transaction is the list of its rows. */
import { type Clock, Doorbell, type OutboxRow, type OutboxStore, systemClock } from '@idemq/core'
import type { OutboxUnderTest } from '../outbox/index.ts'

/** Rows with the ids they got when they were inserted, as a sequence of a database gives them. */
export type Pending = { readonly id: number; readonly row: OutboxRow }[]

interface Unsent {
  readonly id: number
  readonly row: OutboxRow
  readonly createdMs: number
  token: number
  leaseUntilMs: number
}

export function memoryOutbox(
  wrap: (store: OutboxStore<Pending>) => OutboxStore<Pending> = (store) => store,
): OutboxUnderTest<Pending> {
  const clock: Clock = systemClock
  const bell = new Doorbell(clock)
  const committed: Unsent[] = []
  let lastId = 0
  let lastToken = 0

  const store: OutboxStore<Pending> = {
    name: 'memory',
    prepare: async () => {},
    async insert(tx, rows) {
      for (const row of rows) tx.push({ id: ++lastId, row })
    },
    async claim(max, leaseMs) {
      const nowMs = clock.monotonicMs()
      const free = committed.filter((unsent) => unsent.leaseUntilMs <= nowMs).slice(0, max)
      return free.map((unsent) => {
        unsent.leaseUntilMs = nowMs + leaseMs
        unsent.token = ++lastToken
        return { id: `${unsent.id}`, token: unsent.token, row: unsent.row }
      })
    },
    async markSent(claims) {
      for (const { id, token } of claims) {
        const at = committed.findIndex((unsent) => `${unsent.id}` === id && unsent.token === token)
        if (at >= 0) committed.splice(at, 1)
      }
    },
    async wait(waitMs, signal) {
      const nowMs = clock.monotonicMs()
      if (committed.some((unsent) => unsent.leaseUntilMs <= nowMs)) return
      await bell.wait(waitMs, bell.armed(), signal)
    },
    async stats() {
      const oldest = committed[0]
      if (!oldest) return { pending: 0 }
      return { pending: committed.length, oldestUnsentAgeMs: clock.monotonicMs() - oldest.createdMs }
    },
    close: async () => {},
  }

  return {
    connect: async () => wrap({ ...store }),
    async transaction(body) {
      const tx: Pending = []
      const value = await body(tx)
      const createdMs = clock.monotonicMs()
      committed.push(...tx.map(({ id, row }) => ({ id, row, createdMs, token: 0, leaseUntilMs: 0 })))
      committed.sort((a, b) => a.id - b.id)
      bell.ring()
      return value
    },
    dispose: async () => {},
  }
}
