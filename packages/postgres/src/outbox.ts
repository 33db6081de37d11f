/** The outbox in Postgres: rows committed with the user's own data, sent by a relay afterwards. */
import type { OutboxClaim, OutboxRow, OutboxStore, SqlTransaction } from '@idemq/core'
import type { PgQueryable } from './client.ts'
import type { Database, Row } from './database.ts'
import { Frontier } from './frontier.ts'
import { statementError } from './postgres-error.ts'
import { outboxTopic, type Wakeups } from './wakeups.ts'

/** One statement with its parameters, all text. Every client can run it in one of these forms. */
export interface SqlStatement {
  /** With `$1 …` placeholders. */
  readonly sql: string
  readonly params: readonly string[]
  /** `sql` cut at the placeholders, for a template tag: ``tag(strings, ...params)``. */
  readonly strings: TemplateStringsArray
}

/**
 * A transaction of yours: a connected client of `pg` (or anything with its `query(sql, params)`), what a handler gets
 * from `handleInTransaction`, or a function that runs a statement on whatever client you have.
 */
export type OutboxTransaction =
  | PgQueryable
  | SqlTransaction
  | { readonly execute: (statement: SqlStatement) => Promise<unknown> }

/** What a user's open transaction inserts late appears behind rows that were sent: look at everything this often. */
const wholeLookEveryMs = 50

export function postgresOutboxOn(on: Database, wakeups: Wakeups): OutboxStore<OutboxTransaction> {
  const use = on.use('postgres outbox')
  const { schema } = on
  const { clock, pollMs } = on.options
  const frontier = new Frontier(clock, wholeLookEveryMs)
  const bell = wakeups.bell(outboxTopic)

  const claimSql = `SELECT id::text, token::text, queue, copy_id, job_id, partition_key, ordered, body,
       (extract(epoch FROM not_before) * 1000)::float8 AS not_before_ms
     FROM ${schema}.claim_outbox_1($1, $2, $3)`
  const anySql = `SELECT id::text FROM ${schema}.outbox
    WHERE id > $1::bigint AND lease_until <= now() ORDER BY id LIMIT 1`

  async function claim(max: number, leaseMs: number, signal: AbortSignal): Promise<OutboxClaim[]> {
    const database = use.database()
    const rows = await frontier.look(async (from = '0') => {
      const found = await database.run('claim outbox rows', claimSql, [max, leaseMs, from], signal)
      const ids = found.map(({ id }) => BigInt(id as string)).sort((a, b) => (a < b ? -1 : 1))
      return { found, next: ids.at(-1)?.toString() }
    })
    return rows.map(claimOf).sort((a, b) => (BigInt(a.id) < BigInt(b.id) ? -1 : 1))
  }

  return {
    name: 'postgres',

    async prepare(mode, signal) {
      await use.database().prepare(mode, signal)
    },

    async insert(tx, rows) {
      if (rows.length === 0) return
      const statement = insertStatement(schema, rows)
      try {
        if ('execute' in tx && !('query' in tx)) await tx.execute(statement)
        else await (tx as PgQueryable).query(statement.sql, [...statement.params])
      } catch (error) {
        throw statementError(error, 'insert into the outbox in your transaction', on.options)
      }
    },

    claim,

    async markSent(claims, signal) {
      const sql = `DELETE FROM ${schema}.outbox AS o USING unnest($1::bigint[], $2::bigint[]) AS c (id, token)
        WHERE o.id = ANY ($1::bigint[]) AND o.id = c.id AND o.token = c.token`
      const params = [claims.map(({ id }) => id), claims.map(({ token }) => String(token))]
      await use.database().run('mark outbox rows as sent', sql, params, signal)
    },

    async wait(waitMs, signal) {
      const untilMs = clock.monotonicMs() + waitMs
      for (;;) {
        const seen = bell.armed()
        if (signal.aborted) return
        let isWhole = false
        const found = await frontier.look(async (from) => {
          isWhole = from === undefined
          const rows = await use.database().run('look at the outbox', anySql, [from ?? '0'], signal)
          return { found: rows, next: undefined }
        })
        if (found.length > 0) {
          if (isWhole) frontier.reset()
          return
        }
        const leftMs = untilMs - clock.monotonicMs()
        if (leftMs <= 0) return
        wakeups.ensureListening()
        await bell.wait(Math.min(leftMs, pollMs), seen, signal)
      }
    },

    async stats(signal) {
      const sql = `SELECT count(*)::float8 AS pending, (SELECT extract(epoch FROM clock_timestamp() - created_at) * 1000
          FROM ${schema}.outbox ORDER BY id LIMIT 1)::float8 AS age_ms
        FROM ${schema}.outbox`
      const [row] = await use.database().run('count the outbox', sql, [], signal)
      const pending = Number(row?.pending)
      if (pending === 0 || row?.age_ms === null) return { pending }
      return { pending, oldestUnsentAgeMs: Math.max(0, Number(row?.age_ms)) }
    },

    async close() {
      await use.close()
    },
  }
}

/** One parameter of text, whatever the number of rows: no client has an opinion of its own about that. */
function insertStatement(schema: string, rows: readonly OutboxRow[]): SqlStatement {
  const documents = rows.map(({ queue, copyId, jobId, partitionKey, ordered, notBeforeMs, body }) => ({
    queue,
    copy_id: copyId,
    job_id: jobId,
    partition_key: partitionKey,
    ordered,
    not_before_ms: notBeforeMs ?? null,
    body: Buffer.from(body).toString('base64'),
  }))
  const before = `INSERT INTO ${schema}.outbox (queue, copy_id, job_id, partition_key, ordered, not_before, body)
SELECT queue, copy_id, job_id, partition_key, ordered,
  'epoch'::timestamptz + not_before_ms * interval '1 millisecond', decode(body, 'base64')
FROM ROWS FROM (json_to_recordset(`
  const after = `::text::json) AS (queue text, copy_id text, job_id text, partition_key text, ordered boolean,
  not_before_ms float8, body text)) WITH ORDINALITY ORDER BY ordinality`
  const strings = Object.assign([before, after], { raw: [before, after] })
  return { sql: `${before}$1${after}`, params: [JSON.stringify(documents)], strings }
}

function claimOf(row: Row): OutboxClaim {
  const notBeforeMs = row.not_before_ms === null ? undefined : Number(row.not_before_ms)
  return {
    id: row.id as string,
    token: row.token as string,
    row: {
      queue: row.queue as string,
      copyId: row.copy_id as string,
      jobId: row.job_id as string,
      partitionKey: row.partition_key as string,
      ordered: row.ordered as boolean,
      ...(notBeforeMs !== undefined && { notBeforeMs }),
      body: row.body as Uint8Array,
    },
  }
}
