/**
 * The messages of all queues in one table, and the moves of many at once. A message is received when it is due and the
 * lease of whoever held it is over, so nothing has to be promoted or reclaimed. Only the token decides whether a delivery
 * still holds. What has an ordering key goes through `lanes.ts` too.
 */
import { type Delivery, IdemqError, type Outgoing, type QueueStats, type Settled } from '@idemq/core'
import { numberArray, numbersOf, placeArray, placesOf, textArray } from './arrays.ts'
import { packBodies } from './bodies.ts'
import { type Database, isAnswerLost, type Row } from './database.ts'

/** A delivery as it is held. Made once and changed in place: a worker has thousands of them a second. */
export interface Taken extends Delivery {
  holdUntilMs: number
  readonly copyId: string
  readonly token: string
  /** Where its row is: found there without an index. */
  place: string
  readonly priorDeliveries: number
  readonly orderingKey: string | null
  /** False: it has an ordering key, and may have to wait for its turn. */
  readonly turn: boolean
}

export type Fence = Pick<Taken, 'copyId' | 'token' | 'place' | 'orderingKey'>

/** What became of a batch: the place of each token that held, where it has one still, and the fate of all others. */
export interface Held {
  readonly places: Map<string, string>
  readonly others: Settled
}

export const lost: Settled = { status: 'lost' }

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
      textArray(batch.map(({ copyId }) => copyId)),
      numberArray(batch.map(({ delayMs }) => delayMs)),
      bodies,
      numberArray(starts),
      numberArray(lengths),
      notification?.channel ?? null,
      notification?.payload ?? null,
    ],
    signal,
  )
}

/**
 * Leases up to `max` messages that are due, first those that have been for longest, of those due at or after `from`
 * (microseconds). `next` is where the next look goes on. They are held for `leaseMs` of the database, and here until
 * `holdUntilMs`.
 */
export async function take(
  database: Database,
  queue: number,
  max: number,
  leaseMs: number,
  holdUntilMs: number,
  from: string | undefined,
  signal: AbortSignal,
): Promise<{ readonly found: Taken[]; readonly next: string }> {
  const rows = await database.run(
    'receive',
    `SELECT * FROM ${database.schema}.take_1($1, $2, $3, $4)`,
    [queue, max, leaseMs, from ?? null],
    signal,
  )
  const found: Taken[] = []
  if (rows.length > 1) rows.sort((a, b) => Number(a.nth) - Number(b.nth))
  for (const row of rows) if (row.copies !== null) unpack(row, holdUntilMs, found)
  const last = rows.at(-1)
  return { found, next: String(found.length === max ? last?.last_us : last?.now_us) }
}

function unpack(row: Row, holdUntilMs: number, into: Taken[]): void {
  const copies = JSON.parse(row.copies as string) as string[]
  const places = placesOf(row.places as string)
  const tokens = numbersOf(row.tokens as string)
  const deliveries = numbersOf(row.deliveries as string)
  const lengths = numbersOf(row.lengths as string)
  const ordered = orderedOf(row.ordered as string | null)
  const bodies = row.bodies as Buffer
  let start = 0
  for (let i = 0; i < copies.length; i++) {
    const copyId = copies[i]!
    const end = start + Number(lengths[i])
    const [orderingKey, turn] = ordered?.get(copyId) ?? unordered
    into.push({
      // A copy, so that one message that stays for long does not keep the memory of all.
      body: copies.length === 1 ? bodies : Buffer.from(bodies.subarray(start, end)),
      holdUntilMs,
      copyId,
      token: tokens[i]!,
      place: places[i]!,
      priorDeliveries: Number(deliveries[i]) - 1,
      orderingKey,
      turn,
    })
    start = end
  }
}

const unordered: readonly [null, true] = [null, true]

/** By copy, those with an ordering key. */
function orderedOf(json: string | null): Map<string, [orderingKey: string, turn: boolean]> | undefined {
  return json === null ? undefined : new Map(Object.entries(JSON.parse(json)))
}

/** Removes what is held under its token. */
export function ack(database: Database, queue: number, fences: readonly Fence[], signal: AbortSignal): Promise<Held> {
  return fenced(database, 'settle', 'ack', queue, fences, [], signal)
}

/** Back to whoever comes next. `free`: this delivery does not count. */
export function giveBack(
  database: Database,
  queue: number,
  fences: readonly Fence[],
  free: boolean,
  signal: AbortSignal,
): Promise<Held> {
  return fenced(database, 'give back', 'give_back', queue, fences, [free ? 1 : 0], signal)
}

export function extend(
  database: Database,
  queue: number,
  fences: readonly Fence[],
  leaseMs: number,
  signal: AbortSignal,
): Promise<Held> {
  return fenced(database, 'extend leases', 'extend', queue, fences, [leaseMs], signal)
}

/** Queue, copies and tokens. */
export function fenceParams(queue: number, fences: readonly Fence[]): [queue: number, copies: string, tokens: string] {
  const sorted = fences.toSorted((a, b) => (a.copyId < b.copyId ? -1 : 1))
  return [queue, textArray(sorted.map(({ copyId }) => copyId)), numberArray(sorted.map(({ token }) => token))]
}

/** Of what is held no more. */
const nowhere = ''

/** Each at its place; what is not there, by its copy. */
async function fenced(
  database: Database,
  what: string,
  change: string,
  queue: number,
  fences: readonly Fence[],
  params: readonly unknown[],
  signal: AbortSignal,
): Promise<Held> {
  const more = params.map((_, i) => `, $${i + 3}`).join('')
  const atPlaces = `SELECT tokens, places FROM ${database.schema}.${change}_1($1, $2${more})`
  const held = new Map<string, string>()
  try {
    const placed = [placeArray(fences.map(({ place }) => place)), numberArray(fences.map(({ token }) => token))]
    const [row] = await database.run(what, atPlaces, [...placed, ...params], signal)
    if (typeof row?.tokens === 'string') {
      const places = row.places === null ? [] : placesOf(row.places as string)
      for (const [i, token] of numbersOf(row.tokens).entries()) held.set(token, places[i] ?? nowhere)
    }
    const missing = fences.filter(({ token }) => !held.has(token))
    if (missing.length === 0) return { places: held, others: lost }
    const moreByCopy = params.map((_, i) => `, $${i + 4}`).join('')
    const byCopy = `SELECT token::text, place::text FROM ${database.schema}.${change}_copies_1($1, $2, $3${moreByCopy})`
    const rows = await database.run(what, byCopy, [...fenceParams(queue, missing), ...params], signal)
    for (const { token, place } of rows) held.set(token as string, place as string)
    return { places: held, others: lost }
  } catch (error) {
    return { places: held, others: fateOf(error) }
  }
}

/** The fate of what an error is about. */
export function fateOf(error: unknown): Settled {
  if (isAnswerLost(error)) return { status: 'unknown' }
  if (error instanceof IdemqError) return { status: 'failed', error }
  throw error
}

/** Counts by walking the messages of the queue, up to half a second for a million. Blocks nobody. */
export async function stats(database: Database, queue: number, signal: AbortSignal): Promise<QueueStats> {
  const [row] = await database.run(
    'count',
    `SELECT count(*) FILTER (WHERE ready) AS ready, count(*) FILTER (WHERE delayed) AS delayed,
       count(*) FILTER (WHERE held) AS held, count(*) FILTER (WHERE NOT (ready OR delayed OR held)) AS behind,
       ${ageMs('min(greatest(due_at, lease_until)) FILTER (WHERE ready)')} AS ready_ms,
       ${ageMs(`min(since) FILTER (WHERE due_at = 'infinity')`)} AS behind_ms,
       ${ageMs('min(since) FILTER (WHERE held)')} AS held_ms,
       -${ageMs('min(due_at) FILTER (WHERE delayed)')} AS due_ms,
       (SELECT count(*) FROM ${database.schema}.dead WHERE queue = $1) AS dead
     FROM (
       SELECT due_at, lease_until, since, due_at <= now() AND lease_until <= now() AS ready, lease_until > now() AS held,
         due_at > now() AND due_at < 'infinity' AND lease_until <= now() AS delayed
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
