import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { driverSuite, outboxSuite, storeSuite } from '@idemq/conformance'
import { afterAll, describe, it } from 'vitest'
import { sqlite, sqliteInbox, sqliteOutbox } from './index.ts'

const directory = await mkdtemp(join(tmpdir(), 'idemq-conformance-'))
afterAll(() => rm(directory, { recursive: true }))
const path = join(directory, 'jobs.db')
const scale = { leaseMs: 300, delayMs: 80 }

driverSuite(
  { describe, it: it.concurrent },
  {
    name: 'sqlite',
    capabilities: sqlite(path).driver.capabilities,
    createAdapter: async () => sqlite(path),
    scale,
  },
)

const effects = new DatabaseSync(join(directory, 'jobs.db'))
afterAll(() => effects.close())
effects.exec('PRAGMA busy_timeout = 1000; CREATE TABLE effect (id TEXT)')

storeSuite(
  { describe, it: it.concurrent },
  {
    name: 'sqlite',
    capabilities: sqliteInbox(path).capabilities,
    createStore: async () => sqliteInbox(path),
    createUnpreparedStore: async () => sqliteInbox(join(directory, `empty-${performance.now()}.db`)),
    effects: {
      async write(tx, id) {
        await tx.query('INSERT INTO effect (id) VALUES ($1)', [id])
      },
      async count(id) {
        return (effects.prepare('SELECT count(*) AS n FROM effect WHERE id = ?').get(id) as { n: number }).n
      },
    },
    scale,
  },
)

outboxSuite(
  { describe, it: it.concurrent },
  {
    name: 'sqlite',
    concurrentTransactions: false,
    async create() {
      const file = join(await mkdtemp(join(directory, 'outbox-')), 'orders.db')
      const orders = new DatabaseSync(file)
      orders.exec('PRAGMA busy_timeout = 1000')
      return {
        connect: async () => sqliteOutbox(file),
        async transaction(body) {
          orders.exec('BEGIN IMMEDIATE')
          try {
            const value = await body(orders)
            orders.exec('COMMIT')
            return value
          } catch (error) {
            orders.exec('ROLLBACK')
            throw error
          }
        },
        dispose: async () => orders.close(),
      }
    },
    scale,
  },
)
