/** Outbox rows within transactions of the clients people use. */
import { connect, defineJob, type Job } from '@idemq/core'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { CompiledQuery, Kysely, PostgresDialect } from 'kysely'
import type pg from 'pg'
import { describe, expect, it, onTestFinished } from 'vitest'
import { freshSchema, signal, testServer } from '../test/server.ts'
import { type OutboxTransaction, type PostgresTransaction, postgres, type SqlStatement } from './index.ts'

const { admin, url } = await testServer()

const anything = {
  '~standard': { version: 1, vendor: 'test', validate: (value: unknown) => ({ value: value as { id: string } }) },
} as const

const receipt: Job<{ id: string }> = defineJob('send-receipt', {
  queue: 'mail',
  payload: anything,
  idempotencyKey: ({ id }) => `receipt:${id}`,
  timeoutMs: 5_000,
  retry: { maxAttempts: 3 },
})

/** Runs `body` in a transaction of one client, which puts one row into `orders` and hands over what to enqueue with. */
type Transact = (id: string, body: (tx: OutboxTransaction) => Promise<void>) => Promise<void>

const clients: Record<string, (schema: string) => Transact> = {
  pg(schema) {
    return async (id, body) => {
      const client = await admin.connect()
      try {
        await client.query('BEGIN')
        await client.query(`INSERT INTO ${schema}.orders (id) VALUES ($1)`, [id])
        await body(client)
        await client.query('COMMIT')
      } catch (error) {
        await client.query('ROLLBACK')
        throw error
      } finally {
        client.release()
      }
    }
  },
  drizzle(schema) {
    const db = drizzle(admin)
    return (id, body) =>
      db.transaction(async (tx) => {
        await tx.execute(sql`INSERT INTO ${sql.identifier(schema)}.orders (id) VALUES (${id})`)
        await body({ execute: ({ strings, params }: SqlStatement) => tx.execute(sql(strings, ...params)) })
      })
  },
  kysely(schema) {
    const db = new Kysely<Record<string, { id: string }>>({ dialect: new PostgresDialect({ pool: admin }) })
    return (id, body) =>
      db.transaction().execute(async (tx) => {
        await tx.withSchema(schema).insertInto('orders').values({ id }).execute()
        await body({ execute: ({ sql: text, params }) => tx.executeQuery(CompiledQuery.raw(text, [...params])) })
      })
  },
}

describe.each(Object.keys(clients))('%s', (name) => {
  it('rows are sent if, and only if, its transaction commits', async () => {
    const schema = freshSchema()
    await admin.query(`CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.orders (id text)`)
    const mq = await connect(postgres({ url, schema, pollMs: 20 }))
    onTestFinished(() => mq.close())
    const done: string[] = []
    const worker = mq.worker()
    worker.handle(receipt, async ({ id }) => {
      done.push(id)
    })
    await worker.start()
    await mq.relay({ pollMs: 20 }).start()
    const transact = clients[name]!(schema)
    const outbox = mq.outbox<OutboxTransaction>()
    const rule = new Error('out of stock')
    const refused = transact('refused', async (tx) => {
      await outbox.enqueue(tx, receipt, { id: 'refused' })
      throw rule
    })
    await expect(refused).rejects.toBe(rule)
    const text = `it's "quoted" \\ Ω $1 ?`
    await transact(text, async (tx) => {
      await outbox.enqueue(tx, receipt, { id: text })
      await outbox.enqueueMany(tx, receipt, [{ id: 'b' }, { id: 'c' }])
    })
    await expect.poll(() => done.length, { timeout: 10_000 }).toBe(3)
    expect(done.sort()).toEqual(['b', 'c', text].sort())
    const { rows } = await admin.query(`SELECT id FROM ${schema}.orders`)
    expect(rows).toEqual([{ id: text }])
    await expect.poll(async () => (await mq.outbox().stats()).pending).toBe(0)
  })
})

it('a handler’s transaction works with a query builder, and takes outbox rows', async () => {
  const schema = freshSchema()
  await admin.query(`CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.orders (id text)`)
  const adapter = postgres({ url, schema, pollMs: 20 })
  const mq = await connect(adapter)
  onTestFinished(() => mq.close())
  const place = defineJob('place-order', {
    queue: 'orders',
    payload: anything,
    idempotencyKey: ({ id }) => id,
    timeoutMs: 5_000,
    retry: { maxAttempts: 3 },
  })
  const done: string[] = []
  const worker = mq.worker<PostgresTransaction>({ inbox: adapter.inbox })
  worker.handleInTransaction(place, async ({ id }, _job, tx) => {
    const db = drizzle(tx.client as pg.ClientBase as pg.Client)
    await db.execute(sql`INSERT INTO ${sql.identifier(schema)}.orders (id) VALUES (${id})`)
    await mq.outbox<OutboxTransaction>().enqueue(tx, receipt, { id })
    if (id === 'refused') throw new Error('out of stock')
  })
  worker.handle(receipt, async ({ id }) => {
    done.push(id)
  })
  await worker.start()
  await mq.relay({ pollMs: 5_000 }).start()
  await mq.enqueue(place, { id: 'refused' })
  await mq.enqueue(place, { id: 'o-1' })
  // Well before the relay's own next look: a commit of this process rings.
  await expect.poll(() => done, { timeout: 4_000 }).toEqual(['o-1'])
  expect((await admin.query(`SELECT id FROM ${schema}.orders`)).rows).toEqual([{ id: 'o-1' }])
})

it('a query builder cannot end a handler’s transaction: what was done before is rolled back', async () => {
  const schema = freshSchema()
  await admin.query(`CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.orders (id text)`)
  const adapter = postgres({ url, schema, pollMs: 20 })
  const mq = await connect(adapter)
  onTestFinished(() => mq.close())
  const job = defineJob('order', { queue: 'orders', payload: anything, idempotencyKey: ({ id }) => id })
  const errors: unknown[] = []
  mq.on('failed', ({ error }) => errors.push(error))
  const worker = mq.worker<PostgresTransaction>({ inbox: adapter.inbox })
  let kept: PostgresTransaction | undefined
  worker.handleInTransaction(job, async ({ id }, { attempt }, tx) => {
    kept = tx
    const db = drizzle(tx.client as pg.ClientBase as pg.Client)
    const insert = sql`INSERT INTO ${sql.identifier(schema)}.orders (id) VALUES (${id})`
    await db.execute(insert)
    if (attempt === 1) await db.transaction(async (inner) => inner.execute(insert))
  })
  await worker.start()
  await mq.enqueue(job, { id: 'once' })
  const orders = async (): Promise<unknown[]> => (await admin.query(`SELECT id FROM ${schema}.orders`)).rows
  await expect.poll(orders, { timeout: 10_000 }).toEqual([{ id: 'once' }])
  expect(errors).toHaveLength(1)
  expect(String((errors[0] as Error).cause ?? errors[0])).toMatch(/begin is not for handlers/)
  await expect(kept!.client.query('SELECT 1')).rejects.toMatchObject({ code: 'CLOSED' })
})

it('another process that relays hears of rows that a handler committed', async () => {
  const schema = freshSchema()
  const [one, two] = [postgres({ url, schema }), postgres({ url, schema, pollMs: 20_000 })]
  onTestFinished(async () => {
    for (const { inbox, outbox } of [one, two]) {
      await inbox.close()
      await outbox.close()
    }
  })
  await two.outbox.prepare('create', signal)
  const waiting = two.outbox.wait(20_000, signal)
  const listens = `SELECT 1 FROM pg_stat_activity WHERE query = 'LISTEN "idemq_${schema}"'`
  await expect.poll(async () => (await admin.query(listens)).rowCount).toBe(1)
  const request = { scope: 's', key: 'k', fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
  const [claim] = await one.inbox.claim([request], { leaseMs: 10_000, retentionMs: 1_000 }, signal)
  if (claim?.status !== 'claimed') throw new Error(`not claimed but ${claim?.status}`)
  const row = { queue: 'q', copyId: 'c', jobId: 'j', partitionKey: 'k', ordered: false, body: Buffer.from('x') }
  await one.inbox.transact!(
    (tx) => one.outbox.insert(tx, [row]),
    () => ({ ...request, token: claim.token, state: 'completed', floor: 1, free: false, holdMs: 0 }),
    1_000,
    signal,
  )
  const startedMs = performance.now()
  await waiting
  expect(performance.now() - startedMs).toBeLessThan(5_000)
  expect(await two.outbox.claim(10, 1_000, signal)).toHaveLength(1)
})

it('a table that is missing is named, in a transaction of one’s own too', async () => {
  const client = await admin.connect()
  onTestFinished(() => client.release(true))
  const { outbox } = postgres({ url, schema: freshSchema() })
  const row = { queue: 'q', copyId: 'c', jobId: 'j', partitionKey: 'k', ordered: false, body: Buffer.from('x') }
  await client.query('BEGIN')
  await expect(outbox.insert(client, [row])).rejects.toMatchObject({ code: 'QUEUE_MISSING' })
})
