/** The one connection of a process to its file: opened when first needed, prepared statements kept, locks waited for. */
import { existsSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { IdemqError } from '@idemq/core'
import { isBusy, tablesMissing } from './sqlite-error.ts'

export interface ConnectionOptions {
  /** Absolute. */
  readonly path: string
  readonly busyTimeoutMs: number
  readonly synchronous: 'full' | 'normal'
}

/**
 * A lock is waited for inside SQLite, which blocks the event loop, in slices of this length; timers and I/O get their
 * turn between two.
 */
const busySliceMs = 25
const cacheKib = 32 * 1024
const maxWalBytes = 64 * 1024 * 1024
/** 16 MiB of log between two checkpoints, four times SQLite's own default: keys of jobs touch pages at random. */
const checkpointPages = 4_000

export class Connection {
  readonly #options: ConnectionOptions
  #native: DatabaseSync | undefined
  readonly #statements = new Map<string, StatementSync>()

  constructor(options: ConnectionOptions) {
    this.#options = options
  }

  /** @throws IdemqError QUEUE_MISSING where there is no file: only {@link create} makes one */
  native(): DatabaseSync {
    if (this.#native) return this.#native
    if (!existsSync(this.#options.path)) throw tablesMissing(this.#options.path)
    return this.#open()
  }

  /** Opens the file, makes it if it is missing, and gives it a write-ahead log. */
  create(): Promise<void> {
    return this.#whileBusy(() => useWal(this.#native ?? this.#open()))
  }

  /** The prepared statement for `sql`; it is kept, so `sql` must be one of a fixed few. */
  sql(sql: string): StatementSync {
    const known = this.#statements.get(sql)
    if (known) return known
    const statement = this.native().prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }

  /** IMMEDIATE: a transaction that takes the write lock later fails at once if another wrote in between. */
  begin(): Promise<void> {
    return this.#whileBusy(() => this.sql('BEGIN IMMEDIATE').run())
  }

  rollback(): void {
    try {
      this.sql('ROLLBACK').run()
    } catch (error) {
      // Some errors (a full disk) make SQLite roll back by itself. After any other the connection is of no more use.
      if (!/no transaction is active/.test((error as Error).message)) this.close()
    }
  }

  /** Undoes what is not committed. The next use opens the file again. */
  close(): void {
    const native = this.#native
    this.#native = undefined
    this.#statements.clear()
    native?.close()
  }

  #open(): DatabaseSync {
    const { path, busyTimeoutMs, synchronous } = this.#options
    const native = new DatabaseSync(path)
    try {
      native.exec(`
        PRAGMA busy_timeout = ${Math.min(busyTimeoutMs, busySliceMs)};
        PRAGMA synchronous = ${synchronous};
        PRAGMA cache_size = -${cacheKib};
        PRAGMA wal_autocheckpoint = ${checkpointPages};
        PRAGMA journal_size_limit = ${maxWalBytes};
        PRAGMA temp_store = memory;`)
      // The first look into the file: is it a database?
      native.prepare('SELECT count(*) FROM sqlite_master').get()
    } catch (error) {
      native.close()
      throw error
    }
    this.#native = native
    return native
  }

  /** Several processes may write one file: whoever is busy is waited for, `busyTimeoutMs` in all. */
  async #whileBusy(attempt: () => void): Promise<void> {
    const untilMs = performance.now() + this.#options.busyTimeoutMs
    for (;;) {
      try {
        return attempt()
      } catch (error) {
        if (!isBusy(error) || performance.now() >= untilMs) throw error
      }
      await nextTurn()
    }
  }
}

export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** The mode stays with the file, so this changes something only once. */
function useWal(native: DatabaseSync): void {
  for (const sql of ['PRAGMA journal_mode', 'PRAGMA journal_mode = wal']) {
    const { journal_mode: mode } = native.prepare(sql).get() as { journal_mode: string }
    if (mode === 'wal') return
  }
  throw new IdemqError('UNSUPPORTED', 'sqlite: no write-ahead log can be had here; put the file on a local disk')
}
