import { DatabaseSync } from 'node:sqlite'
import { beforeEach, expect, it, onTestFinished } from 'vitest'
import { openTransaction } from './transaction.ts'

let tx: ReturnType<typeof openTransaction>

beforeEach(() => {
  const connection = new DatabaseSync(':memory:')
  onTestFinished(() => {
    connection.close()
  })
  connection.exec('CREATE TABLE stock (sku TEXT PRIMARY KEY, n INTEGER)')
  connection.exec('BEGIN')
  tx = openTransaction(connection, 'shop.db')
})

it('takes placeholders in any order, repeated, and leaves those in texts and comments alone', async () => {
  const sql = `SELECT $2 AS b, $1 AS a, $2 AS again, 'costs $9' AS text /* $8 */ -- $7`
  expect(await tx.query(sql, ['one', 2])).toEqual({
    rows: [{ b: 2, a: 'one', again: 2, text: 'costs $9' }],
    rowCount: 1,
  })
})

it('refuses too few and too many values', async () => {
  await expect(tx.query('SELECT $1, $2', [1])).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  await expect(tx.query('SELECT $1', [1, 2])).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  await expect(tx.query('SELECT 1', [1])).rejects.toMatchObject({ code: 'INVALID_OPTION' })
})

it('counts rows returned, else rows changed', async () => {
  expect(await tx.query(`INSERT INTO stock VALUES ('a', 1), ('b', 2)`)).toEqual({ rows: [], rowCount: 2 })
  expect(await tx.query('SELECT * FROM stock WHERE n > 9')).toEqual({ rows: [], rowCount: 0 })
  expect(await tx.query('UPDATE stock SET n = n - 1 WHERE sku = $1', ['z'])).toEqual({ rows: [], rowCount: 0 })
  expect(await tx.query('UPDATE stock SET n = 5 RETURNING sku')).toMatchObject({ rowCount: 2 })
  expect(await tx.query('DELETE FROM stock')).toMatchObject({ rowCount: 2 })
})

it('takes booleans, dates, undefined and bytes', async () => {
  const values = [true, new Date(0), undefined, new Uint8Array([1])]
  expect((await tx.query('SELECT $1 AS a, $2 AS b, $3 AS c, $4 AS d', values)).rows[0]).toEqual({
    a: 1,
    b: '1970-01-01T00:00:00.000Z',
    c: null,
    d: new Uint8Array([1]),
  })
})

it('keeps the transaction from its handler', async () => {
  for (const sql of ['COMMIT', ' rollback', '/* sly */ END', 'SAVEPOINT mine', `ATTACH 'x' AS y`]) {
    await expect(tx.query(sql)).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  }
})

it('passes errors of your statements on as they are', async () => {
  await tx.query(`INSERT INTO stock VALUES ('a', 1)`)
  await expect(tx.query(`INSERT INTO stock VALUES ('a', 1)`)).rejects.toMatchObject({ errcode: 1555 })
  await expect(tx.query('SELEKT')).rejects.toThrow('syntax error')
})

it('forgets statements beyond those it keeps prepared', async () => {
  for (let n = 0; n < 500; n++) expect((await tx.query(`SELECT ${n} AS n`)).rows).toEqual([{ n }])
})
