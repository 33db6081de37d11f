/**
 * The tables, by version, as SQL that idemq runs or a DBA does. A migration is never edited once released: a change is
 * a new entry at the end.
 *
 * What keeps it fast: a message has two index entries, written once; receiving, extending and settling it write none
 * (HOT: half of each page is left for that). No statement but `stats` looks at more rows than it works on, see `plans.ts`.
 * Dead rows that vacuum may not remove yet (somebody's old transaction) are stepped over once by each receiver, see
 * `frontier.ts`. Inbox rows are changed in place (HOT) too.
 */
import { IdemqError } from '@idemq/core'
import { functions1 } from './functions.ts'

/** Vacuum by the number of dead rows, not by a share of a backlog, and without pauses. */
const vacuumOften = `autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000`

const version1 = (s: string): string => `
CREATE SEQUENCE ${s}.token; -- fencing tokens of the stores, and places in ordering keys: never given out twice

CREATE TABLE ${s}.queue (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE ${s}.message (
  queue int NOT NULL,
  deliveries int NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL, -- from when it may be received. infinity: waits behind its ordering key
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  since timestamptz NOT NULL, -- behind its ordering key, or held, since
  token bigint NOT NULL DEFAULT 0, -- the fence of the delivery in flight; 0 or below: nobody's
  lane_position bigint, -- among those behind its ordering key
  turn boolean NOT NULL DEFAULT true, -- false: has an ordering key, and another message is ahead or it is not due yet
  copy_id text COLLATE "C" NOT NULL,
  ordering_key text COLLATE "C", -- NULL unless the sender asked for order; after the queue's id and a colon
  body bytea NOT NULL,
  PRIMARY KEY (copy_id, queue)
) WITH (fillfactor = 50, ${vacuumOften}); -- a lease writes the row anew in the same page, and no index
ALTER TABLE ${s}.message ALTER body SET STORAGE EXTERNAL;
CREATE INDEX message_due ON ${s}.message (queue, due_at);
CREATE INDEX message_behind ON ${s}.message (ordering_key, lane_position) WHERE due_at = 'infinity';

CREATE TABLE ${s}.lane ( -- an ordering key that has a message which is ready or in flight
  ordering_key text COLLATE "C" PRIMARY KEY,
  head text -- copy_id of that message; NULL only within a transaction
) WITH (${vacuumOften});

CREATE TABLE ${s}.dead (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  queue int NOT NULL,
  copy_id text COLLATE "C" NOT NULL,
  body bytea NOT NULL,
  UNIQUE (copy_id, queue)
);
ALTER TABLE ${s}.dead ALTER body SET STORAGE EXTERNAL;
CREATE INDEX dead_queue ON ${s}.dead (queue, id);

CREATE TABLE ${s}.inbox (
  scope text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  state text NOT NULL, -- claimed, completed, failed or released
  token bigint NOT NULL,
  lease_until timestamptz NOT NULL, -- of a released key: until when other jobs are told 'busy'
  expires_at timestamptz NOT NULL,
  replay int NOT NULL,
  used int NOT NULL, -- starts of the key in its current series
  floor int NOT NULL, -- lowest attempt of this replay without a durable successor
  crashed boolean NOT NULL DEFAULT false, -- the start before the last never ended
  job_id text NOT NULL,
  fingerprint text NOT NULL,
  result text, -- JSON
  steps jsonb, -- JSON text by name of step
  PRIMARY KEY (scope, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000,
  autovacuum_vacuum_cost_delay = 0);

CREATE TABLE ${s}.outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  queue text NOT NULL,
  copy_id text NOT NULL,
  job_id text NOT NULL,
  partition_key text NOT NULL,
  ordered boolean NOT NULL,
  not_before timestamptz,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  token bigint NOT NULL DEFAULT 0,
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  body bytea NOT NULL
) WITH (fillfactor = 70, ${vacuumOften});
ALTER TABLE ${s}.outbox ALTER body SET STORAGE EXTERNAL;
${functions1(s)}`

/** Entry i brings the tables from version i to i + 1. */
const migrations: readonly ((schema: string) => string)[] = [version1]

export const defaultSchema: string = 'idemq'

/** The version of the tables this release works with. */
export const latestVersion: number = migrations.length

export interface MigrationOptions {
  /** Schema of the tables: a plain lower-case name. @default 'idemq' */
  readonly schema?: string
  /** Queues to declare. @default none: the application declares its own */
  readonly queues?: readonly string[]
  /** A role that is to use the tables without owning them: it is granted what idemq needs, and no DDL. */
  readonly role?: string
}

/**
 * The SQL that creates or migrates the tables, for `psql` or any other client. Idempotent, one transaction, safe to run
 * while others do. A DBA can run it for an application that may create no tables: with `role` it also grants what that
 * needs. The application then connects as usual; with `{ declare: 'check' }` its queues must be in `queues`.
 * @throws IdemqError INVALID_OPTION on a schema, role or queue that is no name of one
 */
export function migrationSql(options: MigrationOptions = {}): string {
  const { schema = defaultSchema, role, queues = [] } = options
  checkSchema(schema)
  if (role !== undefined && !/^[^"\0]{1,63}$/.test(role)) {
    throw new IdemqError(
      'INVALID_OPTION',
      `migrationSql: role '${role}' must be a name of 1 to 63 characters without '"'`,
    )
  }
  const s = quoted(schema)
  const steps = migrations.map(
    (migration, from) => `
  IF NOT EXISTS (SELECT FROM ${s}.migration WHERE version = ${from + 1}) THEN
${migration(s)}
INSERT INTO ${s}.migration (version) VALUES (${from + 1});
  END IF;`,
  )
  const named = queues.map((name) => {
    checkQueue(name)
    return `INSERT INTO ${s}.queue (name) VALUES ('${name}') ON CONFLICT DO NOTHING;\n`
  })
  return `BEGIN;
SELECT pg_advisory_xact_lock(${migrationLock});
DO $migrate$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '${schema}') THEN
    CREATE SCHEMA ${s};
  END IF;
  CREATE TABLE IF NOT EXISTS ${s}.migration (version int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());${steps.join('\n')}
END $migrate$;
${named.join('')}${role === undefined ? '' : grants(s, quoted(role))}COMMIT;
`
}

function grants(s: string, role: string): string {
  return `GRANT USAGE ON SCHEMA ${s} TO ${role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${s} TO ${role};
REVOKE INSERT, UPDATE, DELETE ON ${s}.migration FROM ${role};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA ${s} TO ${role};
`
}

/** 'idemq' in ASCII: serialises migrations, whatever their schema. */
const migrationLock = 0x69_64_65_6d_71

function quoted(name: string): string {
  return `"${name}"`
}

/** @throws IdemqError INVALID_OPTION */
export function checkSchema(schema: string): void {
  if (typeof schema === 'string' && /^[a-z_][a-z0-9_]{0,49}$/.test(schema)) return
  const text = `postgres: schema '${schema}' must have 1 to 50 of a-z, 0-9 and '_', and start with no digit`
  throw new IdemqError('INVALID_OPTION', text)
}

function checkQueue(name: string): void {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(name)) return
  throw new IdemqError('INVALID_OPTION', `migrationSql: '${name}' is no name of a queue`)
}
