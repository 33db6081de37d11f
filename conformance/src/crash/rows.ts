/**
 * The table that `reserve` and the bookings of producers write to, in the database of the inbox: no constraint, so that
 * a second row would show.
 */
import { type Adapter, type ClaimEnd, IdemqError, type InboxStore, type SqlTransaction } from '@idemq/core'
import type { FinalRow } from '../oracle/verdict.ts'

const table = 'crash_rows'
/** Not of any job. */
const scope = 'default/crash'
const claimLeaseMs = 60_000
const retentionMs = 3_600_000

/** Writes the row that shows that the transaction of `startId` was committed. */
export async function insertRow(tx: unknown, key: string, startId: string): Promise<void> {
  await (tx as SqlTransaction).query(`INSERT INTO ${table} (key, start_id) VALUES ($1, $2)`, [key, startId])
}

/**
 * Commits what `work` does. Stores begin transactions for claims alone, so this claims `name`, which must be new.
 * @throws what `work` throws, after it was rolled back
 */
export async function commit(
  inbox: InboxStore,
  name: string,
  work: (tx: unknown) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const claim = { scope, key: name, fingerprint: '', jobId: name, replay: 0, attempt: 1 }
  const [answer] = await inbox.claim([claim], { leaseMs: claimLeaseMs, retentionMs }, signal)
  if (answer?.status !== 'claimed') throw new Error(`the inbox answers '${answer?.status}' to a claim of ${name}`)
  const { token } = answer
  const outcome = await inbox.transact!(work, () => endOf(name, token), retentionMs, signal)
  if (outcome.status === 'lost') throw new IdemqError('CLAIM_LOST', `the claim of ${name} ended before its transaction`)
}

export async function createRowsTable({ inbox }: Adapter, signal: AbortSignal): Promise<void> {
  if (!inbox?.transact) return
  const create = `CREATE TABLE ${table} (key text, start_id text)`
  await commit(inbox, 'rows', async (tx) => void (await (tx as SqlTransaction).query(create)), signal)
}

export async function readRows({ inbox }: Adapter, signal: AbortSignal): Promise<FinalRow[]> {
  if (!inbox?.transact) return []
  let rows: FinalRow[] = []
  // Under no valid token: whatever it reads, it is rolled back as lost.
  await inbox.transact(
    async (tx) => {
      const answer = await (tx as SqlTransaction).query(`SELECT key, start_id FROM ${table}`)
      rows = answer.rows.map((row) => ({ key: String(row.key), startId: String(row.start_id) }))
    },
    () => endOf('rows', 0),
    retentionMs,
    signal,
  )
  return rows
}

function endOf(key: string, token: ClaimEnd['token']): ClaimEnd {
  return { scope, key, token, state: 'completed', floor: 1, free: false, holdMs: 0 }
}
