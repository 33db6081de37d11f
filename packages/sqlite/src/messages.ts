/**
 * The messages of all queues in one table, and the moves of one message. A message is received when `visible_ms` is
 * past: its due time, or the end of the lease of whoever holds it; so nothing has to be promoted or reclaimed.
 *
 * Ordering keys: `idemq_ordering_key` says which message of a key may be received. Others of the key that are due wait
 * with `visible_ms` far in the future, out of the way of every receive, and the next is called when that one is acked.
 * A delayed copy does not queue up before it is due; then it joins the end.
 *
 * Everything that writes runs within {@link Database.write}. Only the token decides whether a delivery still holds.
 */
import type { Outgoing, QueueStats } from '@idemq/core'
import type { Database } from './database.ts'
import { behindMs, nobody } from './schema.ts'

export interface Taken {
  readonly id: number
  readonly token: number
  readonly body: Uint8Array
  readonly priorDeliveries: number
  readonly orderingKey: string | null
}

export type Fence = Pick<Taken, 'id' | 'token' | 'orderingKey'>

/** Stores one message; a copy that is still there stays as it is. */
export function put(database: Database, queue: number, message: Outgoing, nowMs: number): void {
  const delayed = message.delayMs > 0
  const dueMs = delayed ? Math.min(nowMs + Math.ceil(message.delayMs), behindMs - 1) : nowMs
  const orderingKey = message.ordered ? message.partitionKey : null
  const { changes, lastInsertRowid } = database
    .sql(
      `INSERT INTO idemq_message
         (queue, visible_ms, token, deliveries, due_ms, held_since_ms, copy_id, ordering_key, body)
       VALUES (?, ?, ${nobody}, 0, ?, ?, ?, ?, ?) ON CONFLICT (queue, copy_id) DO NOTHING`,
    )
    .run(queue, dueMs, dueMs, dueMs, message.copyId, orderingKey, message.body)
  if (orderingKey === null || delayed || changes === 0) return
  const hasTurn = database
    .sql('INSERT INTO idemq_ordering_key (queue, ordering_key, message) VALUES (?, ?, ?) ON CONFLICT DO NOTHING')
    .run(queue, orderingKey, lastInsertRowid)
  if (hasTurn.changes === 0) {
    database.sql(`UPDATE idemq_message SET visible_ms = ${behindMs} WHERE id = ?`).run(lastInsertRowid)
  }
}

/** Whether {@link take} would find something. Reads only. */
export function anyVisible(database: Database, queue: number, nowMs: number): boolean {
  const found = database.sql('SELECT 1 FROM idemq_message WHERE queue = ? AND visible_ms <= ? LIMIT 1')
  return found.get(queue, nowMs) !== undefined
}

export function take(database: Database, queue: number, max: number, nowMs: number, leaseMs: number): Taken[] {
  for (;;) {
    const token = database.nextTokens(1)
    const rows = database
      .sql(
        `UPDATE idemq_message SET visible_ms = ?, token = ?, deliveries = deliveries + 1, held_since_ms = ?
         WHERE id IN (SELECT id FROM idemq_message WHERE queue = ? AND visible_ms <= ? ORDER BY visible_ms LIMIT ?)
         RETURNING id, deliveries, due_ms AS dueMs, ordering_key AS orderingKey, body`,
      )
      .all(nowMs + Math.ceil(leaseMs), token, nowMs, queue, nowMs, max) as unknown as TakenRow[]
    const taken = rows
      .sort((a, b) => a.dueMs - b.dueMs || a.id - b.id)
      .filter((row) => row.orderingKey === null || takesItsTurn(database, queue, row.orderingKey, row.id))
      .map(({ id, deliveries, orderingKey, body }) => {
        return { id, token, body, priorDeliveries: deliveries - 1, orderingKey }
      })
    // All of them may have gone behind their keys, out of the way of what is visible after them.
    if (taken.length > 0 || rows.length === 0) return taken
  }
}

interface TakenRow {
  readonly id: number
  readonly deliveries: number
  readonly dueMs: number
  readonly orderingKey: string | null
  readonly body: Uint8Array
}

/** False: another of its key is ready or in flight, and this one, delayed until now, went behind those that wait. */
function takesItsTurn(database: Database, queue: number, orderingKey: string, id: number): boolean {
  const turn = database
    .sql('SELECT message FROM idemq_ordering_key WHERE queue = ? AND ordering_key = ?')
    .get(queue, orderingKey) as { message: number } | undefined
  if (turn) {
    if (turn.message === id) return true
    database
      .sql(
        `UPDATE idemq_message SET visible_ms = ${behindMs}, token = ${nobody}, deliveries = deliveries - 1,
           id = (SELECT max(id) + 1 FROM idemq_message) WHERE id = ?`,
      )
      .run(id)
    return false
  }
  database
    .sql('INSERT INTO idemq_ordering_key (queue, ordering_key, message) VALUES (?, ?, ?)')
    .run(queue, orderingKey, id)
  return true
}

/** Whether it took effect, here and below. */
export function ack(database: Database, queue: number, { id, token, orderingKey }: Fence, nowMs: number): boolean {
  const { changes } = database.sql('DELETE FROM idemq_message WHERE id = ? AND token = ?').run(id, token)
  if (changes === 0) return false
  if (orderingKey !== null) callNext(database, queue, orderingKey, nowMs)
  return true
}

function callNext(database: Database, queue: number, orderingKey: string, nowMs: number): void {
  const next = database
    .sql(
      `SELECT id FROM idemq_message WHERE queue = ? AND ordering_key = ? AND visible_ms = ${behindMs} ORDER BY id LIMIT 1`,
    )
    .get(queue, orderingKey) as { id: number } | undefined
  if (!next) {
    database.sql('DELETE FROM idemq_ordering_key WHERE queue = ? AND ordering_key = ?').run(queue, orderingKey)
    return
  }
  database.sql('UPDATE idemq_message SET visible_ms = ? WHERE id = ?').run(nowMs, next.id)
  database
    .sql('UPDATE idemq_ordering_key SET message = ? WHERE queue = ? AND ordering_key = ?')
    .run(next.id, queue, orderingKey)
}

/** Back to its old place. `free`: this delivery does not count. */
export function giveBack(database: Database, { id, token }: Fence, free: boolean): boolean {
  const { changes } = database
    .sql(
      `UPDATE idemq_message SET visible_ms = due_ms, token = ${nobody}, deliveries = deliveries - ?
       WHERE id = ? AND token = ?`,
    )
    .run(free ? 1 : 0, id, token)
  return changes > 0
}

export function extend(database: Database, { id, token }: Fence, nowMs: number, leaseMs: number): boolean {
  const { changes } = database
    .sql('UPDATE idemq_message SET visible_ms = ? WHERE id = ? AND token = ?')
    .run(nowMs + Math.ceil(leaseMs), id, token)
  return changes > 0
}

/** Counts by walking an index, some 100 ms for a million messages, during which nothing else runs. Reads only. */
export function stats(database: Database, queue: number, nowMs: number): Omit<QueueStats, 'dead'> {
  const ready = database
    .sql('SELECT count(*) AS n, min(visible_ms) AS sinceMs FROM idemq_message WHERE queue = ? AND visible_ms <= ?')
    .get(queue, nowMs) as { n: number; sinceMs: number | null }
  const behind = database
    .sql(`SELECT count(*) AS n, min(id) AS first FROM idemq_message WHERE queue = ? AND visible_ms = ${behindMs}`)
    .get(queue) as { n: number; first: number | null }
  const firstBehind = database.sql('SELECT due_ms AS dueMs FROM idemq_message WHERE id = ?').get(behind.first) as
    | { dueMs: number }
    | undefined
  const later = database
    .sql(
      `SELECT count(*) AS n, count(nullif(token, ${nobody})) AS held,
         min(iif(token = ${nobody}, visible_ms, NULL)) AS nextDueMs,
         max(iif(token = ${nobody}, NULL, visible_ms)) AS lastLeaseMs
       FROM idemq_message WHERE queue = ? AND visible_ms > ? AND visible_ms < ${behindMs}`,
    )
    .get(queue, nowMs) as { n: number; held: number; nextDueMs: number | null; lastLeaseMs: number | null }
  const held = database
    .sql(
      `SELECT min(held_since_ms) AS sinceMs FROM idemq_message
       WHERE queue = ? AND visible_ms > ? AND visible_ms <= ? AND token <> ${nobody}`,
    )
    .get(queue, nowMs, later.lastLeaseMs) as { sinceMs: number | null }
  const readySinceMs = Math.min(ready.sinceMs ?? nowMs, firstBehind?.dueMs ?? nowMs)
  return {
    ready: ready.n + behind.n,
    delayed: later.n - later.held,
    inFlight: later.held,
    ...(ready.n + behind.n > 0 && { oldestReadyAgeMs: nowMs - readySinceMs }),
    ...(later.nextDueMs !== null && { nextDueInMs: later.nextDueMs - nowMs }),
    ...(held.sinceMs !== null && { oldestInFlightAgeMs: Math.max(0, nowMs - held.sinceMs) }),
  }
}
