/**
 * Ordering keys. Of one key only the head is visible; the others wait with `due_at` infinity, and the next is
 * called when the head is acked. A delayed copy (a retry) waits for nobody before it is due; then it joins the end.
 *
 * Whoever changes a key first locks its row in `lane`, keys sorted, and looks in a statement of its own: that one sees
 * what the last holder of the lock committed. Messages without an ordering key come through none of this.
 */
import type { Outgoing } from '@idemq/core'
import { packBodies } from './bodies.ts'
import type { Database, Query } from './database.ts'
import { type Fence, fenceParams, type Held, lost, type Taken } from './messages.ts'

/** Stores messages with an ordering key; a copy that is still there stays as it is. */
export function putOrdered(
  database: Database,
  queue: number,
  batch: readonly Outgoing[],
  signal: AbortSignal,
): Promise<void> {
  const { bodies, starts, lengths } = packBodies(batch)
  const keys = batch.map(({ partitionKey }) => `${queue}:${partitionKey}`)
  return database.transaction('send', signal, async (query) => {
    await enter(query, database.schema, keys)
    await query(
      `INSERT INTO ${database.schema}.message (queue, due_at, since, copy_id, body, ordering_key, turn, lane_position)
       SELECT $1::int, CASE WHEN delay_ms > 0 THEN now + delay_ms * interval '1 millisecond' ELSE 'infinity' END,
         now + delay_ms * interval '1 millisecond', copy_id, substring($5::bytea FROM start FOR bytes), key, false,
         nextval('${database.schema}.token')
       FROM (SELECT clock_timestamp() AS now) AS clock,
         unnest($2::text[], $3::float8[], $4::int[], $6::int[], $7::text[]) WITH ORDINALITY
           AS b (copy_id, delay_ms, start, bytes, key, nth)
       ORDER BY nth
       ON CONFLICT (copy_id, queue) DO NOTHING`,
      [queue, batch.map(({ copyId }) => copyId), batch.map(({ delayMs }) => delayMs), starts, bodies, lengths, keys],
    )
    await callNext(query, database.schema, keys)
  })
}

/** Removes what is held under its token and calls the next of each key. */
export function ackOrdered(
  database: Database,
  queue: number,
  fences: readonly Fence[],
  signal: AbortSignal,
): Promise<Held> {
  const { schema } = database
  const keys = fences.map(({ orderingKey }) => orderingKey!)
  return database.transaction('settle', signal, async (query) => {
    await query(`SELECT 1 FROM ${schema}.lane WHERE ordering_key = ANY ($1::text[]) ORDER BY ordering_key FOR UPDATE`, [
      keys,
    ])
    const { rows } = await query(
      `WITH gone AS MATERIALIZED (SELECT * FROM ${schema}.ack_copies_1($1, $2, $3)),
       headless AS (
         UPDATE ${schema}.lane AS l SET head = NULL FROM gone
         WHERE l.ordering_key = gone.ordering_key AND l.head = gone.copy_id)
       SELECT token::text, place::text FROM gone`,
      fenceParams(queue, fences),
    )
    await callNext(query, schema, keys)
    return {
      places: new Map(rows.map(({ token, place }) => [token as string, place as string])),
      others: lost,
    }
  })
}

/**
 * Delayed copies that were just leased: the first of a key with no message ahead takes its turn, the others go behind.
 * Answers the copies that may be delivered.
 */
export function takeTurns(
  database: Database,
  queue: number,
  taken: readonly Taken[],
  signal: AbortSignal,
): Promise<Set<string>> {
  const { schema } = database
  const keys = taken.map(({ orderingKey }) => orderingKey!)
  return database.transaction('receive', signal, async (query) => {
    await enter(query, schema, keys)
    const { rows } = await query(
      `WITH held AS (
         SELECT * FROM unnest($2::text[], $3::bigint[], $4::text[]) WITH ORDINALITY AS h (copy_id, token, key, nth)),
       first AS (
         SELECT DISTINCT ON (key) copy_id, key, token
         FROM held JOIN ${schema}.lane AS l ON l.ordering_key = key AND l.head IS NULL
         ORDER BY key, nth),
       called AS (
         UPDATE ${schema}.message AS m SET turn = true FROM first
         WHERE m.copy_id = first.copy_id AND m.queue + 0 = $1 AND m.token = first.token
         RETURNING m.copy_id, m.ordering_key),
       heads AS (
         UPDATE ${schema}.lane AS l SET head = called.copy_id FROM called
         WHERE l.ordering_key = called.ordering_key),
       behind AS (
         UPDATE ${schema}.message AS m
         SET due_at = 'infinity', lease_until = '-infinity', token = 0, deliveries = deliveries - 1,
           lane_position = nextval('${schema}.token')
         FROM held
         WHERE m.copy_id = held.copy_id AND m.queue + 0 = $1 AND m.token = held.token
           AND held.copy_id NOT IN (SELECT copy_id FROM first))
       SELECT copy_id FROM called`,
      [queue, taken.map(({ copyId }) => copyId), taken.map(({ token }) => token), keys],
    )
    await callNext(query, schema, keys)
    return new Set(rows.map((row) => row.copy_id as string))
  })
}

/** Locks the row of each key, making those that are missing. */
async function enter(query: Query, schema: string, keys: readonly string[]): Promise<void> {
  await query(
    `INSERT INTO ${schema}.lane AS l (ordering_key)
     SELECT DISTINCT key COLLATE "C" FROM unnest($1::text[]) AS key ORDER BY 1
     ON CONFLICT (ordering_key) DO UPDATE SET head = l.head`,
    [keys],
  )
}

/** Gives each locked key without a head its next message, or removes its row where none waits. */
async function callNext(query: Query, schema: string, keys: readonly string[]): Promise<void> {
  await query(
    `WITH next AS MATERIALIZED (
       SELECT l.ordering_key, m.copy_id, m.queue
       FROM ${schema}.lane AS l LEFT JOIN LATERAL (
         SELECT copy_id, queue FROM ${schema}.message AS m
         WHERE m.ordering_key = l.ordering_key AND m.due_at = 'infinity' ORDER BY m.lane_position LIMIT 1) AS m ON true
       WHERE l.ordering_key = ANY ($1::text[]) AND l.head IS NULL),
     called AS (
       UPDATE ${schema}.message AS m SET due_at = clock_timestamp(), turn = true FROM next
       WHERE m.copy_id = next.copy_id AND m.queue + 0 = next.queue),
     empty AS (
       DELETE FROM ${schema}.lane AS l USING next WHERE l.ordering_key = next.ordering_key AND next.copy_id IS NULL)
     UPDATE ${schema}.lane AS l SET head = next.copy_id FROM next
     WHERE l.ordering_key = next.ordering_key AND next.copy_id IS NOT NULL`,
    [keys],
  )
}
