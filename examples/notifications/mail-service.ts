/**
 * Stands for a mail service: an append-only SQLite file beside the workers. It takes an idempotency key with each
 * message, as some mail services do, and accepts a message once per key. One that takes no key may get a message twice
 * when a worker dies between sending it and recording that it was sent.
 */
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

export interface Message {
  readonly type: string
  readonly recipient: string
  readonly businessId: string
}

export interface MailService {
  /** Sends once per key. */
  send(message: Message, call: { idempotencyKey: string }): void
  /** Everything sent, oldest first. */
  sent(): Message[]
  close(): void
}

/** Opens or creates the file at `path`, its directory too. Several processes may have it open. */
export function openMailService(path: string): MailService {
  mkdirSync(dirname(path), { recursive: true })
  const db = new DatabaseSync(path, { timeout: 10_000 })
  db.exec(`
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS sent (
      idempotency_key TEXT NOT NULL UNIQUE, type TEXT NOT NULL, recipient TEXT NOT NULL, business_id TEXT NOT NULL
    ) STRICT;
  `)
  const insert = db.prepare('INSERT INTO sent VALUES (?, ?, ?, ?) ON CONFLICT (idempotency_key) DO NOTHING')
  const select = db.prepare('SELECT type, recipient, business_id AS businessId FROM sent ORDER BY rowid')
  return {
    send: ({ type, recipient, businessId }, { idempotencyKey }) =>
      void insert.run(idempotencyKey, type, recipient, businessId),
    sent: () => select.all() as unknown as Message[],
    close: () => db.close(),
  }
}
