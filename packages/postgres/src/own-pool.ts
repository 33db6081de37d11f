/** The pool idemq makes for a URL. */
import { IdemqError } from '@idemq/core'
import pg from 'pg'
import type { PgPool } from './client.ts'
import { ignore } from './database.ts'

const connectTimeoutMs = 10_000
const keepAliveDelayMs = 10_000

/** Parameters of a URL that are for `pg`. */
export const libpqParameters: ReadonlySet<string> = new Set([
  'application_name',
  'client_encoding',
  'fallback_application_name',
  'host',
  'lock_timeout',
  'options',
  'password',
  'port',
  'sslcert',
  'sslkey',
  'sslmode',
  'sslnegotiation',
  'sslrootcert',
  'ssl',
  'user',
  'uselibpqcompat',
])

export function openOwnPool(url: string, maxConnections: number): PgPool {
  const pool = new pg.Pool({
    connectionString: url,
    max: maxConnections,
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveDelayMs,
    fallback_application_name: 'idemq',
  })
  // A connection that breaks while idle is dropped by the pool; whoever needs one gets another, or an error.
  pool.on('error', ignore)
  // One that breaks in the moment it is handed out has nobody else who listens yet.
  pool.on('connect', (client) => client.on('error', ignore))
  return pool
}

export async function endOwnPool(pool: PgPool): Promise<void> {
  await (pool as pg.Pool).end()
}

/**
 * Host, port and database of a URL, for messages: never the password.
 * @throws IdemqError INVALID_URL
 */
export function placeOf(text: string): string {
  // The text may hold a password: it is not repeated.
  const refuse = (what: string, cause?: unknown): never => {
    throw new IdemqError('INVALID_URL', `postgres: ${what}; write postgres://user:password@host:port/database`, cause)
  }
  let url: URL
  try {
    url = new URL(text)
  } catch (cause) {
    return refuse('not a URL', cause)
  }
  if (url.protocol !== 'postgres:' && url.protocol !== 'postgresql:') refuse(`'${url.protocol}' is another scheme`)
  if (url.hash !== '') refuse("a '#' in the password must be written %23")
  const host = url.searchParams.get('host') ?? (url.hostname === '' ? 'localhost' : url.hostname)
  return `${host}:${url.port === '' ? '5432' : url.port}${url.pathname}`
}
