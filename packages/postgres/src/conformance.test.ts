import { randomUUID } from 'node:crypto'
import { driverSuite, outboxSuite, storeSuite } from '@idemq/conformance'
import { bed } from '@idemq/conformance/bed'
import type { Adapter } from '@idemq/core'
import pg from 'pg'
import { afterAll, describe, it, vi } from 'vitest'
import { ignore } from './database.ts'
import { postgres, postgresInbox, postgresOutbox } from './index.ts'

const server = await bed('postgres')
const { url } = server
const schema = 'conformance'
const admin = new pg.Pool({ connectionString: url })
admin.on('error', ignore)
/** A pool of its own for each adapter, whose connections are found by its name. */
const pools = new Map<Adapter, { readonly pool: pg.Pool; readonly name: string }>()
afterAll(async () => {
  for (const { pool } of pools.values()) await pool.end()
  await admin.end()
  await server.stop()
})

const scale = { leaseMs: 400, delayMs: 100 }

driverSuite(
  { describe, it },
  {
    name: 'postgres',
    capabilities: postgres({ url, schema }).driver.capabilities,
    async createAdapter() {
      const name = randomUUID()
      const pool = new pg.Pool({ connectionString: url, application_name: name })
      pool.on('error', ignore)
      const adapter = postgres({ pool, schema })
      pools.set(adapter, { pool, name })
      return adapter
    },
    scale,
    restart: () => server.restart(),
    async kill() {
      await server.kill()
      await server.start()
    },
    async sever(adapter) {
      const { pool, name } = pools.get(adapter)!
      await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1', [name])
      // Until its pool knows: a send on its way over a dead connection is rightly answered 'unknown'.
      await vi.waitUntil(() => pool.totalCount === 0, { timeout: 10_000, interval: 10 })
    },
  },
)

await admin.query(`CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.effect (id text)`)

storeSuite(
  { describe, it },
  {
    name: 'postgres',
    capabilities: postgresInbox({ url, schema }).capabilities,
    createStore: async () => postgresInbox({ url, schema }),
    createUnpreparedStore: async () => postgresInbox({ url, schema: freshSchema() }),
    createStoreWithClock: async (clock) => postgresInbox({ url, schema, clock }),
    effects: {
      async write(tx, id) {
        await tx.query(`INSERT INTO ${schema}.effect (id) VALUES ($1)`, [id])
      },
      async count(id) {
        const { rows } = await admin.query(`SELECT count(*)::int AS n FROM ${schema}.effect WHERE id = $1`, [id])
        return rows[0].n
      },
    },
    scale,
  },
)

outboxSuite(
  { describe, it },
  {
    name: 'postgres',
    concurrentTransactions: true,
    async create() {
      const own = freshSchema()
      return {
        connect: async () => postgresOutbox({ url, schema: own }),
        async transaction(body) {
          const client = await admin.connect()
          try {
            await client.query('BEGIN')
            const value = await body(client)
            await client.query('COMMIT')
            return value
          } catch (error) {
            await client.query('ROLLBACK')
            throw error
          } finally {
            client.release()
          }
        },
        dispose: async () => void (await admin.query(`DROP SCHEMA IF EXISTS ${own} CASCADE`)),
      }
    },
    scale,
  },
)

function freshSchema(): string {
  return `t_${randomUUID().replaceAll('-', '').slice(0, 16)}`
}
