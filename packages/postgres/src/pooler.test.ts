import { connect, defineJob } from '@idemq/core'
import pg from 'pg'
import { expect, it, onTestFinished } from 'vitest'
import { transactionPooler } from '../test/pools.ts'
import { freshSchema, message, openReceiver, queue, signal, testServer, texts } from '../test/server.ts'
import { postgres } from './index.ts'

const { admin, url, start } = await testServer()

const anything = {
  '~standard': { version: 1, vendor: 'test', validate: (value: unknown) => ({ value: value as { n: number } }) },
} as const

it('through a pooler in transaction mode all works, by polling alone', async () => {
  const schema = freshSchema()
  const real = new pg.Pool({ connectionString: url, max: 4 })
  onTestFinished(() => real.end())
  const mq = await connect(postgres({ pool: transactionPooler(real), schema, pollMs: 20 }))
  onTestFinished(() => mq.close())
  await admin.query(`CREATE TABLE IF NOT EXISTS ${schema}_effect (n int)`)

  const [plain, ordered, committed] = ['plain', 'ordered', 'committed'].map((name) =>
    defineJob(name, {
      queue: 'orders',
      payload: anything,
      idempotencyKey: ({ n }) => `${name}:${n}`,
      timeoutMs: 10_000,
      retry: { maxAttempts: 3 },
    }),
  )
  const done: string[] = []
  const worker = mq.worker({ concurrency: 4 })
  worker.handle(plain!, async ({ n }, job) => {
    await job.step('once', async () => 'done')
    done.push(`plain ${n}`)
  })
  worker.handle(ordered!, async ({ n }) => {
    done.push(`ordered ${n}`)
  })
  worker.handleInTransaction(committed!, async ({ n }, job, tx) => {
    if (job.attempt === 1 && n === 0) throw new Error('again')
    const { query } = tx as { query: (sql: string, params: unknown[]) => Promise<unknown> }
    await query(`INSERT INTO ${schema}_effect VALUES ($1)`, [n])
    done.push(`committed ${n}`)
  })
  await worker.start()
  for (let n = 0; n < 10; n++) {
    await mq.enqueue(plain!, { n })
    await mq.enqueue(ordered!, { n }, { orderingKey: 'k' })
    await mq.enqueue(committed!, { n })
  }
  await expect.poll(() => done.length, { timeout: 20_000 }).toBe(30)
  await worker.stop()
  expect(done.filter((name) => name.startsWith('ordered'))).toEqual(
    Array.from({ length: 10 }, (_, n) => `ordered ${n}`),
  )
  const { rows } = await admin.query(
    `SELECT count(*)::int AS n, count(DISTINCT n)::int AS distinct FROM ${schema}_effect`,
  )
  expect(rows).toEqual([{ n: 10, distinct: 10 }])
  expect(await mq.driver.stats(queue, signal)).toMatchObject({ ready: 0, delayed: 0, inFlight: 0, dead: 0 })
})

it('leaves nothing of a session behind on connections of a pool that is not its own', async () => {
  const pool = new pg.Pool({ connectionString: url, max: 6 })
  onTestFinished(() => pool.end())
  const { adapter } = await start({ pool })
  const receiver = await openReceiver(adapter)
  const request = { scope: 's', key: 'k', fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
  await adapter.inbox.claim([request], { leaseMs: 1_000, retentionMs: 1_000 }, signal)
  await receiver.receive(1, 30, signal)
  await adapter.driver.close()
  await adapter.inbox.close()
  expect(pool.waitingCount).toBe(0)
  expect(pool.idleCount).toBe(pool.totalCount)
  const clients = await Promise.all(Array.from({ length: 6 }, () => pool.connect()))
  for (const client of clients) {
    expect(client.listenerCount('notification')).toBe(0)
    const { rows } = await client.query(
      `SELECT (SELECT count(*)::int FROM pg_listening_channels()) AS channels,
         (SELECT count(*)::int FROM pg_prepared_statements) AS prepared,
         (SELECT count(*)::int FROM pg_settings WHERE source = 'session') AS settings`,
    )
    expect(rows).toEqual([{ channels: 0, prepared: 0, settings: 0 }])
    client.release()
  }
})

it('a receiver hears of a send of another process at once, and without LISTEN at its next look', async () => {
  const { adapter, open } = await start({ pollMs: 3_000 })
  const receivers = [await openReceiver(adapter), await openReceiver(open({ listen: false, pollMs: 50 }))]
  const sender = open()
  for (const receiver of receivers) {
    // The second look begins only after the connection that listens is there or has failed.
    const startedMs = performance.now()
    const waiting = receiver.receive(1, 20_000, signal)
    await expect
      .poll(async () => (await admin.query("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")).rowCount)
      .toBeGreaterThan(0)
    await sender.driver.send(queue, [message(String(startedMs))], signal)
    expect(texts(await waiting)).toEqual([String(startedMs)])
    expect(performance.now() - startedMs).toBeLessThan(2_500)
  }
})

it('listens again after its connection was cut', async () => {
  const { adapter, schema, open } = await start({ pollMs: 200 })
  const receiver = await openReceiver(adapter)
  const listening = `FROM pg_stat_activity WHERE query = 'LISTEN "idemq_${schema}"'`
  const pid = async (): Promise<unknown> => (await admin.query(`SELECT pid ${listening}`)).rows[0]?.pid
  const waiting = receiver.receive(1, 30_000, signal)
  await expect.poll(pid).toBeDefined()
  const first = await pid()
  await admin.query(`SELECT pg_terminate_backend(pid) ${listening}`)
  await expect.poll(pid, { timeout: 10_000 }).not.toBe(first)
  await expect.poll(pid, { timeout: 10_000 }).toBeDefined()
  await open().driver.send(queue, [message('a')], signal)
  expect(texts(await waiting)).toEqual(['a'])
})
