/**
 * The provider's own books, on its own SQLite file that no worker touches: every charge it made, and the answer it gave
 * to every Idempotency-Key. A charge and the answer that tells of it are one commit. Nothing here keeps two charges of
 * one order apart but the key: if a client's keys were wrong, the books would show it.
 */
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

export interface Charge {
  readonly chargeId: string
  readonly idempotencyKey: string
  readonly orderId: string
  readonly amountCents: number
}

export interface StoredAnswer {
  readonly requestHash: string
  readonly status: number
  readonly body: string
}

export interface Ledger {
  answerTo(idempotencyKey: string): StoredAnswer | undefined
  /** Stores an answer, and the charge it tells of if there is one, in one commit. */
  record(idempotencyKey: string, card: string, answer: StoredAnswer, charge?: Charge): void
  isReissued(card: string): boolean
  /**
   * Declined cards work from now on, and the declines stored for their keys are forgotten: a decline moved no money, so
   * deciding anew is safe. Returns how many cards.
   */
  reissueDeclinedCards(): number
  charges(): Charge[]
  close(): void
}

/** Opens or creates the books at `path`, its directory too. */
export function openLedger(path: string): Ledger {
  mkdirSync(dirname(path), { recursive: true })
  const db = new DatabaseSync(path)
  db.exec(`
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS charges (
      charge_id TEXT PRIMARY KEY, idempotency_key TEXT NOT NULL, order_id TEXT NOT NULL, amount_cents INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS answers (
      idempotency_key TEXT PRIMARY KEY, card TEXT NOT NULL, request_hash TEXT NOT NULL, status INTEGER NOT NULL,
      body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS reissued_cards (card TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
  `)
  const selectAnswer = db.prepare(
    'SELECT request_hash AS requestHash, status, body FROM answers WHERE idempotency_key = ?',
  )
  const insertAnswer = db.prepare('INSERT INTO answers VALUES (?, ?, ?, ?, ?)')
  const insertCharge = db.prepare('INSERT INTO charges VALUES (?, ?, ?, ?)')
  const selectReissued = db.prepare('SELECT 1 FROM reissued_cards WHERE card = ?')
  const selectCharges = db.prepare(
    `SELECT charge_id AS chargeId, idempotency_key AS idempotencyKey, order_id AS orderId, amount_cents AS amountCents
     FROM charges ORDER BY rowid`,
  )
  const inTransaction = <T>(work: () => T): T => {
    db.exec('BEGIN IMMEDIATE')
    try {
      const result = work()
      db.exec('COMMIT')
      return result
    } catch (error) {
      db.exec('ROLLBACK')
      throw error
    }
  }
  return {
    answerTo: (key) => selectAnswer.get(key) as unknown as StoredAnswer | undefined,
    record: (key, card, answer, charge) =>
      inTransaction(() => {
        if (charge) insertCharge.run(charge.chargeId, charge.idempotencyKey, charge.orderId, charge.amountCents)
        insertAnswer.run(key, card, answer.requestHash, answer.status, answer.body)
      }),
    isReissued: (card) => selectReissued.get(card) !== undefined,
    reissueDeclinedCards: () =>
      inTransaction(() => {
        const { changes } = db
          .prepare('INSERT OR IGNORE INTO reissued_cards SELECT DISTINCT card FROM answers WHERE status = 402')
          .run()
        db.exec('DELETE FROM answers WHERE status = 402')
        return Number(changes)
      }),
    charges: () => selectCharges.all() as unknown as Charge[],
    close: () => db.close(),
  }
}
