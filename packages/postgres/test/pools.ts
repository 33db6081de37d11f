/** Pools that behave as something between a program and its server does. */
import type pg from 'pg'
import type { PgClient, PgPool, PgResult } from '../src/index.ts'

/**
 * A pooler in transaction mode: each transaction may run on another connection of the server, and nothing of a session
 * outlives it. What it hands out has no `on`, so nothing can be heard either.
 */
export function transactionPooler(pool: pg.Pool): PgPool {
  return {
    async connect(): Promise<PgClient> {
      let current: pg.PoolClient | undefined
      const finish = async (): Promise<void> => {
        await current?.query('DISCARD ALL')
        current?.release()
        current = undefined
      }
      return {
        async query(sql, params) {
          current ??= await pool.connect()
          const verb = sql.trimStart().slice(0, 8).toUpperCase()
          let inTransaction = verb.startsWith('BEGIN') && !sql.includes('COMMIT;')
          try {
            const result: PgResult = await current.query(sql, params)
            inTransaction ||= transactions.has(current) && !/^(COMMIT|ROLLBACK)$/.test(verb)
            return result
          } catch (error) {
            inTransaction ||= transactions.has(current) && verb !== 'ROLLBACK'
            throw error
          } finally {
            if (inTransaction) transactions.add(current)
            else {
              transactions.delete(current)
              await finish()
            }
          }
        },
        release(destroy) {
          if (current && destroy) current.release(true)
          else if (current) void finish()
          current = undefined
        },
      }
    },
  }
}

const transactions = new WeakSet<pg.PoolClient>()

/** A pool whose connections pass every statement through `intercept`. */
export function interceptedPool(
  pool: pg.Pool,
  intercept: (sql: string, run: () => Promise<PgResult>, client: pg.PoolClient) => Promise<PgResult>,
): PgPool {
  return {
    options: pool.options,
    async connect(): Promise<PgClient> {
      const client = await pool.connect()
      return {
        query: (sql, params) => intercept(sql, () => client.query(sql, params), client),
        release: (destroy) => client.release(destroy),
        on: (event, listener) => client.on(event as 'error', listener),
        removeListener: (event, listener) => client.removeListener(event, listener),
      }
    },
  }
}
