/** Handlers' transactions: the effect and the end of its claim in one commit, whatever becomes of the connection. */
import { IdemqError, type SqlTransaction } from '@idemq/core'
import type { PgClient, PgQueryable, PgResult } from './client.ts'
import { aborted, beginSql, type Database, ignore, orAborted, type Query, statementTimeoutMs } from './database.ts'
import { Permits } from './permits.ts'
import { databaseError, isConnectionLost, statementError } from './postgres-error.ts'
import { outboxTopic, type Wakeups } from './wakeups.ts'

/**
 * The transaction as a handler gets it. `client` is the connection it runs on, for query builders that take promises.
 * idemq begins and ends the transaction: COMMIT, ROLLBACK and the like are refused. Never `release` it.
 */
export interface PostgresTransaction extends SqlTransaction {
  readonly client: PgQueryable
}

/** Connections that transactions leave to everything else: statements, renewals, notifications. */
const sparedConnections = 4

const what = 'run a transaction'
const never = new AbortController().signal
const watchEveryMs = 1_000
const invalidParameterValue = '22023'

type Outcome<T> = { readonly status: 'committed'; readonly value: T } | { readonly status: 'lost' }

/** Runs handlers' transactions, no more at once than the pool can spare: what they wait for needs connections too. */
export class Transactions {
  readonly #database: Database
  readonly #wakeups: Wakeups
  readonly #permits = new Permits()
  #canWatch = true

  constructor(database: Database, wakeups: Wakeups) {
    this.#database = database
    this.#wakeups = wakeups
  }

  /**
   * Runs `effect`, then `end` as the last statement. `end` answering false, a throw and an abort roll it back.
   * @param readBack what became of a COMMIT whose answer was lost, waiting until that is certain
   * @throws what `effect` throws; IdemqError COMMIT_UNKNOWN, or what the database says
   */
  async run<T>(
    effect: (tx: PostgresTransaction) => Promise<T>,
    end: (query: Query, value: T) => Promise<boolean>,
    readBack: (value: T, signal: AbortSignal) => Promise<'committed' | 'lost' | 'rolled back'>,
    signal: AbortSignal,
  ): Promise<Outcome<T>> {
    const outcome = await this.#permits.hold(Math.max(1, this.#database.poolSize - sparedConnections), signal, () =>
      this.#onConnection(effect, end, signal),
    )
    if (outcome.status !== 'unknown') return outcome
    const { where } = this.#database.options
    let state: Awaited<ReturnType<typeof readBack>>
    try {
      state = await readBack(outcome.value, never)
    } catch (cause) {
      const text = `postgres: a COMMIT was not confirmed, ${where}, and could not be read back yet`
      throw new IdemqError('COMMIT_UNKNOWN', text, cause)
    }
    if (state === 'committed') return { status: 'committed', value: outcome.value }
    if (state === 'lost') return { status: 'lost' }
    throw new IdemqError('BROKER_UNAVAILABLE', `postgres: the connection broke before COMMIT, ${where}`, outcome.error)
  }

  async #onConnection<T>(
    effect: (tx: PostgresTransaction) => Promise<T>,
    end: (query: Query, value: T) => Promise<boolean>,
    signal: AbortSignal,
  ): Promise<Outcome<T> | { readonly status: 'unknown'; readonly value: T; readonly error: unknown }> {
    const { options } = this.#database
    const client = await this.#connect(signal)
    const query: Query = (sql, params) => client.query(sql, params)
    /** The answer to one of idemq's own statements, unless `signal` aborts first. */
    const own = async <R>(doing: string, statement: Promise<R>): Promise<R> => {
      try {
        return await orAborted(this.#answered(statement), signal, what)
      } catch (error) {
        throw statementError(error, doing, options)
      }
    }
    // Until it is known to be over, the connection is in a transaction: closing it rolls back.
    let over = false
    const rollBack = async (): Promise<void> => {
      await this.#answered(query('ROLLBACK'))
      over = true
    }
    try {
      await own('begin a transaction', this.#begin(query))
      const tx = openTransaction(client, this.#database)
      let value: T
      try {
        value = await orAborted(effect(tx), signal, what)
      } catch (error) {
        // After an abort the handler may still be using the connection.
        if (!signal.aborted) await rollBack().catch(ignore)
        throw error
      } finally {
        tx.close()
      }
      const held = await own('end a claim in a transaction', end(query, value)).catch((error) => {
        throw tx.failure() ?? error
      })
      if (!held) {
        await rollBack().catch(ignore)
        return { status: 'lost' }
      }
      try {
        // Not for `signal` to give up: what was asked for may be done already.
        await this.#answered(query('COMMIT'))
      } catch (error) {
        if (isConnectionLost(error)) return { status: 'unknown', value, error }
        // A deferred constraint, say: the server rolled it back.
        over = true
        throw databaseError(error, 'commit a transaction', options)
      }
      over = true
      this.#wakeups.announced(outboxTopic, false)
      return { status: 'committed', value }
    } finally {
      this.#database.give(client, !over)
    }
  }

  /**
   * Begins a transaction in which the server, while it is busy, looks whether anybody still listens. Otherwise the
   * statement of a handler that was given up, or whose process died, would go on and hold its locks.
   */
  async #begin(query: Query): Promise<void> {
    if (this.#canWatch) {
      try {
        await query(`${beginSql}; SET LOCAL client_connection_check_interval = ${watchEveryMs}`)
        return
      } catch (error) {
        if ((error as { code?: unknown }).code !== invalidParameterValue) throw error
        // The system it runs on cannot tell, Windows for one.
        this.#canWatch = false
        await query('ROLLBACK')
      }
    }
    await query(beginSql)
  }

  async #connect(signal: AbortSignal): Promise<PgClient> {
    const { options } = this.#database
    const patience = new AbortController()
    const abort = (): void => patience.abort(aborted(what, signal))
    signal.addEventListener('abort', abort)
    if (signal.aborted) abort()
    const cancel = options.clock.schedule(() => {
      const text = `postgres: no connection is free for a transaction, ${options.where}`
      patience.abort(new IdemqError('BROKER_UNAVAILABLE', text))
    }, statementTimeoutMs)
    try {
      return await this.#database.take(patience.signal)
    } catch (error) {
      throw statementError(error, 'connect', options)
    } finally {
      cancel()
      signal.removeEventListener('abort', abort)
    }
  }

  /** The answer of the server to one of our statements, or, after a while, that it is lost. */
  #answered<R>(statement: Promise<R>): Promise<R> {
    return new Promise((resolve, reject) => {
      const lost = Object.assign(new Error('no answer from the server'), { code: '08006' })
      const cancel = this.#database.options.clock.schedule(() => reject(lost), statementTimeoutMs)
      statement.then(resolve, reject).finally(cancel)
    })
  }
}

interface OpenTransaction extends PostgresTransaction {
  /** The error that aborted the transaction, if the handler caught it and went on. */
  failure(): unknown
  close(): void
}

function openTransaction(client: PgClient, { options }: Database): OpenTransaction {
  let open = true
  let failure: unknown
  /** @throws IdemqError CLOSED, UNSUPPORTED */
  const check = (sql: string): void => {
    if (!open) throw new IdemqError('CLOSED', 'postgres: the transaction has ended; query() belongs to its handler')
    const [, verb = '', rest = ''] = /^\s*(\w+)([\s\w]*)/.exec(sql.replace(comments, ' ')) ?? []
    if (transactionVerbs.has(verb.toUpperCase()) && !/^(\s+(WORK|TRANSACTION))?\s+TO\b/i.test(rest)) {
      const text = `postgres: ${verb} is not for handlers: the transaction is begun and ended for them`
      throw new IdemqError('UNSUPPORTED', text)
    }
  }
  return {
    client: guarded(client, check),
    async query(sql, params = []) {
      check(sql)
      try {
        const { rows, rowCount } = await client.query(sql, [...params])
        return { rows, rowCount: rowCount ?? 0 }
      } catch (thrown) {
        failure = databaseError(thrown, 'run a query of a transaction', options)
        throw failure
      }
    },
    failure: () => failure,
    close() {
      open = false
    },
  }
}

/** The connection for query builders, which `check` keeps from ending the transaction, as `db.transaction()` would. */
function guarded(client: PgClient, check: (sql: string) => void): PgQueryable {
  const query = async (statement: string | { readonly text?: unknown }, ...rest: never[]): Promise<PgResult> => {
    const text = typeof statement === 'string' ? statement : statement.text
    if (typeof text === 'string') check(text)
    return client.query(statement as string, ...rest)
  }
  return new Proxy(client, { get: (of, name) => (name === 'query' ? query : Reflect.get(of, name)) })
}

const comments = /--[^\n]*|\/\*[\s\S]*?\*\//g
/** `ROLLBACK TO` a savepoint of the handler's own is none of them. */
const transactionVerbs = new Set(['BEGIN', 'START', 'COMMIT', 'END', 'ROLLBACK', 'ABORT', 'PREPARE'])
