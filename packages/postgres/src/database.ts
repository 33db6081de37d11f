/**
 * One Postgres database, shared by the driver and the stores of this process: runs statements on a pool's connections,
 * each within a time limit, so that a connection nobody answers on is closed and never waited for.
 *
 * No statement needs anything of the session it runs in: a pooler in transaction mode may stand in between.
 */
import { type Clock, IdemqError } from '@idemq/core'
import type { PgClient, PgPool, PgResult } from './client.ts'
import { latestVersion, migrationSql } from './migrations.ts'
import { isConnectionLost, type Place, statementError, tablesMissing } from './postgres-error.ts'

export interface DatabaseOptions extends Place {
  /** Called when the database is first used, and again if it is used after it was closed. */
  readonly openPool: () => PgPool
  /** Called once nobody uses the database any more. */
  readonly endPool: (pool: PgPool) => Promise<void>
  readonly clock: Clock
  readonly pollMs: number
}

/** The use one driver or store makes of a database. */
export interface Use {
  /** @throws IdemqError CLOSED */
  database(): Database
  /** Waits for what is under way. Connections are closed when nobody uses them any more. Idempotent. */
  close(): Promise<void>
}

export type Row = Record<string, unknown>

/** Longest wait for the answer to a statement, a free connection included. */
export const statementTimeoutMs = 15_000

/** What a pool that does not say has: `pg` does, unless told otherwise. */
export const defaultPoolSize = 10

export class Database implements Connections {
  readonly options: DatabaseOptions
  /** Quoted, for statements. */
  readonly schema: string
  readonly #holders = new Set<object>()
  readonly #running = new Set<Promise<unknown>>()
  readonly #closers: (() => void)[] = []
  /** From the first use to the last close. */
  #session: { readonly pool: PgPool; readonly closing: AbortController } | undefined

  constructor(options: DatabaseOptions) {
    this.options = options
    this.schema = `"${options.schema}"`
  }

  use(name: string): Use {
    const holder = {}
    let closed = false
    return {
      database: () => {
        if (closed) throw new IdemqError('CLOSED', `the ${name} on ${this.options.where} is closed`)
        this.#holders.add(holder)
        this.#session ??= { pool: this.options.openPool(), closing: new AbortController() }
        return this
      },
      close: async () => {
        closed = true
        if (this.#holders.delete(holder) && this.#holders.size === 0) await this.#end()
      },
    }
  }

  /** Aborts when the last use ends. */
  get closing(): AbortSignal {
    return this.#session?.closing.signal ?? AbortSignal.abort()
  }

  /** Connections the pool may have. */
  get poolSize(): number {
    return this.#session?.pool.options?.max ?? defaultPoolSize
  }

  /** Calls back whenever the last use ends, before the pool does. */
  onClose(close: () => void): void {
    this.#closers.push(close)
  }

  /**
   * Runs one statement, by itself its own transaction, and answers its rows. Where the answer is lost, the error
   * satisfies {@link isAnswerLost}.
   * @throws IdemqError as {@link statementError} says, TIMEOUT, ABORTED
   */
  run(what: string, sql: string, params: unknown[], signal: AbortSignal, options?: RunOptions): Promise<Row[]> {
    return this.onConnection(what, signal, async (query) => (await query(sql, params)).rows, options)
  }

  /**
   * Runs `work` on one connection and leaves no transaction open. A connection is closed where the answer of the server
   * is lost.
   */
  onConnection<T>(
    what: string,
    signal: AbortSignal,
    work: (query: Query) => Promise<T>,
    { limitMs = statementTimeoutMs, from = this }: RunOptions = {},
  ): Promise<T> {
    return this.#track(
      this.#within(what, signal, limitMs, async (patience) => {
        const client = await from.take(patience)
        let broken = false
        try {
          return await orAborted(
            work((sql, params) => client.query(sql, params)),
            patience,
            what,
          )
        } catch (thrown) {
          // Given up: the server may go on with it.
          broken = isConnectionLost(thrown) || (patience.aborted && thrown === patience.reason)
          const error = statementError(thrown, what, this.options)
          if (broken) answersLost.add(error as object)
          throw error
        } finally {
          from.give(client, broken)
        }
      }),
    )
  }

  /** Runs `work` in a transaction, READ COMMITTED whatever the database's default. An error rolls it back. */
  transaction<T>(what: string, signal: AbortSignal, work: (query: Query) => Promise<T>): Promise<T> {
    return this.onConnection(what, signal, async (query) => {
      await query(beginSql)
      let value: T
      try {
        value = await work(query)
      } catch (error) {
        if (!isConnectionLost(error)) await query('ROLLBACK')
        throw error
      }
      await query('COMMIT')
      return value
    })
  }

  /** A connection of the pool. `signal` ends the wait for one. */
  async take(signal: AbortSignal): Promise<PgClient> {
    if (!this.#session) throw new IdemqError('CLOSED', `postgres: the connection to ${this.options.where} is closed`)
    const connecting = this.#session.pool.connect()
    try {
      const client = await orAborted(connecting, signal, 'connect')
      // A connection that breaks while nothing runs on it says so by an event; the next statement will say it too.
      client.on?.('error', ignore)
      return client
    } catch (error) {
      connecting.then((client) => client.release(), ignore)
      throw error
    }
  }

  /** Gives a connection back; one that is `broken`, or may be in a transaction, is closed. */
  give(client: PgClient, broken: boolean): void {
    // One that is being closed may still report why.
    if (!broken) client.removeListener?.('error', ignore)
    client.release(broken)
  }

  /**
   * Creates or migrates the tables ('create'), or only looks.
   * @throws IdemqError QUEUE_MISSING saying what to run, QUEUE_MISMATCH for tables of another release, UNAUTHORIZED
   */
  async prepare(mode: 'create' | 'check', signal: AbortSignal): Promise<void> {
    const version = await this.#version(signal)
    const { where, schema } = this.options
    if (version === latestVersion) return
    const mismatch = (what: string): IdemqError => {
      const text = `postgres: the idemq tables in schema "${schema}", ${where}, are of version ${version}, ${what}`
      return new IdemqError('QUEUE_MISMATCH', text)
    }
    if (version > latestVersion) throw mismatch(`newer than ${latestVersion}, the one known here: upgrade`)
    if (mode === 'check') {
      if (version === 0) throw tablesMissing(this.options)
      throw mismatch(`older than ${latestVersion}: run migrationSql(), or connect once with { declare: 'create' }`)
    }
    const script = migrationSql({ schema })
    await this.onConnection('create the tables', signal, async (query) => {
      try {
        await query(script)
      } catch (error) {
        await query('ROLLBACK')
        throw error
      }
    })
  }

  async #end(): Promise<void> {
    const session = this.#session!
    session.closing.abort()
    while (this.#running.size > 0) await Promise.allSettled(this.#running)
    // Somebody may have begun anew meanwhile.
    if (this.#holders.size > 0) return
    for (const close of this.#closers) close()
    this.#session = undefined
    await this.options.endPool(session.pool)
  }

  async #version(signal: AbortSignal): Promise<number> {
    const what = 'look at the tables'
    const table = `${this.schema}.migration`
    const [found] = await this.run(what, 'SELECT to_regclass($1) IS NOT NULL AS there', [table], signal)
    if (found?.there !== true) return 0
    const [row] = await this.run(what, `SELECT coalesce(max(version), 0) AS version FROM ${table}`, [], signal)
    return Number(row?.version)
  }

  /** A signal that aborts with the caller's or when time is up, and errors that say what was done. */
  async #within<T>(
    what: string,
    signal: AbortSignal,
    limitMs: number,
    work: (patience: AbortSignal) => Promise<T>,
  ): Promise<T> {
    if (signal.aborted) throw aborted(what, signal)
    const controller = new AbortController()
    const abort = (): void => controller.abort(aborted(what, signal))
    signal.addEventListener('abort', abort)
    const cancel = this.options.clock.schedule(() => {
      const text = `postgres: cannot ${what}, ${this.options.where}: no answer within ${limitMs} ms`
      controller.abort(new IdemqError('TIMEOUT', text))
    }, limitMs)
    try {
      return await work(controller.signal)
    } catch (error) {
      throw statementError(error, what, this.options)
    } finally {
      cancel()
      signal.removeEventListener('abort', abort)
    }
  }

  #track<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work)
    const forget = (): boolean => this.#running.delete(work)
    work.then(forget, forget)
    return work
  }
}

export interface RunOptions {
  /** How long to wait in all, in milliseconds. @default {@link statementTimeoutMs} */
  readonly limitMs?: number
  /** @default the pool */
  readonly from?: Connections
}

/** Where a connection comes from and goes to. */
export interface Connections {
  take(signal: AbortSignal): Promise<PgClient>
  give(client: PgClient, broken: boolean): void
}

export type Query = (sql: string, params?: unknown[]) => Promise<PgResult>

/** A snapshot of its own for each statement: what a lock was waited for is seen by the next one. */
export const beginSql = 'BEGIN ISOLATION LEVEL READ COMMITTED'

/** The reason of an abort, if it is one of ours. */
export function aborted(what: string, { reason }: AbortSignal): IdemqError {
  if (reason instanceof IdemqError) return reason
  return new IdemqError('ABORTED', `postgres: the caller gave up waiting to ${what}`, reason)
}

const answersLost = new WeakSet<object>()

/** A statement was sent and its answer is lost: it may have run. After any other error of a {@link Database} it did not. */
export function isAnswerLost(error: unknown): boolean {
  return typeof error === 'object' && error !== null && answersLost.has(error)
}

/** `promise`, or a rejection because `signal` aborted, whichever is first. */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal, what: string): Promise<T> {
  let stop = (): void => {}
  const abort = new Promise<never>((_, reject) => {
    stop = () => reject(aborted(what, signal))
    signal.addEventListener('abort', stop)
    if (signal.aborted) stop()
  })
  try {
    return await Promise.race([promise, abort])
  } finally {
    signal.removeEventListener('abort', stop)
    promise.catch(ignore)
  }
}

export function ignore(): void {}
