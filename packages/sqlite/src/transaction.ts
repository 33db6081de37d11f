/** The open transaction as a handler sees it: `$1 …` placeholders, one statement at a time. */
import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite'
import { IdemqError, type SqlTransaction } from '@idemq/core'
import { fileError } from './sqlite-error.ts'

interface PreparedQuery {
  readonly statement: StatementSync
  /** Numbers of the placeholders it has, ascending. */
  readonly placeholders: readonly number[]
}

/** Statements of handlers are kept prepared, the least recently prepared forgotten first. */
const maxPrepared = 200
const prepared = new WeakMap<DatabaseSync, Map<string, PreparedQuery>>()

export interface OpenTransaction extends SqlTransaction {
  /** @throws what made SQLite undo the transaction, even if the handler caught that and went on */
  assertIntact(): void
  isOpen(): boolean
  close(): void
}

export function openTransaction(connection: DatabaseSync, path: string): OpenTransaction {
  let open = true
  let undone: { readonly by: unknown } | undefined

  function run(sql: string, params: readonly unknown[]): { rows: Record<string, unknown>[]; rowCount: number } {
    const { statement, placeholders } = prepare(connection, sql)
    const highest = placeholders.at(-1) ?? 0
    if (highest !== params.length) {
      throw new IdemqError(
        'INVALID_OPTION',
        `sqlite: ${params.length} values for placeholders up to $${highest}: ${sql}`,
      )
    }
    const values: Record<string, SQLInputValue> = {}
    for (const number of placeholders) values[`$${number}`] = toSqlite(params[number - 1])
    const before = changes(connection)
    const rows = statement.all(values) as Record<string, unknown>[]
    const after = changes(connection)
    return { rows, rowCount: rows.length > 0 || after.total === before.total ? rows.length : after.last }
  }

  function assertIntact(): void {
    if (undone) throw undone.by
  }

  return {
    async query(sql, params = []) {
      if (!open)
        throw new IdemqError('CLOSED', 'sqlite: the transaction has ended; query() belongs to its handler only')
      assertIntact()
      try {
        return run(sql, params)
      } catch (thrown) {
        const error = fileError(thrown, 'run a query of a transaction', path)
        // Whatever ran next would be committed at once, each statement by itself.
        if (!isInTransaction(connection)) undone = { by: error }
        throw error
      }
    },
    assertIntact,
    isOpen: () => open,
    close() {
      open = false
    },
  }
}

/** SQLite refuses a BEGIN within a transaction. (`isTransaction` of node:sqlite came after Node 22.13.) */
function isInTransaction(connection: DatabaseSync): boolean {
  try {
    connection.exec('BEGIN')
  } catch {
    return true
  }
  connection.exec('ROLLBACK')
  return false
}

function prepare(connection: DatabaseSync, sql: string): PreparedQuery {
  const cache = prepared.get(connection) ?? new Map<string, PreparedQuery>()
  prepared.set(connection, cache)
  const known = cache.get(sql)
  if (known) return known
  const code = sql.replace(textAndComments, ' ')
  const verb = /^\s*(\w+)/.exec(code)?.[1]?.toUpperCase() ?? ''
  if (transactionVerbs.has(verb)) {
    throw new IdemqError(
      'UNSUPPORTED',
      `sqlite: ${verb} is not for handlers: the transaction is begun and ended for them`,
    )
  }
  const numbers = [...code.matchAll(/\$(\d+)/g)].map(([, number]) => Number(number))
  const query = {
    statement: connection.prepare(sql),
    placeholders: [...new Set(numbers)].sort((a, b) => a - b),
  }
  if (cache.size >= maxPrepared) cache.delete(cache.keys().next().value!)
  cache.set(sql, query)
  return query
}

const textAndComments = /'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\/\*[\s\S]*?\*\//g
const transactionVerbs = new Set(['BEGIN', 'COMMIT', 'END', 'ROLLBACK', 'SAVEPOINT', 'RELEASE', 'ATTACH', 'DETACH'])

function changes(connection: DatabaseSync): { readonly last: number; readonly total: number } {
  const { statement } = prepare(connection, 'SELECT changes() AS last, total_changes() AS total')
  return statement.get() as { last: number; total: number }
}

/** As other databases' clients take values: booleans, dates and undefined have a natural form here. */
function toSqlite(value: unknown): SQLInputValue {
  if (value === undefined) return null
  if (typeof value === 'boolean') return value ? 1 : 0
  if (value instanceof Date) return value.toISOString()
  return value as SQLInputValue
}
