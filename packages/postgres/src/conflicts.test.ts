/** Transactions of handlers that get into each other's way: one is rolled back, tried again, and has its effect once. */
import { expect, it } from 'vitest'
import { counted } from '../test/jobs.ts'
import { testServer } from '../test/server.ts'
import type { PostgresTransaction } from './index.ts'

const testing = await testServer()
const { admin } = testing

/** Resolves for both once two have come; whoever comes later is not held up. */
function meeting(): () => Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  let here = 0
  return async () => {
    if (++here === 2) resolve()
    await promise
  }
}

it('a deadlock', async () => {
  const { mq, job, schema, work, allDone, codes } = await counted(testing)
  await admin.query(`CREATE TABLE ${schema}.account (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
    INSERT INTO ${schema}.account VALUES (1), (2)`)
  const meet = meeting()
  const add = (tx: PostgresTransaction, id: number): Promise<unknown> =>
    tx.query(`UPDATE ${schema}.account SET n = n + 1 WHERE id = $1`, [id])
  await work(async (n, tx) => {
    await add(tx, n)
    await meet()
    await add(tx, 3 - n)
  })
  for (const n of [1, 2]) await mq.enqueue(job, { n })
  await allDone(2)
  expect([...codes]).toEqual(['BROKER_BUSY'])
  expect((await admin.query(`SELECT n FROM ${schema}.account`)).rows).toEqual([{ n: 2 }, { n: 2 }])
})

it('two that cannot be brought into an order, where a handler asks for SERIALIZABLE', async () => {
  const { mq, job, schema, work, allDone, codes } = await counted(testing)
  const meet = meeting()
  const seen: number[] = []
  await work(async (_n, tx) => {
    await tx.query('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE')
    const { rows } = await tx.query(`SELECT count(*)::int AS n FROM ${schema}.effect`)
    await meet()
    seen.push(rows[0]?.n as number)
  })
  for (const n of [1, 2]) await mq.enqueue(job, { n })
  await allDone(2)
  expect([...codes]).toEqual(['BROKER_BUSY'])
  // The one that was tried again saw the other's effect.
  expect(seen).toEqual([0, 0, 1])
})
