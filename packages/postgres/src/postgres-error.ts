/** What Postgres's error codes and its client's mean to a caller. https://www.postgresql.org/docs/current/errcodes-appendix.html */
import { type ErrorCode, IdemqError } from '@idemq/core'

interface Meaning {
  readonly code: ErrorCode
  readonly advice: string
}

/** Where a database is and how its tables are made: for messages. Never holds a password. */
export interface Place {
  readonly where: string
  readonly schema: string
}

const unavailable: Meaning = { code: 'BROKER_UNAVAILABLE', advice: 'see whether the server is up and can be reached' }
const untrusted: Meaning = {
  code: 'UNAUTHORIZED',
  advice: "the server's certificate is not trusted: give its authority with sslrootcert",
}

/** By SQLSTATE, by its first two characters, or by the code Node gives a network error. */
const meanings: Readonly<Record<string, Meaning>> = {
  '08': unavailable,
  '22': { code: 'INVALID_OPTION', advice: 'a value cannot be stored' },
  '23': { code: 'QUEUE_MISMATCH', advice: 'the tables are not those of this release' },
  '25006': {
    code: 'BROKER_READ_ONLY',
    advice: 'connect to the primary (a standby and a read-only role take no writes)',
  },
  '28': { code: 'UNAUTHORIZED', advice: 'check the user, its password and pg_hba.conf' },
  '40': { code: 'BROKER_BUSY', advice: 'another transaction was in the way' },
  '42': { code: 'QUEUE_MISMATCH', advice: 'the tables are not those of this release' },
  '42501': { code: 'UNAUTHORIZED', advice: 'grant the role what migrationSql({ role }) grants' },
  '53': { code: 'BROKER_BUSY', advice: 'the server is short of resources' },
  '53100': { code: 'BROKER_FULL', advice: 'free disk space' },
  '53300': { code: 'BROKER_UNAVAILABLE', advice: 'too many connections: lower maxConnections or use a pooler' },
  '54000': { code: 'BODY_TOO_LARGE', advice: 'a value exceeds what Postgres stores' },
  '55P03': { code: 'BROKER_BUSY', advice: 'another transaction holds a lock' },
  '57014': { code: 'BROKER_BUSY', advice: 'statement_timeout ended it' },
  '57': unavailable,
  '58': { code: 'BROKER_UNAVAILABLE', advice: 'the server reported an error of its disk or system' },
  ECONNREFUSED: unavailable,
  ECONNRESET: unavailable,
  ECONNABORTED: unavailable,
  EPIPE: unavailable,
  ETIMEDOUT: unavailable,
  EHOSTUNREACH: unavailable,
  ENETUNREACH: unavailable,
  ENOTFOUND: { code: 'BROKER_UNAVAILABLE', advice: 'the host name is not known: check the URL' },
  EAI_AGAIN: { code: 'BROKER_UNAVAILABLE', advice: 'the host name could not be looked up' },
  ENOENT: { code: 'BROKER_UNAVAILABLE', advice: 'there is no such socket: is the server up?' },
  CERT_HAS_EXPIRED: untrusted,
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  ERR_TLS_CERT_ALTNAME_INVALID: untrusted,
}

/** The commit of a send whose wake-up found no room, because somebody's LISTEN stands in an old transaction. */
const notifyQueueFull: Meaning = {
  code: 'BROKER_BUSY',
  advice: 'a session with LISTEN keeps a transaction open: end it',
}

/** What `pg` itself says, without a code. */
const clientMessages: readonly (readonly [RegExp, Meaning])[] = [
  [/pool after calling end/i, { code: 'CLOSED', advice: 'its pool was ended: close idemq before it' }],
  [
    /does not support SSL/i,
    { code: 'UNSUPPORTED', advice: 'the server speaks no TLS: turn ssl on there, or sslmode off' },
  ],
  [
    /password must be a string|SASL|authentication/i,
    { code: 'UNAUTHORIZED', advice: 'give the user and its password' },
  ],
  [
    /timeout exceeded when trying to connect/i,
    { code: 'BROKER_UNAVAILABLE', advice: 'no connection was free or could be made in time' },
  ],
  [/connection (was )?(terminated|ended|closed|error)|not queryable|socket|timeout expired/i, unavailable],
]

function sqlState(thrown: unknown): string | undefined {
  const code = thrown instanceof Error ? (thrown as { code?: unknown }).code : undefined
  return typeof code === 'string' ? code : undefined
}

const unreadable: Meaning = { code: 'INVALID_OPTION', advice: 'a file named in the URL cannot be read' }

function meaningOf(thrown: unknown): Meaning | undefined {
  const code = sqlState(thrown)
  if (code !== undefined && (thrown as NodeJS.ErrnoException).syscall === 'open') return unreadable
  if (code === '54000' && /NOTIFY/.test((thrown as Error).message)) return notifyQueueFull
  if (code !== undefined) return meanings[code] ?? meanings[code.slice(0, 2)]
  if (thrown instanceof AggregateError) return meaningOf(thrown.errors[0])
  if (!(thrown instanceof Error)) return undefined
  return clientMessages.find(([pattern]) => pattern.test(thrown.message))?.[1]
}

/** The connection broke: a statement that was under way may have run. Any other error says that it did not. */
export function isConnectionLost(thrown: unknown): boolean {
  if (thrown instanceof IdemqError) return false
  const code = sqlState(thrown)
  if (code !== undefined && /^[0-9A-Z]{5}$/.test(code) && !(code in nodeCodes)) {
    return code.startsWith('08') || code === '57P01' || code === '57P02' || code === '57P03'
  }
  return meaningOf(thrown) === unavailable || code !== undefined
}

/** Codes of Node with five characters, which no SQLSTATE is. */
const nodeCodes = { EPIPE: true } as const

/**
 * An error that says something about the database as a whole, as an IdemqError. Others (a constraint, a syntax error,
 * what a handler threw) are returned as they are: they belong to whoever wrote the statement.
 */
export function databaseError(thrown: unknown, what: string, { where }: Place): unknown {
  if (thrown instanceof IdemqError) return thrown
  const meaning = meaningOf(thrown)
  const state = sqlState(thrown) ?? ''
  if (!meaning || (/^(22|23|42)/.test(state) && state !== '42501')) return thrown
  return new IdemqError(
    meaning.code,
    `postgres: cannot ${what}, ${where}: ${messageOf(thrown)}; ${meaning.advice}`,
    thrown,
  )
}

/** An error of one of idemq's own statements, as an IdemqError. What is no error of the database is returned as it is. */
export function statementError(thrown: unknown, what: string, place: Place): unknown {
  if (thrown instanceof IdemqError) return thrown
  switch (sqlState(thrown)) {
    case '42P01':
    case '3F000':
      return tablesMissing(place, thrown)
    case '3D000': {
      const text = `postgres: cannot ${what}, ${place.where}: ${messageOf(thrown)}; create it with CREATE DATABASE`
      return new IdemqError('QUEUE_MISSING', text, thrown)
    }
  }
  const error = databaseError(thrown, what, place)
  if (error !== thrown || sqlState(thrown) === undefined) return error
  const meaning = meaningOf(thrown) ?? { code: 'BROKER_UNAVAILABLE', advice: 'an error the server does not expect' }
  const text = `postgres: cannot ${what}, ${place.where}: ${messageOf(thrown)}; ${meaning.advice}`
  return new IdemqError(meaning.code, text, thrown)
}

export function tablesMissing({ where, schema }: Place, cause?: unknown): IdemqError {
  const given = schema === 'idemq' ? '' : `{ schema: '${schema}' }`
  const text =
    `postgres: no idemq tables in schema "${schema}", ${where}: create them once with { declare: 'create' }, or have ` +
    `your DBA run: node -e "import('@idemq/postgres').then((p) => console.log(p.migrationSql(${given})))" | psql`
  return new IdemqError('QUEUE_MISSING', text, cause)
}

function messageOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.errors[0] instanceof Error) return thrown.errors[0].message
  return thrown instanceof Error ? thrown.message : String(thrown)
}
