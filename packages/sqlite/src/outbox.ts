/** The outbox in a SQLite file: rows committed with the user's own data, sent by a relay afterwards. */
import { Doorbell, type OutboxRow, type OutboxStore, type SqlTransaction } from '@idemq/core'
import type { Database } from './database.ts'
import { statementError } from './sqlite-error.ts'

/** What {@link OutboxStore.insert} needs of a connection of your own: `DatabaseSync` of node:sqlite has it. */
export interface SqliteConnection {
  prepare(sql: string): { run(...values: (string | number | null | Uint8Array)[]): unknown }
}

const columns = 'queue, copy_id, job_id, partition_key, ordered, not_before_ms, created_ms, body'

export function sqliteOutboxOn(on: Database): OutboxStore<SqlTransaction | SqliteConnection> {
  const use = on.use('sqlite outbox')
  const { clock, path, pollMs } = on.options
  const bell = new Doorbell(clock)
  on.onTransaction(() => bell.ring())

  return {
    name: 'sqlite',

    async prepare(mode, signal) {
      await use.database().prepare(mode, signal)
    },

    async insert(tx, rows) {
      if ('query' in tx) {
        const sql = `INSERT INTO idemq_outbox (${columns}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
        const nowMs = use.database().read('insert into the outbox', () => on.now())
        for (const row of rows) await tx.query(sql, values(row, nowMs))
        return
      }
      try {
        const nowMs = use.database().now()
        const statement = tx.prepare(`INSERT INTO idemq_outbox (${columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`)
        for (const row of rows) statement.run(...values(row, nowMs))
      } catch (error) {
        throw statementError(error, 'insert into the outbox on your connection', path)
      }
    },

    async claim(max, leaseMs, signal) {
      if (!on.read('look at the outbox', anyUnsent)) return []
      return use.database().write('claim outbox rows', signal, () => {
        const nowMs = on.now()
        const token = on.nextTokens(1)
        const rows = on
          .sql(
            `UPDATE idemq_outbox SET token = ?, lease_until_ms = ?
             WHERE id IN (SELECT id FROM idemq_outbox WHERE lease_until_ms <= ? ORDER BY id LIMIT ?)
             RETURNING id, queue, copy_id AS copyId, job_id AS jobId, partition_key AS partitionKey, ordered,
               not_before_ms AS notBeforeMs, body`,
          )
          .all(token, nowMs + Math.ceil(leaseMs), nowMs, max) as unknown as ClaimedRow[]
        return rows
          .sort((a, b) => a.id - b.id)
          .map(({ id, ordered, notBeforeMs, ...row }) => ({
            id: String(id),
            token,
            row: { ...row, ordered: ordered === 1, ...(notBeforeMs !== null && { notBeforeMs }) },
          }))
      })
    },

    async markSent(claims, signal) {
      await use.database().write('mark outbox rows as sent', signal, () => {
        const remove = on.sql('DELETE FROM idemq_outbox WHERE id = ? AND token = ?')
        for (const { id, token } of claims) remove.run(Number(id), token)
      })
    },

    async wait(waitMs, signal) {
      const untilMs = clock.monotonicMs() + waitMs
      for (;;) {
        const seen = bell.armed()
        if (signal.aborted || on.read('look at the outbox', anyUnsent)) return
        const leftMs = untilMs - clock.monotonicMs()
        if (leftMs <= 0) return
        // Commits of other connections ring no bell here.
        await bell.wait(Math.min(leftMs, pollMs), seen, signal)
      }
    },

    async stats() {
      const database = use.database()
      return database.read('count the outbox', () => {
        const { n } = database.sql('SELECT count(*) AS n FROM idemq_outbox').get() as { n: number }
        const oldest = database.sql('SELECT created_ms AS ms FROM idemq_outbox ORDER BY id LIMIT 1').get()
        if (!oldest) return { pending: n }
        return { pending: n, oldestUnsentAgeMs: Math.max(0, database.now() - (oldest as { ms: number }).ms) }
      })
    },

    async close() {
      await use.close()
    },
  }

  function anyUnsent(): boolean {
    const database = use.database()
    const found = database.sql('SELECT 1 FROM idemq_outbox WHERE lease_until_ms <= ? LIMIT 1')
    return found.get(database.now()) !== undefined
  }
}

interface ClaimedRow extends Omit<OutboxRow, 'ordered' | 'notBeforeMs'> {
  readonly id: number
  readonly ordered: number
  readonly notBeforeMs: number | null
}

function values(row: OutboxRow, nowMs: number): (string | number | null | Uint8Array)[] {
  const { queue, copyId, jobId, partitionKey, ordered, notBeforeMs, body } = row
  return [queue, copyId, jobId, partitionKey, ordered ? 1 : 0, notBeforeMs ?? null, nowMs, body]
}
