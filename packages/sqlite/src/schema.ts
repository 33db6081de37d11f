/**
 * The tables, by version. A migration is never edited once released: a change is a new entry at the end.
 *
 * Times are epoch milliseconds, see `FileTime`. A job's life writes few pages: one row and two index entries when
 * it is sent, a few bytes in place and one index move when it is received, and their removal when it is settled.
 */

/** `visible_ms` of a message that waits behind another of its ordering key. As wide as any other instant, see below. */
export const behindMs: number = 2 ** 47 - 1

/**
 * `token` of a message that nobody holds, and where the sequence of tokens starts. With it every token takes six bytes,
 * as every instant does: receiving a message changes its row without changing its size, so SQLite overwrites those
 * bytes in place, however large the body.
 */
export const nobody: number = 2 ** 32

const version1 = `
CREATE TABLE idemq_meta (
  name TEXT PRIMARY KEY, -- 'schema': version of these tables. 'token': the last fencing token given out. 'time': not before this
  value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO idemq_meta (name, value) VALUES ('schema', 0), ('token', ${nobody}), ('time', 0);

CREATE TABLE idemq_queue (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

CREATE TABLE idemq_message (
  id INTEGER PRIMARY KEY,
  queue INTEGER NOT NULL,
  visible_ms INTEGER NOT NULL, -- when it may be received: its due time, or the end of its lease
  token INTEGER NOT NULL, -- the fence of the delivery in flight, else ${nobody}
  deliveries INTEGER NOT NULL,
  due_ms INTEGER NOT NULL,
  held_since_ms INTEGER NOT NULL,
  copy_id TEXT NOT NULL,
  ordering_key TEXT, -- NULL unless the sender asked for order
  body BLOB NOT NULL
);
CREATE UNIQUE INDEX idemq_message_copy ON idemq_message (queue, copy_id);
CREATE INDEX idemq_message_visible ON idemq_message (queue, visible_ms, token);
CREATE INDEX idemq_message_behind ON idemq_message (queue, ordering_key) WHERE visible_ms = ${behindMs};

CREATE TABLE idemq_ordering_key ( -- whose turn it is, while a key has a message that is ready or in flight
  queue INTEGER NOT NULL,
  ordering_key TEXT NOT NULL,
  message INTEGER NOT NULL,
  PRIMARY KEY (queue, ordering_key)
) WITHOUT ROWID;

CREATE TABLE idemq_dead (
  id INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused: a late removal must not hit another letter
  queue INTEGER NOT NULL,
  copy_id TEXT NOT NULL,
  body BLOB NOT NULL,
  UNIQUE (queue, copy_id)
);
CREATE INDEX idemq_dead_queue ON idemq_dead (queue);

CREATE TABLE idemq_inbox (
  token INTEGER PRIMARY KEY, -- of the last claim: it never repeats, and new rows are appended
  scope TEXT NOT NULL,
  key TEXT NOT NULL,
  state TEXT NOT NULL, -- claimed, completed, failed or released
  lease_until_ms INTEGER NOT NULL, -- claimed: the end of the lease. released: how long other jobs are held back. else 0
  expires_ms INTEGER NOT NULL,
  replay INTEGER NOT NULL,
  used INTEGER NOT NULL, -- starts of the key in its current series
  floor INTEGER NOT NULL, -- lowest attempt of this replay without a durable successor
  job_id TEXT NOT NULL,
  crashed INTEGER NOT NULL, -- 1 where the start before the last claim never ended
  fingerprint TEXT NOT NULL,
  result TEXT, -- JSON
  steps TEXT, -- JSON object: JSON text by name of step
  UNIQUE (scope, key)
);

CREATE TABLE idemq_outbox (
  id INTEGER PRIMARY KEY,
  queue TEXT NOT NULL,
  copy_id TEXT NOT NULL,
  job_id TEXT NOT NULL,
  partition_key TEXT NOT NULL,
  ordered INTEGER NOT NULL,
  not_before_ms INTEGER,
  created_ms INTEGER NOT NULL,
  token INTEGER NOT NULL DEFAULT ${nobody},
  lease_until_ms INTEGER NOT NULL DEFAULT 0,
  body BLOB NOT NULL
);
`

/** Entry i brings the tables from version i to i + 1. */
export const migrations: readonly string[] = [version1]
