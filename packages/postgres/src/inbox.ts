/**
 * The inbox in Postgres. The rules of who may claim are those of {@link InboxStore.claim}; the functions of
 * `functions.ts` decide by them, one for a whole batch.
 */
import type { ClaimAnswer, ClaimRef, Held, InboxStore } from '@idemq/core'
import type { Database, Row } from './database.ts'
import { KeptConnection } from './kept-connection.ts'
import { type PostgresTransaction, Transactions } from './transaction.ts'
import type { Wakeups } from './wakeups.ts'

export function postgresInboxOn(on: Database, wakeups: Wakeups): InboxStore<PostgresTransaction> {
  const use = on.use('postgres inbox')
  const { schema } = on
  const renewals = new KeptConnection(on)
  const transactions = new Transactions(on, wakeups)
  const claims = 'scope, key, token::text'
  const sql = {
    claim: `SELECT answer, token::text, attempt, crashed, steps::text, result, retry_ms
      FROM ${schema}.claim_1($1, $2, $3, $4, $5, $6, $7, $8)`,
    renew: `SELECT ${claims} FROM ${schema}.renew_1($1, $2, $3, $4)`,
    record: `SELECT ${claims} FROM ${schema}.record_1($1, $2, $3, $4, $5)`,
    end: `SELECT ${claims} FROM ${schema}.end_1($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
    purge: `SELECT purged, next_page FROM ${schema}.purge_1($1, $2)`,
  }
  /** The page of the table {@link InboxStore.purge} goes on from, on its way round. */
  let purgePage = 0

  return {
    name: 'postgres',
    capabilities: { durability: 'sync', transactions: true, expiresItself: false },

    async prepare(mode, signal) {
      await use.database().prepare(mode, signal)
    },

    async claim(batch, { leaseMs, retentionMs }, signal) {
      const database = use.database()
      renewals.keep()
      const params = [
        batch.map(({ scope }) => scope),
        batch.map(({ key }) => key),
        batch.map(({ fingerprint }) => fingerprint),
        batch.map(({ jobId }) => jobId),
        batch.map(({ replay }) => replay),
        batch.map(({ attempt }) => attempt),
        leaseMs,
        retentionMs,
      ]
      const rows = await database.run('claim in the inbox', sql.claim, params, signal)
      return rows.map(claimAnswerOf)
    },

    async renew(batch, leaseMs, signal) {
      const database = use.database()
      const params = [...refParams(batch), leaseMs]
      return heldOf(batch, await database.run('renew claims', sql.renew, params, signal, { from: renewals }))
    },

    async record(batch, signal) {
      const params = [...refParams(batch), batch.map(({ step }) => step), batch.map(({ result }) => result)]
      return heldOf(batch, await use.database().run('record steps', sql.record, params, signal))
    },

    async end(batch, retentionMs, signal) {
      const params = endParams(batch, retentionMs)
      const rows = await use.database().run('end claims', sql.end, params, signal)
      const held = heldOf(batch, rows)
      // Ending twice is lost, within one batch too.
      const seen = new Set<string>()
      return held.map((answer, i) => {
        const token = String(batch[i]!.token)
        if (answer === 'lost' || seen.has(token)) return 'lost'
        seen.add(token)
        return 'held'
      })
    },

    transact(effect, end, retentionMs, signal) {
      const database = use.database()
      return transactions.run(
        effect,
        async (query, value) => {
          const { rows } = await query(sql.end, endParams([end(value)], retentionMs))
          return rows.length > 0
        },
        async (value, patience) => {
          const { scope, key, token } = end(value)
          const state = `SELECT state = 'completed' AND token = $3::bigint AS committed, token = $3::bigint AS ours
            FROM ${schema}.inbox WHERE scope = $1 AND key = $2 FOR UPDATE`
          const [row] = await database.run('read a commit back', state, [scope, key, token], patience)
          return row?.committed === true ? 'committed' : row?.ours === true ? 'rolled back' : 'lost'
        },
        signal,
      )
    },

    async purge(max, signal) {
      const [row] = await use.database().run('purge the inbox', sql.purge, [purgePage, max], signal)
      const purged = Number(row?.purged)
      // All that may be left in this part of the table is found by the next call.
      if (purged < max) purgePage = Number(row?.next_page)
      return purged
    },

    async close() {
      await use.close()
    },
  }
}

function claimAnswerOf(row: Row): ClaimAnswer {
  switch (row.answer as ClaimAnswer['status']) {
    case 'claimed': {
      const claimed = {
        status: 'claimed',
        token: row.token as string,
        attempt: Number(row.attempt),
        crashed: row.crashed === true,
      } as const
      return row.steps === null
        ? claimed
        : { ...claimed, steps: JSON.parse(row.steps as string) as Record<string, string> }
    }
    case 'completed':
      return row.result === null ? { status: 'completed' } : { status: 'completed', result: row.result as string }
    case 'busy':
      return { status: 'busy', retryAfterMs: Number(row.retry_ms) }
    default:
      return { status: row.answer as 'mismatch' | 'stale' }
  }
}

function refParams(batch: readonly ClaimRef[]): unknown[] {
  return [batch.map(({ scope }) => scope), batch.map(({ key }) => key), batch.map(({ token }) => String(token))]
}

function endParams(batch: readonly Parameters<InboxStore['end']>[0][number][], retentionMs: number): unknown[] {
  return [
    ...refParams(batch),
    batch.map(({ state }) => state),
    batch.map(({ floor }) => floor),
    batch.map(({ result }) => result ?? null),
    batch.map(({ free }) => (free ? 1 : 0)),
    batch.map(({ holdMs }) => holdMs),
    retentionMs,
  ]
}

function heldOf(batch: readonly ClaimRef[], rows: readonly Row[]): Held[] {
  const held = new Set(rows.map(({ scope, key, token }) => `${token} ${scope}\0${key}`))
  return batch.map(({ scope, key, token }) => (held.has(`${token} ${scope}\0${key}`) ? 'held' : 'lost'))
}
