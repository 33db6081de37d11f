/**
 * The messages of all queues in one table, and the moves of many at once. A message is received when `visible_at` is
 * past: its due time, or the end of the lease of whoever holds it; so nothing has to be promoted or reclaimed. Only the
 * token decides whether a delivery still holds. What has an ordering key goes through `lanes.ts` too.
 */
import type { Outgoing, QueueStats } from '@idemq/core'
import { packBodies } from './bodies.ts'
import type { Database, Row } from './database.ts'

export interface Taken {
  readonly copyId: string
  readonly token: string
  readonly body: Uint8Array
  readonly priorDeliveries: number
  readonly orderingKey: string | null
  /** False: it has an ordering key, and may have to wait for its turn. */
  readonly turn: boolean
}

export type Fence = Pick<Taken, 'copyId' | 'token' | 'orderingKey'>

export interface Notification {
  readonly channel: string
  readonly payload: string
}

/**
 * Stores messages without an ordering key; a copy that is still there stays as it is. Those of one batch are a
 * microsecond apart, in their order.
 */
export async function put(
  database: Database,
  queue: number,
  batch: readonly Outgoing[],
  notification: Notification | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { bodies, starts, lengths } = packBodies(batch)
  await database.run(
    'send',
    `SELECT ${database.schema}.put_1($1, $2, $3, $4, $5, $6, $7, $8)`,
    [
      queue,
      batch.map(({ copyId }) => copyId),
      batch.map(({ delayMs }) => delayMs),
      bodies,
      starts,
      lengths,
      notification?.channel ?? null,
      notification?.payload ?? null,
    ],
    signal,
  )
}

/**
 * Leases up to `max` messages that are visible, first those that have been for longest, at or after `from`
 * (microseconds). `next` is where the next look goes on.
 */
export async function take(
  database: Database,
  queue: number,
  max: number,
  leaseMs: number,
  from: string | undefined,
  signal: AbortSignal,
): Promise<{ readonly found: Taken[]; readonly next: string }> {
  const rows = await database.run(
    'receive',
    `SELECT now_us::text, was_us::text, copy_id, token::text, deliveries, ordering_key, turn, body
     FROM ${database.schema}.take_1($1, $2, $3, $4)`,
    [queue, max, leaseMs, from ?? null],
    signal,
  )
  rows.sort((a, b) => Number(a.was_us) - Number(b.was_us))
  const found = rows.filter((row) => row.copy_id !== null).map(takenOf)
  const last = rows.at(-1)
  return { found, next: String(found.length === max ? last?.was_us : last?.now_us) }
}

function takenOf(row: Row): Taken {
  return {
    copyId: row.copy_id as string,
    token: row.token as string,
    body: row.body as Uint8Array,
    priorDeliveries: Number(row.deliveries) - 1,
    orderingKey: row.ordering_key as string | null,
    turn: row.turn as boolean,
  }
}

/** Removes what is held under its token. Answers the tokens that held, here and below. */
export function ack(
  database: Database,
  queue: number,
  fences: readonly Fence[],
  signal: AbortSignal,
): Promise<Set<string>> {
  return fenced(database, 'settle', 'ack_1($1, $2, $3)', fenceParams(queue, fences), signal)
}

/** Back to whoever comes next. `free`: this delivery does not count. */
export function giveBack(
  database: Database,
  queue: number,
  fences: readonly Fence[],
  free: boolean,
  signal: AbortSignal,
): Promise<Set<string>> {
  const params = [...fenceParams(queue, fences), free ? 1 : 0]
  return fenced(database, 'give back', 'give_back_1($1, $2, $3, $4)', params, signal)
}

export function extend(
  database: Database,
  queue: number,
  fences: readonly Fence[],
  leaseMs: number,
  signal: AbortSignal,
): Promise<Set<string>> {
  const params = [...fenceParams(queue, fences), leaseMs]
  return fenced(database, 'extend leases', 'extend_1($1, $2, $3, $4)', params, signal)
}

/** Queue, copies and tokens. */
export function fenceParams(queue: number, fences: readonly Fence[]): unknown[] {
  const sorted = fences.toSorted((a, b) => (a.copyId < b.copyId ? -1 : 1))
  return [queue, sorted.map(({ copyId }) => copyId), sorted.map(({ token }) => token)]
}

async function fenced(
  database: Database,
  what: string,
  call: string,
  params: unknown[],
  signal: AbortSignal,
): Promise<Set<string>> {
  const rows = await database.run(what, `SELECT token::text FROM ${database.schema}.${call}`, params, signal)
  return new Set(rows.map((row) => row.token as string))
}

/** Counts by walking the messages of the queue, some 100 ms for a million. Blocks nobody. */
export async function stats(database: Database, queue: number, signal: AbortSignal): Promise<QueueStats> {
  const [row] = await database.run(
    'count',
    `SELECT count(*) FILTER (WHERE ready) AS ready, count(*) FILTER (WHERE delayed) AS delayed,
       count(*) FILTER (WHERE held) AS held, count(*) FILTER (WHERE NOT (ready OR delayed OR held)) AS behind,
       ${ageMs('min(visible_at) FILTER (WHERE ready)')} AS ready_ms,
       ${ageMs(`min(since) FILTER (WHERE visible_at = 'infinity')`)} AS behind_ms,
       ${ageMs('min(since) FILTER (WHERE held)')} AS held_ms,
       -${ageMs('min(visible_at) FILTER (WHERE delayed)')} AS due_ms,
       (SELECT count(*) FROM ${database.schema}.dead WHERE queue = $1) AS dead
     FROM (
       SELECT visible_at, since, visible_at <= now() AS ready, visible_at > now() AND token > 0 AS held,
         visible_at > now() AND visible_at < 'infinity' AND token <= 0 AS delayed
       FROM ${database.schema}.message WHERE queue = $1) AS message`,
    [queue],
    signal,
    { limitMs: countTimeoutMs },
  )
  const number = (name: string): number | undefined => (row?.[name] === null ? undefined : Number(row?.[name]))
  const [readyMs, behindMs, heldMs, dueMs] = ['ready_ms', 'behind_ms', 'held_ms', 'due_ms'].map(number)
  const oldestReadyAgeMs = readyMs === undefined ? behindMs : Math.max(readyMs, behindMs ?? 0)
  return {
    ready: number('ready')! + number('behind')!,
    delayed: number('delayed')!,
    inFlight: number('held')!,
    dead: number('dead')!,
    ...(oldestReadyAgeMs !== undefined && { oldestReadyAgeMs }),
    ...(heldMs !== undefined && { oldestInFlightAgeMs: Math.max(0, heldMs) }),
    ...(dueMs !== undefined && { nextDueInMs: dueMs }),
  }
}

const countTimeoutMs = 60_000

function ageMs(time: string): string {
  return `(extract(epoch FROM now() - (${time})) * 1000)::float8`
}
