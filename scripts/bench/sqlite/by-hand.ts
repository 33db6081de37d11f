/**
 * The same rows in the same tables, written by hand through `node:sqlite`: no envelope, schema, claim rules, retries
 * or handlers, everything prepared beforehand. What idemq is compared with.
 */
import { DatabaseSync } from 'node:sqlite'
import { nobody } from '../../../packages/sqlite/src/schema.ts'
import { type Cost, expectCount, measure } from '../harness/measure.ts'
import { chargeOrder, concurrency, enqueueBatch } from '../harness/workload.ts'

/** With the settings of the adapter. */
export function openByHand(path: string): DatabaseSync {
  const database = new DatabaseSync(path)
  database.exec(`
    PRAGMA synchronous = full;
    PRAGMA cache_size = -${32 * 1024};
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = ${64 * 1024 * 1024};
    PRAGMA temp_store = memory;`)
  return database
}

interface MessageRow {
  readonly queue: number
  readonly copyId: string
  readonly body: Uint8Array
}

export interface InsertByHand {
  /** Filled by idemq; only read. */
  readonly from: string
  /** Has the tables and the queue. */
  readonly to: string
  /** Whether the JSON of each body is made on the way, or beforehand. */
  readonly encode: boolean
}

/** Inserts the messages of `from` into `to`, in batches of {@link enqueueBatch}. */
export async function insertByHand({ from, to, encode }: InsertByHand): Promise<Cost> {
  const source = openByHand(from)
  const rows = source
    .prepare('SELECT queue, copy_id AS copyId, body FROM idemq_message ORDER BY id')
    .all() as unknown as MessageRow[]
  source.close()
  const envelopes = encode ? rows.map(({ body }) => JSON.parse(Buffer.from(body).toString())) : []
  const database = openByHand(to)
  const insert = database.prepare(
    `INSERT INTO idemq_message (queue, visible_ms, token, deliveries, due_ms, held_since_ms, copy_id, ordering_key, body)
     VALUES (?, ?, ${nobody}, 0, ?, ?, ?, NULL, ?)`,
  )
  const [begin, commit] = [database.prepare('BEGIN IMMEDIATE'), database.prepare('COMMIT')]
  const cost = await measure(rows.length, () => {
    for (let next = 0; next < rows.length; next += enqueueBatch) {
      begin.run()
      for (let i = next; i < Math.min(next + enqueueBatch, rows.length); i++) {
        const { queue, copyId, body } = rows[i]!
        const nowMs = Date.now()
        insert.run(queue, nowMs, nowMs, nowMs, copyId, encode ? Buffer.from(JSON.stringify(envelopes[i])) : body)
      }
      commit.run()
    }
  })
  database.close()
  return cost
}

export interface WorkByHand {
  readonly path: string
  readonly jobs: number
  /** As many as the worker makes for a hundred jobs; may be a fraction. */
  readonly commitsPerHundred: number
}

interface Received {
  readonly id: number
  readonly body: Uint8Array
}

/** Does to each message and inbox row what a worker does, in hundreds, with the same number of commits. */
export async function workByHand({ path, jobs, commitsPerHundred }: WorkByHand): Promise<Cost> {
  const database = openByHand(path)
  const keys = keysOf(database)
  const sql = {
    begin: database.prepare('BEGIN IMMEDIATE'),
    commit: database.prepare('COMMIT'),
    token: database.prepare(`UPDATE idemq_meta SET value = value + ? WHERE name = 'token' RETURNING value`),
    receive: database.prepare(
      `UPDATE idemq_message SET visible_ms = ?, token = ?, deliveries = deliveries + 1, held_since_ms = ?
       WHERE id IN (SELECT id FROM idemq_message WHERE queue = 1 AND visible_ms <= ? ORDER BY visible_ms LIMIT ?)
       RETURNING id, body`,
    ),
    claim: database.prepare(
      `INSERT INTO idemq_inbox (token, scope, key, state, lease_until_ms, expires_ms, replay, used, floor, crashed, job_id, fingerprint)
       VALUES (?, ?, ?, 'claimed', ?, ?, 0, 1, 1, 0, ?, ?)`,
    ),
    complete: database.prepare(
      `UPDATE idemq_inbox SET state = 'completed', lease_until_ms = ?, expires_ms = ? WHERE token = ? AND state = 'claimed'`,
    ),
    remove: database.prepare('DELETE FROM idemq_message WHERE id = ? AND token = ?'),
  }
  const leaseMs = 30_000
  const retentionMs = 14 * 24 * 3_600_000
  const scope = `default/${chargeOrder.name}`
  const fingerprint = chargeOrder.fingerprint({})
  const nextTokens = (count: number): number => (sql.token.get(count) as { value: number }).value - count + 1

  let owed = 0
  /** A batch takes four steps; commits are spread over them evenly. */
  function endStep(): void {
    owed += commitsPerHundred / 4
    if (owed < 1) return
    sql.commit.run()
    sql.begin.run()
    owed -= Math.floor(owed)
  }

  function workBatch(from: number): number {
    const nowMs = Date.now()
    const lease = nextTokens(1)
    const batch = sql.receive.all(nowMs + leaseMs, lease, nowMs, nowMs, concurrency) as unknown as Received[]
    endStep()
    const first = nextTokens(batch.length)
    for (let i = 0; i < batch.length; i++) {
      const { key, jobId } = keys[from + i]!
      sql.claim.run(first + i, scope, key, nowMs + leaseMs, nowMs + retentionMs, jobId, fingerprint)
    }
    endStep()
    for (let i = 0; i < batch.length; i++) sql.complete.run(nowMs, nowMs + retentionMs, first + i)
    endStep()
    for (const { id } of batch) sql.remove.run(id, lease)
    endStep()
    return batch.length
  }

  let done = 0
  const cost = await measure(jobs, () => {
    sql.begin.run()
    for (let worked = workBatch(done); worked > 0; worked = workBatch(done)) done += worked
    sql.commit.run()
  })
  expectCount('jobs worked by hand', done, jobs)
  expectWorked(database, jobs)
  database.close()
  return cost
}

function keysOf(database: DatabaseSync): { readonly key: string; readonly jobId: string }[] {
  return database
    .prepare('SELECT body FROM idemq_message ORDER BY id')
    .all()
    .map(({ body }) => {
      const envelope = JSON.parse(Buffer.from(body as Uint8Array).toString())
      return { key: envelope.idempotency_key, jobId: envelope.job_id }
    })
}

/** @throws Error if a message is left, or the inbox has another number of completed keys than `jobs` */
export function expectWorked(database: DatabaseSync, jobs: number): void {
  const one = (sql: string): number => (database.prepare(sql).get() as { n: number }).n
  expectCount('messages left', one('SELECT count(*) AS n FROM idemq_message'), 0)
  expectCount('keys completed', one(`SELECT count(*) AS n FROM idemq_inbox WHERE state = 'completed'`), jobs)
}
