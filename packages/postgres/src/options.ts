/** How a database is opened: by call or by URL. */
import {
  type Adapter,
  type Clock,
  IdemqError,
  type InboxStore,
  type OpenUrl,
  type OutboxStore,
  reserveBytes,
  systemClock,
} from '@idemq/core'
import type { PgPool } from './client.ts'
import { Database, defaultPoolSize } from './database.ts'
import { postgresDriver } from './driver.ts'
import { postgresInboxOn } from './inbox.ts'
import { checkSchema, defaultSchema } from './migrations.ts'
import { type OutboxTransaction, postgresOutboxOn } from './outbox.ts'
import { endOwnPool, libpqParameters, openOwnPool, placeOf } from './own-pool.ts'
import type { PostgresTransaction } from './transaction.ts'
import { Wakeups } from './wakeups.ts'

export interface PostgresStoreOptions {
  /** `postgres://user:password@host:port/database`; give this or `pool`. */
  readonly url?: string
  /** A pool of yours, which stays yours: close idemq before you end it. */
  readonly pool?: PgPool
  /** Connections of the pool made for `url`, from 5 to 1,000. @default 10 */
  readonly maxConnections?: number
  /** Schema of the tables: a plain lower-case name. @default 'idemq' */
  readonly schema?: string
  /** Milliseconds between looks for what nobody announced, delayed jobs included, from 1 to 60,000. @default 100 */
  readonly pollMs?: number
  /**
   * Keeps a connection for LISTEN, so that work sent by other processes is seen at once. Say false behind a pooler in
   * transaction mode: `pollMs` then says how late. @default true
   */
  readonly listen?: boolean
  /** Its monotonic clock times waits; times in the database are the database's own. @default systemClock */
  readonly clock?: Clock
}

export interface PostgresOptions extends PostgresStoreOptions {
  /** Largest body in bytes, from 32 KiB to 128 MiB. @default 16 MiB */
  readonly maxBodyBytes?: number
}

type Resolved = Required<Omit<PostgresOptions, 'url' | 'pool'>> & Pick<PostgresOptions, 'url' | 'pool'>

const defaults: Required<Omit<PostgresOptions, 'url' | 'pool'>> = {
  maxConnections: defaultPoolSize,
  schema: defaultSchema,
  pollMs: 100,
  listen: true,
  clock: systemClock,
  maxBodyBytes: 16 * 1024 * 1024,
}

/** Lowest and highest value of each number. */
const ranges = {
  maxConnections: [5, 1_000],
  pollMs: [1, 60_000],
  maxBodyBytes: [2 * reserveBytes, 128 * 1024 * 1024],
} as const

export interface PostgresAdapter extends Adapter {
  readonly inbox: InboxStore<PostgresTransaction>
  readonly outbox: OutboxStore<OutboxTransaction>
}

/**
 * A broker, an inbox and an outbox in one database, for any number of processes. Connects to nothing yet: the first
 * call does.
 * @throws IdemqError INVALID_OPTION, INVALID_URL
 */
export function postgres(target: string | PgPool | PostgresOptions): PostgresAdapter {
  const options = resolveOptions(target)
  const { database, wakeups } = open(options)
  return {
    driver: postgresDriver(database, wakeups, options.maxBodyBytes),
    inbox: postgresInboxOn(database, wakeups),
    outbox: postgresOutboxOn(database, wakeups),
  }
}

/**
 * An inbox alone, for a broker that has none.
 * @throws IdemqError INVALID_OPTION, INVALID_URL
 */
export function postgresInbox(target: string | PgPool | PostgresStoreOptions): InboxStore<PostgresTransaction> {
  const { database, wakeups } = open(resolveOptions(target))
  return postgresInboxOn(database, wakeups)
}

/**
 * An outbox alone, in the database of the tables it is to be consistent with.
 * @throws IdemqError INVALID_OPTION, INVALID_URL
 */
export function postgresOutbox(target: string | PgPool | PostgresStoreOptions): OutboxStore<OutboxTransaction> {
  const { database, wakeups } = open(resolveOptions(target))
  return postgresOutboxOn(database, wakeups)
}

/**
 * `postgres://user:password@host:port/database` (or `postgresql://`), with any of `?schema=…&pollMs=…&listen=false&
 * maxConnections=…&maxBodyBytes=…` and the parameters `pg` knows (`sslmode`, `sslrootcert`, `application_name` …).
 * @throws IdemqError INVALID_URL naming the part, INVALID_OPTION
 */
export const openUrl: OpenUrl = async (url, { clock }) => {
  const connection = new URL(url.href)
  const options: Record<string, string | number | boolean> = {}
  for (const [name, value] of url.searchParams) {
    if (libpqParameters.has(name)) continue
    connection.searchParams.delete(name)
    if (name in ranges) options[name] = value.trim() === '' ? Number.NaN : Number(value)
    else if (name === 'schema') options[name] = value
    else if (name === 'listen' && (value === 'true' || value === 'false')) options[name] = value === 'true'
    else {
      const known = [...Object.keys(ranges), 'schema', 'listen (true or false)', ...libpqParameters].join(', ')
      throw new IdemqError('INVALID_OPTION', `postgres: no option '${name}' with this value in a URL; known: ${known}`)
    }
  }
  return postgres({ ...options, url: connection.href, clock })
}

function open(options: Resolved): { readonly database: Database; readonly wakeups: Wakeups } {
  const { url, pool, schema, clock, pollMs, maxConnections, listen } = options
  const database = new Database({
    ...(pool
      ? { where: 'on the pool given', openPool: () => pool, endPool: async () => {} }
      : { where: placeOf(url!), openPool: () => openOwnPool(url!, maxConnections), endPool: endOwnPool }),
    schema,
    clock,
    pollMs,
  })
  return { database, wakeups: new Wakeups(database, listen) }
}

function resolveOptions(target: string | PgPool | PostgresOptions): Resolved {
  const given: PostgresOptions =
    typeof target === 'string' ? { url: target } : 'connect' in target ? { pool: target } : target
  const options: Resolved = { ...defaults, ...given }
  const refuse = (what: string): never => {
    throw new IdemqError('INVALID_OPTION', `postgres: ${what}`)
  }
  if ((options.url === undefined) === (options.pool === undefined)) refuse('give a url or a pool')
  if (options.url !== undefined) placeOf(options.url)
  checkSchema(options.schema)
  for (const name of Object.keys(ranges) as (keyof typeof ranges)[]) {
    const [min, max] = ranges[name]
    const value = options[name]
    if (!(Number.isInteger(value) && value >= min && value <= max)) {
      refuse(`${name} is ${value}, must be an integer from ${min} to ${max}`)
    }
  }
  if (typeof options.listen !== 'boolean') refuse(`listen is ${options.listen}, must be true or false`)
  return options
}
