/** Dead letters: kept as they are, in the order they came, until somebody removes them. */
import type { DeadLetterRecord, Outgoing } from '@idemq/core'
import { packBodies } from './bodies.ts'
import type { Database, Use } from './database.ts'

const never = new AbortController().signal
const pageRows = 200
const pageBytes = 8 * 1024 * 1024

/** Stores letters; a copy that is still there stays as it is. */
export async function bury(
  database: Database,
  queue: number,
  batch: readonly Outgoing[],
  signal: AbortSignal,
): Promise<void> {
  const { bodies, starts, lengths } = packBodies(batch)
  await database.run(
    'dead-letter',
    `INSERT INTO ${database.schema}.dead (queue, copy_id, body)
     SELECT $1::int, copy_id, substring($3::bytea FROM start FOR bytes)
     FROM unnest($2::text[], $4::int[], $5::int[]) WITH ORDINALITY AS b (copy_id, start, bytes, nth)
     ORDER BY nth
     ON CONFLICT (copy_id, queue) DO NOTHING`,
    [queue, batch.map(({ copyId }) => copyId), bodies, starts, lengths],
    signal,
  )
}

/** What was there when the scan began, oldest first, read in pages of bounded size. */
export async function* scanLetters(use: Use, queue: number, signal: AbortSignal): AsyncGenerator<DeadLetterRecord> {
  const what = 'scan dead letters'
  const { schema } = use.database()
  // What is dead-lettered during the scan, such as a replay that failed again, is not part of it.
  const last = `SELECT coalesce(max(id), 0)::text AS id FROM ${schema}.dead WHERE queue = $1`
  const [end] = await use.database().run(what, last, [queue], signal)
  for (let seen: unknown = '0'; ; ) {
    const page = await use.database().run(
      what,
      `SELECT id::text, body FROM (
         SELECT id, body, sum(octet_length(body)) OVER (ORDER BY id) - octet_length(body) AS bytes_before FROM (
           SELECT id, body FROM ${schema}.dead
           WHERE queue = $1 AND id > $2::bigint AND id <= $3::bigint ORDER BY id LIMIT ${pageRows}) AS page) AS page
       WHERE bytes_before < ${pageBytes} ORDER BY page.id`,
      [queue, seen, end?.id],
      signal,
    )
    if (page.length === 0) return
    for (const row of page) yield { id: row.id as string, body: row.body as Uint8Array }
    seen = page.at(-1)?.id
  }
}

export async function removeLetter(use: Use, id: string): Promise<void> {
  const database = use.database()
  await database.run('remove a dead letter', `DELETE FROM ${database.schema}.dead WHERE id = $1::bigint`, [id], never)
}
