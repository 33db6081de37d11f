/** What SQLite's result codes mean to a caller. https://www.sqlite.org/rescode.html */
import { type ErrorCode, IdemqError } from '@idemq/core'

interface Meaning {
  readonly code: ErrorCode
  readonly advice: string
}

const meanings: Readonly<Record<number, Meaning>> = {
  3: { code: 'UNAUTHORIZED', advice: 'the process may not access the file' },
  5: { code: 'BROKER_BUSY', advice: 'another connection holds the write lock; keep transactions on this file short' },
  6: { code: 'BROKER_BUSY', advice: 'another connection holds a table lock' },
  7: { code: 'BROKER_UNAVAILABLE', advice: 'out of memory' },
  8: { code: 'BROKER_READ_ONLY', advice: 'make the file and its directory writable to this process' },
  10: { code: 'BROKER_UNAVAILABLE', advice: 'the disk reported an error' },
  11: {
    code: 'QUEUE_MISMATCH',
    advice: 'the file is damaged: restore it, or save what is left with `sqlite3 .recover`',
  },
  13: { code: 'BROKER_FULL', advice: 'free disk space or raise max_page_count' },
  14: { code: 'BROKER_UNAVAILABLE', advice: 'check that its directory exists and can be written' },
  18: { code: 'BODY_TOO_LARGE', advice: 'a value exceeds what SQLite stores' },
  23: { code: 'UNAUTHORIZED', advice: 'an authorizer refused the statement' },
  26: { code: 'QUEUE_MISMATCH', advice: 'the file is not a SQLite database: check the path' },
}

function resultCode(thrown: unknown): number | undefined {
  const errcode = thrown instanceof Error ? (thrown as { errcode?: unknown }).errcode : undefined
  return typeof errcode === 'number' ? errcode & 0xff : undefined
}

export function isBusy(thrown: unknown): boolean {
  const code = resultCode(thrown)
  return code === 5 || code === 6
}

/**
 * An error of SQLite that says something about the file as a whole, as an IdemqError. Others (a constraint, a syntax
 * error, what a handler threw) are returned as they are: they belong to whoever wrote the statement.
 */
export function fileError(thrown: unknown, what: string, path: string): unknown {
  const meaning = meanings[resultCode(thrown) ?? 0]
  if (!meaning) return thrown
  const text = `sqlite: cannot ${what}, ${path}: ${(thrown as Error).message}; ${meaning.advice}`
  return new IdemqError(meaning.code, text, thrown)
}

/** An error of one of idemq's own statements, as an IdemqError. What is no error of SQLite is returned as it is. */
export function statementError(thrown: unknown, what: string, path: string): unknown {
  const error = fileError(thrown, what, path)
  if (error !== thrown || resultCode(thrown) === undefined) return error
  const { message } = thrown as Error
  if (/no such table: (main\.)?idemq_/.test(message)) return tablesMissing(path, thrown)
  const text = `sqlite: cannot ${what}, ${path}: ${message}; the tables are not those of this release`
  return new IdemqError('QUEUE_MISMATCH', text, thrown)
}

export function tablesMissing(path: string, cause?: unknown): IdemqError {
  const text =
    `sqlite: ${path} has no idemq tables: create them once with connect('sqlite:${path}', { declare: 'create' }), ` +
    `or prepare('create') of a store`
  return new IdemqError('QUEUE_MISSING', text, cause)
}
