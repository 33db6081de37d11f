/** How a file is opened: by call or by URL. */
import { resolve } from 'node:path'
import {
  type Adapter,
  type Clock,
  IdemqError,
  type InboxStore,
  type OpenUrl,
  type OutboxStore,
  reserveBytes,
  type SqlTransaction,
  systemClock,
} from '@idemq/core'
import { Database } from './database.ts'
import { sqliteDriver } from './driver.ts'
import { sqliteInboxOn } from './inbox.ts'
import { type SqliteConnection, sqliteOutboxOn } from './outbox.ts'

export interface SqliteStoreOptions {
  /** The database file; its directory must exist. Relative paths start at the working directory. */
  readonly path: string
  /**
   * Milliseconds to wait for another process's write lock before BROKER_BUSY, from 0 to 60,000. The wait blocks the
   * event loop for up to 25 ms at a time. @default 1_000
   */
  readonly busyTimeoutMs?: number
  /** Milliseconds between looks for what other processes sent, from 1 to 60,000. @default 15 */
  readonly pollMs?: number
  /**
   * `full`: what was confirmed survives a power loss. `normal`: it survives a crash of the process, but a power loss
   * may take the last moments; several times faster for single jobs. @default 'full'
   */
  readonly synchronous?: 'full' | 'normal'
  /** Gives the times in the file, which never go back even where its wall clock does, and the waits. @default systemClock */
  readonly clock?: Clock
}

export interface SqliteOptions extends SqliteStoreOptions {
  /** Largest body in bytes, from 32 KiB to 512 MiB. @default 16 MiB */
  readonly maxBodyBytes?: number
}

const defaults: Required<Omit<SqliteOptions, 'path'>> = {
  busyTimeoutMs: 1_000,
  pollMs: 15,
  synchronous: 'full',
  clock: systemClock,
  maxBodyBytes: 16 * 1024 * 1024,
}

/** Lowest and highest value of each number. */
const ranges = {
  busyTimeoutMs: [0, 60_000],
  pollMs: [1, 60_000],
  maxBodyBytes: [2 * reserveBytes, 512 * 1024 * 1024],
} as const

/**
 * A broker, an inbox and an outbox in one file, for any number of processes of one machine. Opens nothing yet: the
 * first call does.
 * @throws IdemqError INVALID_OPTION, INVALID_URL for `:memory:`
 */
export function sqlite(target: string | SqliteOptions): SqliteAdapter {
  const options = resolveOptions(target)
  const database = new Database(options)
  return {
    driver: sqliteDriver(database, options.maxBodyBytes),
    inbox: sqliteInboxOn(database),
    outbox: sqliteOutboxOn(database),
  }
}

export interface SqliteAdapter extends Adapter {
  readonly inbox: InboxStore<SqlTransaction>
  readonly outbox: OutboxStore<SqlTransaction | SqliteConnection>
}

/**
 * An inbox alone, for a broker that has none, in a file of its own or beside your tables.
 * @throws IdemqError INVALID_OPTION, INVALID_URL
 */
export function sqliteInbox(target: string | SqliteStoreOptions): InboxStore<SqlTransaction> {
  return sqliteInboxOn(new Database(resolveOptions(target)))
}

/**
 * An outbox alone, in the file of the tables it is to be consistent with.
 * @throws IdemqError INVALID_OPTION, INVALID_URL
 */
export function sqliteOutbox(target: string | SqliteStoreOptions): OutboxStore<SqlTransaction | SqliteConnection> {
  return sqliteOutboxOn(new Database(resolveOptions(target)))
}

/**
 * `sqlite:./jobs.db` or `sqlite:/var/lib/jobs.db`, with any of `?busyTimeoutMs=…&pollMs=…&synchronous=full|normal&
 * maxBodyBytes=…`.
 * @throws IdemqError INVALID_URL naming the part, INVALID_OPTION
 */
export const openUrl: OpenUrl = async (url, { clock }) => {
  if (url.host !== '' || url.hash !== '' || url.pathname === '' || url.pathname === '/') {
    const text = `'${url.href}': write sqlite:./relative/path.db or sqlite:/absolute/path.db`
    throw new IdemqError('INVALID_URL', text)
  }
  const options: Record<string, string | number> = {}
  for (const [name, value] of url.searchParams) {
    if (name in ranges) options[name] = value.trim() === '' ? Number.NaN : Number(value)
    else if (name === 'synchronous') options[name] = value
    else {
      const known = [...Object.keys(ranges), 'synchronous'].join(', ')
      throw new IdemqError('INVALID_OPTION', `'${url.href}': unknown option '${name}', known: ${known}`)
    }
  }
  return sqlite({ ...options, path: decodePath(url), clock })
}

function decodePath(url: URL): string {
  try {
    return decodeURIComponent(url.pathname)
  } catch (cause) {
    throw new IdemqError('INVALID_URL', `'${url.href}': the path is not percent-encoded properly`, cause)
  }
}

function resolveOptions(target: string | SqliteOptions): Required<SqliteOptions> {
  const given = typeof target === 'string' ? { path: target } : target
  const options = { ...defaults, ...given }
  const { path, synchronous } = options
  const refuse = (what: string): never => {
    throw new IdemqError('INVALID_OPTION', `sqlite: ${what}`)
  }
  if (typeof path !== 'string' || path.trim() === '') refuse('path must name a file')
  if (path === ':memory:' || path.startsWith('file:')) {
    const text = `sqlite: '${path}' is no file that several connections share; for a broker in memory use memory:`
    throw new IdemqError('INVALID_URL', text)
  }
  for (const name of Object.keys(ranges) as (keyof typeof ranges)[]) {
    const [min, max] = ranges[name]
    const value = options[name]
    if (!(Number.isInteger(value) && value >= min && value <= max)) {
      refuse(`${name} is ${value}, must be an integer from ${min} to ${max}`)
    }
  }
  if (synchronous !== 'full' && synchronous !== 'normal') {
    refuse(`synchronous is '${synchronous}', must be 'full' or 'normal'`)
  }
  return { ...options, path: resolve(path) }
}
