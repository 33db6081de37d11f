import type { ClaimEnd, Delivery } from '@idemq/core'
import pg from 'pg'
import { describe, expect, it, onTestFinished } from 'vitest'
import { message, openReceiver, queue, type Started, signal, testServer, texts } from '../test/server.ts'

const { admin, url, start } = await testServer()

const settled = { status: 'settled' }

/** Fills the queue behind idemq's back, fast, with `count` messages that became visible a while ago. */
async function fill(schema: string, count: number): Promise<void> {
  await admin.query(
    `INSERT INTO ${schema}.message (queue, due_at, since, copy_id, body)
     SELECT 1, at, at, 'filled ' || n, 'body'
     FROM generate_series(1, $1::int) AS n, LATERAL (SELECT now() - interval '1 hour' + n * interval '1 microsecond' AS at) AS t`,
    [count],
  )
}

/** A transaction of somebody's that sees the database as it is now, for as long as the test runs. */
async function oldTransaction(): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  onTestFinished(() => client.end())
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
  await client.query('SELECT count(*) FROM pg_class')
}

/** A schema on one connection, and what is looked at there by `work`. */
async function observed(): Promise<Started & { looks(table: string, work: () => Promise<unknown>): Promise<Looks> }> {
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  onTestFinished(() => pool.end())
  const started = await start({ pool, listen: false })
  const count = async (table: string): Promise<Looks> => {
    await pool.query('SELECT pg_stat_force_next_flush()')
    const { rows } = await admin.query(
      `SELECT seq_tup_read::int AS "byWalking", idx_tup_fetch::int AS "byIndex",
         (n_tup_upd - n_tup_hot_upd)::int AS indexed,
         (SELECT sum(idx_tup_read)::int FROM pg_stat_user_indexes AS i WHERE i.relid = t.relid) AS entries
       FROM pg_stat_user_tables AS t WHERE relid = $1::regclass`,
      [`${started.schema}.${table}`],
    )
    return rows[0]
  }
  return {
    ...started,
    async looks(table, work) {
      const before = await count(table)
      await work()
      const after = await count(table)
      return {
        byWalking: after.byWalking - before.byWalking,
        byIndex: after.byIndex - before.byIndex,
        entries: after.entries - before.entries,
        indexed: after.indexed - before.indexed,
      }
    },
  }
}

interface Looks {
  /** Rows read by walking the table. */
  readonly byWalking: number
  /** Rows read by way of an index. */
  readonly byIndex: number
  /** Entries of indexes, those of dead rows too. */
  readonly entries: number
  /** Rows written anew with entries of their own in the indexes. */
  readonly indexed: number
}

describe('what is looked at', () => {
  it('is what is worked on, however many wait and even where the planner believes that there are none', async () => {
    const { adapter, schema, looks } = await observed()
    // Pages that were used once and rows that are gone: statistics say "empty".
    await fill(schema, 20_000)
    await admin.query(`DELETE FROM ${schema}.message`)
    await admin.query(`VACUUM ANALYZE ${schema}.message`)
    await fill(schema, 50_000)
    const receiver = await openReceiver(adapter)
    let deliveries: Delivery[] = []
    const receive = async (): Promise<void> => {
      deliveries = await receiver.receive(100, 0, signal)
    }
    const received = await looks('message', receive)
    expect(deliveries).toHaveLength(100)
    // Each by its time, and from then on at its place.
    expect(received).toEqual({ byWalking: 0, byIndex: 100, entries: 100, indexed: 0 })
    const extended = await looks('message', () => receiver.extend(deliveries, signal))
    expect(extended).toMatchObject({ byWalking: 0, byIndex: 0, entries: 0 })
    const acked = await looks('message', () => {
      return receiver.settle(
        deliveries.map((delivery) => ({ delivery, outcome: 'ack' })),
        signal,
      )
    })
    expect(acked).toEqual({ byWalking: 0, byIndex: 0, entries: 0, indexed: 0 })
  })

  it('in an inbox is what is claimed and ended', async () => {
    const { adapter, schema, looks } = await observed()
    const { inbox } = adapter
    await admin.query(`VACUUM ANALYZE ${schema}.inbox`)
    await admin.query(
      `INSERT INTO ${schema}.inbox (scope, key, state, token, lease_until, expires_at, replay, used, floor, job_id, fingerprint)
       SELECT 's', 'filled ' || n, 'completed', -n, now(), now() + interval '1 day', 0, 1, 1, 'j', 'f'
       FROM generate_series(1, 20000) AS n`,
    )
    const requests = Array.from({ length: 500 }, (_, n) => {
      return { scope: 's', key: `k ${n}`, fingerprint: 'f', jobId: `j ${n}`, replay: 0, attempt: 1 }
    })
    let ends: ClaimEnd[] = []
    const claimed = await looks('inbox', async () => {
      const answers = await inbox.claim(requests, { leaseMs: 60_000, retentionMs: 60_000 }, signal)
      ends = answers.map((answer, i) => {
        if (answer.status !== 'claimed') throw new Error(answer.status)
        const { scope, key } = requests[i]!
        return { scope, key, token: answer.token, state: 'completed', floor: 1, free: false, holdMs: 0 }
      })
    })
    expect(claimed.byWalking).toBe(0)
    expect(claimed.byIndex).toBe(0)
    const ended = await looks('inbox', async () => {
      expect(new Set(await inbox.end(ends, 60_000, signal))).toEqual(new Set(['held']))
    })
    expect(ended.byWalking).toBe(0)
    expect(ended.byIndex).toBe(500)
  })

  it('is each dead row once, not once a receive, while an old transaction keeps vacuum away', async () => {
    const { adapter, schema, looks, open } = await observed()
    await oldTransaction()
    const receiver = await openReceiver(adapter)
    await fill(schema, 5_000)
    for (let left = 5_000; left > 0; ) {
      const deliveries = await receiver.receive(500, 0, signal)
      await receiver.settle(
        deliveries.map((delivery) => ({ delivery, outcome: 'ack' })),
        signal,
      )
      left -= deliveries.length
    }
    // Whoever begins looks at everything once; how often later depends on how long that took.
    const newcomer = await openReceiver(open())
    const first = await looks('message', () => newcomer.receive(100, 0, signal))
    expect(first.entries).toBe(5_000)
    const next = await looks('message', () => newcomer.receive(100, 0, signal))
    expect(next.entries).toBe(0)
  })
})

describe('a table that is written anew while messages are held', () => {
  it('takes nothing from whoever holds them', async () => {
    const { adapter, schema } = await start()
    const { driver } = adapter
    await driver.send(
      queue,
      ['a', 'b', 'c', 'd'].map((text) => message(text)),
      signal,
    )
    const receiver = await openReceiver(adapter)
    const deliveries = await receiver.receive(10, 0, signal)
    const rewrite = (): Promise<unknown> => admin.query(`VACUUM FULL ${schema}.message`)
    const all = (status: string): unknown[] => deliveries.map(() => ({ status }))
    // What moves to the front is at other places.
    await driver.send(queue, [message('later')], signal)
    const [later] = await receiver.receive(10, 0, signal)
    expect(await receiver.settle([{ delivery: deliveries.shift()!, outcome: 'ack' }], signal)).toEqual([settled])
    await rewrite()
    expect(await receiver.extend(deliveries, signal)).toEqual(all('settled'))
    await rewrite()
    const outcomes = ['ack', 'release', 'ack'] as const
    const batch = deliveries.map((delivery, i) => ({ delivery, outcome: outcomes[i]! }))
    expect(await receiver.settle(batch, signal)).toEqual(all('settled'))
    expect(await receiver.settle(batch, signal)).toEqual(all('lost'))
    expect(await receiver.settle([{ delivery: later!, outcome: 'ack' }], signal)).toEqual([settled])
    expect(texts(await receiver.receive(10, 0, signal))).toEqual(['c'])
    expect(await driver.stats(queue, signal)).toMatchObject({ ready: 0, inFlight: 1 })
  })
})

describe('what appears behind the place a receiver has got to', () => {
  it('is found: a transaction that committed late', async () => {
    const { adapter, schema } = await start({ pollMs: 50 })
    const receiver = await openReceiver(adapter)
    await adapter.driver.send(queue, [message('before')], signal)
    expect(texts(await receiver.receive(10, 1_000, signal))).toEqual(['before'])
    await fill(schema, 1)
    expect(texts(await receiver.receive(10, 10_000, signal))).toEqual(['body'])
  })

  it('is found: a backlog of which others had locked the front', async () => {
    const { adapter, schema } = await start({ pollMs: 50 })
    const receiver = await openReceiver(adapter)
    await fill(schema, 10)
    const other = await admin.connect()
    await other.query(`BEGIN; SELECT 1 FROM ${schema}.message ORDER BY due_at LIMIT 5 FOR UPDATE`)
    expect(await receiver.receive(10, 0, signal)).toHaveLength(5)
    await other.query('ROLLBACK')
    other.release()
    expect(await receiver.receive(10, 10_000, signal)).toHaveLength(5)
  })
})
