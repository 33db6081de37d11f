/**
 * The inbox in a SQLite file. The rules of who may claim are those of {@link InboxStore.claim}; one statement a claim
 * decides by them, within a transaction that holds the write lock, so nothing comes between.
 */
import type {
  ClaimAnswer,
  ClaimEnd,
  ClaimRef,
  ClaimRequest,
  ClaimTimes,
  Held,
  InboxStore,
  SqlTransaction,
} from '@idemq/core'
import type { Database } from './database.ts'

interface Row {
  readonly state: 'claimed' | ClaimEnd['state']
  readonly leaseUntilMs: number
  readonly fingerprint: string
  readonly jobId: string
  readonly replay: number
  readonly floor: number
  readonly result: string | null
}

const minRetryAfterMs = 50
const minPurgeWindow = 10_000

const insertSql = `
  INSERT INTO idemq_inbox AS r
    (token, scope, key, state, lease_until_ms, expires_ms, replay, used, floor, job_id, crashed, fingerprint)
  VALUES (?, ?, ?, 'claimed', ?, ?, ?, ?, ?, ?, 0, ?)
  ON CONFLICT (scope, key) DO`

/** Nearly every key is new: this alone takes less than half the time of the statement that knows all the rules. */
const claimNewSql = `${insertSql} NOTHING`

/** A row past its retention is as good as absent: it may not have been purged yet. Parameters: now, six times. */
const claimSql = `${insertSql} UPDATE SET
    token = excluded.token, state = 'claimed', lease_until_ms = excluded.lease_until_ms,
    expires_ms = excluded.expires_ms, replay = excluded.replay, job_id = excluded.job_id,
    fingerprint = excluded.fingerprint, result = NULL, crashed = r.expires_ms > ? AND r.state = 'claimed',
    used = CASE WHEN r.expires_ms <= ? OR r.state = 'failed' OR r.job_id = excluded.job_id AND excluded.replay > r.replay
      THEN excluded.used ELSE max(excluded.used, r.used + 1) END,
    floor = CASE WHEN r.expires_ms > ? AND r.job_id = excluded.job_id AND r.replay = excluded.replay
      THEN max(r.floor, excluded.floor) ELSE excluded.floor END,
    steps = CASE WHEN r.expires_ms > ? AND r.fingerprint = excluded.fingerprint THEN r.steps END
  WHERE (r.lease_until_ms <= ? OR r.state = 'released' AND r.job_id = excluded.job_id) AND (
    r.expires_ms <= ?
    OR r.state IN ('claimed', 'released') AND r.fingerprint = excluded.fingerprint
      AND (r.job_id <> excluded.job_id OR (excluded.replay, excluded.floor) >= (r.replay, r.floor))
    OR r.state = 'failed' AND (r.job_id <> excluded.job_id OR excluded.replay > r.replay))
  RETURNING used, crashed, steps`

const rowSql = `
  SELECT state, lease_until_ms AS leaseUntilMs, fingerprint, job_id AS jobId, replay, floor, result
  FROM idemq_inbox WHERE scope = ? AND key = ?`

const stillClaimed = `token = ? AND scope = ? AND key = ? AND state = 'claimed'`

export function sqliteInboxOn(on: Database): InboxStore<SqlTransaction> {
  const use = on.use('sqlite inbox')
  const { synchronous } = on.options
  /** The token up to which {@link purge} looked on its way round the table. */
  let purgedTo = 0

  function claimOne(request: ClaimRequest, token: number, times: ClaimTimes, nowMs: number): ClaimAnswer {
    const { scope, key, fingerprint, jobId, replay, attempt } = request
    const leaseUntilMs = nowMs + Math.ceil(times.leaseMs)
    const expiresMs = nowMs + Math.ceil(times.retentionMs)
    const row = [token, scope, key, leaseUntilMs, expiresMs, replay, attempt, attempt, jobId, fingerprint]
    if (on.sql(claimNewSql).run(...row).changes > 0) return { status: 'claimed', token, attempt, crashed: false }
    const won = on.sql(claimSql).get(...row, nowMs, nowMs, nowMs, nowMs, nowMs, nowMs) as
      | { used: number; crashed: number; steps: string | null }
      | undefined
    if (!won) return refusal(on.sql(rowSql).get(scope, key) as unknown as Row, request, nowMs)
    const claimed = { status: 'claimed', token, attempt: won.used, crashed: won.crashed === 1 } as const
    return won.steps === null ? claimed : { ...claimed, steps: JSON.parse(won.steps) as Record<string, string> }
  }

  function endOne(
    { token, scope, key, state, floor, free, holdMs, result }: ClaimEnd,
    retentionMs: number,
    nowMs: number,
  ): boolean {
    const heldUntilMs = state === 'released' ? nowMs + Math.ceil(holdMs) : 0
    // Nothing asks for the steps of a completed key again.
    const dropSteps = state === 'completed' ? ', steps = NULL' : ''
    const { changes } = on
      .sql(
        `UPDATE idemq_inbox SET state = ?, floor = max(floor, ?), used = used - ?, lease_until_ms = ?, expires_ms = ?,
           result = ?${dropSteps} WHERE ${stillClaimed}`,
      )
      .run(state, floor, free ? 1 : 0, heldUntilMs, nowMs + Math.ceil(retentionMs), result ?? null, token, scope, key)
    return changes > 0
  }

  function eachHeld<T extends ClaimRef>(
    what: string,
    batch: readonly T[],
    signal: AbortSignal,
    change: (item: T, nowMs: number) => boolean,
  ): Promise<Held[]> {
    return use.database().write(what, signal, () => {
      const nowMs = on.now()
      return batch.map((item) => (change(item, nowMs) ? 'held' : 'lost'))
    })
  }

  return {
    name: 'sqlite',
    capabilities: { durability: synchronous === 'full' ? 'sync' : 'async', transactions: true, expiresItself: false },

    async prepare(mode, signal) {
      await use.database().prepare(mode, signal)
    },

    async claim(batch, times, signal) {
      return use.database().write('claim in the inbox', signal, () => {
        const token = on.nextTokens(batch.length)
        const nowMs = on.now()
        return batch.map((request, i) => claimOne(request, token + i, times, nowMs))
      })
    },

    async renew(batch, leaseMs, signal) {
      return eachHeld('renew claims', batch, signal, ({ token, scope, key }, nowMs) => {
        const { changes } = on
          .sql(`UPDATE idemq_inbox SET lease_until_ms = ? WHERE ${stillClaimed}`)
          .run(nowMs + Math.ceil(leaseMs), token, scope, key)
        return changes > 0
      })
    },

    async record(batch, signal) {
      return eachHeld('record steps', batch, signal, ({ token, scope, key, step, result }) => {
        const row = on.sql(`SELECT steps FROM idemq_inbox WHERE ${stillClaimed}`).get(token, scope, key)
        if (!row) return false
        const known = JSON.parse((row as { steps: string | null }).steps ?? '{}') as Record<string, string>
        const steps = JSON.stringify({ ...known, [step]: result })
        on.sql('UPDATE idemq_inbox SET steps = ? WHERE token = ?').run(steps, token)
        return true
      })
    },

    async end(batch, retentionMs, signal) {
      return eachHeld('end claims', batch, signal, (end, nowMs) => endOne(end, retentionMs, nowMs))
    },

    async transact(effect, end, retentionMs, signal) {
      return use.database().transact(effect, (value) => endOne(end(value), retentionMs, on.now()), signal)
    },

    async purge(max, signal) {
      const window = Math.max(minPurgeWindow, 2 * max)
      return use.database().write('purge the inbox', signal, () => {
        // No index on the expiry: it would cost every job more than this costs. Rows are in the order of their last
        // claims, so what expired is mostly at the front; a second window goes round the table and misses none.
        const nowMs = on.now()
        const front = purgeWindow(on, 0, window, max, nowMs)
        if (front.purged === max || front.last === undefined) return front.purged
        const next = purgeWindow(on, Math.max(purgedTo, front.last), window, max - front.purged, nowMs)
        purgedTo = next.last ?? 0
        return front.purged + next.purged
      })
    },

    async close() {
      await use.close()
    },
  }
}

/** Purges among the `window` rows behind token `after`. `last` is undefined where the table ends. */
function purgeWindow(
  database: Database,
  after: number,
  window: number,
  max: number,
  nowMs: number,
): { readonly purged: number; readonly last: number | undefined } {
  const last = database.sql('SELECT token FROM idemq_inbox WHERE token > ? ORDER BY token LIMIT 1 OFFSET ?')
  const row = last.get(after, window - 1) as { token: number } | undefined
  const { changes } = database
    .sql(
      `DELETE FROM idemq_inbox WHERE token IN (SELECT token FROM idemq_inbox
         WHERE token > ? AND token <= ? AND expires_ms <= ? AND lease_until_ms <= ? ORDER BY token LIMIT ?)`,
    )
    .run(after, row?.token ?? Number.MAX_SAFE_INTEGER, nowMs, nowMs, max)
  return { purged: Number(changes), last: row?.token }
}

function refusal(row: Row, { jobId, replay, attempt, fingerprint }: ClaimRequest, nowMs: number): ClaimAnswer {
  if (row.state === 'completed') {
    if (row.fingerprint !== fingerprint) return { status: 'mismatch' }
    return row.result === null ? { status: 'completed' } : { status: 'completed', result: row.result }
  }
  const belowFloor = replay < row.replay || (replay === row.replay && attempt < row.floor)
  const failedForGood = row.state === 'failed' && replay <= row.replay
  if (row.jobId === jobId && (belowFloor || failedForGood)) return { status: 'stale' }
  if (row.state !== 'failed' && row.fingerprint !== fingerprint) return { status: 'mismatch' }
  return { status: 'busy', retryAfterMs: Math.max(minRetryAfterMs, row.leaseUntilMs - nowMs) }
}
