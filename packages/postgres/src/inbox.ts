/**
 * The inbox in Postgres. The rules of who may claim are those of {@link InboxStore.claim}; the functions of
 * `store-functions.ts` decide by them, one for a whole batch.
 */
import type { ClaimAnswer, ClaimEnd, ClaimRef, Held, InboxStore } from '@idemq/core'
import { numberArray, textArray } from './arrays.ts'
import type { Database, Row } from './database.ts'
import { KeptConnection } from './kept-connection.ts'
import { type PostgresTransaction, Transactions } from './transaction.ts'
import type { Wakeups } from './wakeups.ts'

export function postgresInboxOn(on: Database, wakeups: Wakeups): InboxStore<PostgresTransaction> {
  const use = on.use('postgres inbox')
  const { schema } = on
  const renewals = new KeptConnection(on)
  const transactions = new Transactions(on, wakeups)
  const sql = {
    claim: `SELECT tokens, starts, others FROM ${schema}.claim_1($1, $2, $3, $4, $5, $6, $7, $8)`,
    renew: `SELECT ${schema}.renew_1($1, $2, $3, $4) AS held`,
    record: `SELECT ${schema}.record_1($1, $2, $3, $4, $5) AS held`,
    end: `SELECT ${schema}.end_1($1, $2, $3, $4, $5, $6, $7, $8, $9) AS held`,
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
        textArray(batch.map(({ scope }) => scope)),
        textArray(batch.map(({ key }) => key)),
        textArray(batch.map(({ fingerprint }) => fingerprint)),
        textArray(batch.map(({ jobId }) => jobId)),
        numberArray(batch.map(({ replay }) => replay)),
        numberArray(batch.map(({ attempt }) => attempt)),
        leaseMs,
        retentionMs,
      ]
      const [row] = await database.run('claim in the inbox', sql.claim, params, signal)
      return claimAnswersOf(row!)
    },

    async renew(batch, leaseMs, signal) {
      const database = use.database()
      const params = [...refParams(batch), leaseMs]
      return heldOf(batch, await database.run('renew claims', sql.renew, params, signal, { from: renewals }))
    },

    async record(batch, signal) {
      const params = [
        ...refParams(batch),
        textArray(batch.map(({ step }) => step)),
        textArray(batch.map(({ result }) => result)),
      ]
      return heldOf(batch, await use.database().run('record steps', sql.record, params, signal))
    },

    async end(batch, retentionMs, signal) {
      const params = endParams(batch, retentionMs)
      return heldOf(batch, await use.database().run('end claims', sql.end, params, signal))
    },

    transact(effect, end, retentionMs, signal) {
      const database = use.database()
      return transactions.run(
        effect,
        async (query, value) => {
          const { rows } = await query(sql.end, endParams([end(value)], retentionMs))
          return rows[0]?.held !== null
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

/** What is said of a key beside a token and the number of its starts. */
interface Other {
  readonly status: ClaimAnswer['status']
  readonly crashed: boolean | null
  readonly steps: Readonly<Record<string, string>> | null
  readonly result: string | null
  readonly retryAfterMs: number
}

function claimAnswersOf({ tokens, starts, others }: Row): ClaimAnswer[] {
  const other = JSON.parse((others as string | null) ?? '{}') as Readonly<Record<string, Other>>
  const attempts = (starts as string).split(',')
  return (tokens as string).split(',').map((token, i): ClaimAnswer => {
    const more = other[i + 1]
    const attempt = Number(attempts[i])
    if (!more) return { status: 'claimed', token, attempt, crashed: false }
    const { status, crashed, steps, result, retryAfterMs } = more
    switch (status) {
      case 'claimed':
        return { status, token, attempt, crashed: crashed === true, ...(steps && { steps }) }
      case 'completed':
        return result === null ? { status } : { status, result }
      case 'busy':
        return { status, retryAfterMs }
      default:
        return { status }
    }
  })
}

function refParams(batch: readonly ClaimRef[]): string[] {
  return [
    textArray(batch.map(({ scope }) => scope)),
    textArray(batch.map(({ key }) => key)),
    numberArray(batch.map(({ token }) => token)),
  ]
}

function endParams(batch: readonly ClaimEnd[], retentionMs: number): unknown[] {
  return [
    ...refParams(batch),
    textArray(batch.map(({ state }) => state)),
    numberArray(batch.map(({ floor }) => floor)),
    textArray(batch.map(({ result }) => result)),
    numberArray(batch.map(({ free }) => (free ? 1 : 0))),
    numberArray(batch.map(({ holdMs }) => holdMs)),
    retentionMs,
  ]
}

function heldOf(batch: readonly ClaimRef[], [row]: readonly Row[]): Held[] {
  const answers = batch.map((): Held => 'lost')
  if (typeof row?.held === 'string') for (const number of row.held.split(',')) answers[Number(number) - 1] = 'held'
  return answers
}
