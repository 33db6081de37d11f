/** The part of `pg` that idemq uses, as structural types: a pool from elsewhere fits if it has these. */

export interface PgResult {
  readonly rows: Record<string, unknown>[]
  readonly rowCount: number | null
}

/** Anything that runs one statement with `$1 …` placeholders: a client, a pool, a transaction. */
export interface PgQueryable {
  query(sql: string, params?: unknown[]): Promise<PgResult>
}

/** A connection taken from a pool. `release(true)` closes it instead of giving it back. */
export interface PgClient extends PgQueryable {
  release(destroy?: boolean): void
  on?(event: string, listener: (...args: unknown[]) => void): unknown
  removeListener?(event: string, listener: (...args: unknown[]) => void): unknown
}

/**
 * `Pool` of `pg` has it. It stays yours: idemq never ends it. Give it at least 6 connections; idemq keeps one for
 * renewals and, unless `listen` is false, one for notifications.
 */
export interface PgPool {
  connect(): Promise<PgClient>
  readonly options?: { readonly max?: number }
}
