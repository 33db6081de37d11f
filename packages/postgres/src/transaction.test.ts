import type { Socket } from 'node:net'
import type { ClaimEnd, ClaimRef, ClaimRequest } from '@idemq/core'
import pg from 'pg'
import { describe, expect, it, onTestFinished } from 'vitest'
import { interceptedPool } from '../test/pools.ts'
import { type Started, signal, testServer } from '../test/server.ts'
import type { PgResult, PostgresTransaction } from './index.ts'

const { admin, url, server, start } = await testServer()
const times = { leaseMs: 60_000, retentionMs: 60_000 }
const request: ClaimRequest = { scope: 's', key: 'k', fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }

interface Scene extends Started {
  readonly claim: ClaimRef
  run<T>(effect: (tx: PostgresTransaction) => Promise<T>, of?: AbortSignal): Promise<{ status: string; value?: T }>
  effects(): Promise<number>
}

async function scene(options: Parameters<typeof start>[0] = {}): Promise<Scene> {
  const started = await start(options)
  const { inbox } = started.adapter
  const [answer] = await inbox.claim([request], times, signal)
  if (answer?.status !== 'claimed') throw new Error(`not claimed but ${answer?.status}`)
  const claim = { scope: 's', key: 'k', token: answer.token }
  await admin.query(`CREATE TABLE ${started.schema}.effect (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)`)
  const end = (): ClaimEnd => ({ ...claim, state: 'completed', floor: 1, free: false, holdMs: 0 })
  return {
    ...started,
    claim,
    run: (effect, of = signal) => inbox.transact!(effect, end, 60_000, of),
    async effects() {
      return (await admin.query(`SELECT count(*)::int AS n FROM ${started.schema}.effect`)).rows[0].n
    },
  }
}

/** A pool on which the first COMMIT goes through `commit`. */
function poolWith(
  commit: (run: () => Promise<PgResult>, client: pg.PoolClient) => Promise<PgResult>,
): ReturnType<typeof interceptedPool> {
  const pool = new pg.Pool({ connectionString: url })
  pool.on('error', () => {})
  onTestFinished(() => pool.end())
  let done = false
  return interceptedPool(pool, (sql, run, client) => {
    if (sql !== 'COMMIT' || done) return run()
    done = true
    return commit(run, client)
  })
}

const insert = (schema: string) => (tx: PostgresTransaction) => tx.query(`INSERT INTO ${schema}.effect VALUES (1)`)

function cut(): Error {
  return new Error('Connection terminated unexpectedly')
}

describe('a COMMIT whose answer is lost', () => {
  it('is committed where it took effect', async () => {
    const { run, schema, adapter, effects } = await scene({
      pool: poolWith(async (commit) => {
        await commit()
        throw cut()
      }),
    })
    expect(await run(insert(schema))).toMatchObject({ status: 'committed' })
    expect(await effects()).toBe(1)
    expect(await adapter.inbox.claim([request], times, signal)).toEqual([{ status: 'completed' }])
  })

  it('is an error to be tried again where it did not, and the claim still holds', async () => {
    const { run, schema, adapter, claim, effects } = await scene({
      pool: poolWith(async (_commit, client) => {
        await client.query('ROLLBACK')
        throw cut()
      }),
    })
    await expect(run(insert(schema))).rejects.toMatchObject({ code: 'BROKER_UNAVAILABLE', retryable: true })
    expect(await effects()).toBe(0)
    expect(await adapter.inbox.renew([claim], 60_000, signal)).toEqual(['held'])
    expect(await run(insert(schema))).toMatchObject({ status: 'committed' })
  })

  it('is read back only after the server is done with it', async () => {
    const { run, schema, effects } = await scene({
      pool: poolWith(async (commit, client) => {
        const committing = commit()
        const sleeps = "SELECT 1 FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'PgSleep'"
        await expect.poll(async () => (await admin.query(sleeps)).rowCount).toBe(1)
        // The server goes on, as one that cannot look whether anybody listens.
        ;(client as unknown as { connection: { stream: Socket } }).connection.stream.destroy()
        return committing
      }),
    })
    await admin.query(`
      CREATE FUNCTION ${schema}.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('client_connection_check_interval', '0', true), pg_sleep(1); RETURN NULL; END $$;
      CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON ${schema}.effect DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION ${schema}.dawdle()`)
    expect(await run(insert(schema))).toMatchObject({ status: 'committed' })
    expect(await effects()).toBe(1)
  })

  it('is COMMIT_UNKNOWN where the server cannot be asked', async () => {
    const { run, schema, effects } = await scene({
      pool: poolWith(async (commit) => {
        await commit()
        await server.kill()
        throw cut()
      }),
    })
    try {
      await expect(run(insert(schema))).rejects.toMatchObject({ code: 'COMMIT_UNKNOWN' })
    } finally {
      await server.start()
    }
    await expect.poll(effects).toBe(1)
  })

  it('that a deferred constraint refuses is rolled back, with the error as it is', async () => {
    const { run, schema, effects, claim, adapter } = await scene()
    const work = run((tx) => tx.query(`INSERT INTO ${schema}.effect VALUES (1), (1)`))
    await expect(work).rejects.toMatchObject({ code: '23505' })
    expect(await effects()).toBe(0)
    expect(await adapter.inbox.renew([claim], 60_000, signal)).toEqual(['held'])
  })
})

describe('what a handler does', () => {
  it('an error of its own is passed on as it is, whatever it looks like', async () => {
    const { run, schema, effects } = await scene()
    const thrown = Object.assign(new Error('socket hang up: connection terminated'), { code: 'ECONNRESET' })
    const work = run(async (tx) => {
      await insert(schema)(tx)
      throw thrown
    })
    await expect(work).rejects.toBe(thrown)
    expect(await effects()).toBe(0)
  })

  it('a failed query that it swallows is not committed, and is named', async () => {
    const { run, schema, effects } = await scene()
    const work = run(async (tx) => {
      await insert(schema)(tx)
      await tx.query('SELECT * FROM no_such_table').catch(() => {})
    })
    await expect(work).rejects.toMatchObject({ code: '42P01' })
    expect(await effects()).toBe(0)
  })

  it('may undo part of it by a savepoint', async () => {
    const { run, schema, effects } = await scene()
    const work = run(async (tx) => {
      await tx.query('SAVEPOINT mine')
      await tx.query('SELECT * FROM no_such_table').catch(() => {})
      await tx.query('ROLLBACK TO SAVEPOINT mine')
      await tx.query('rollback work to mine')
      await insert(schema)(tx)
    })
    expect(await work).toMatchObject({ status: 'committed' })
    expect(await effects()).toBe(1)
  })

  it.each(['COMMIT', ' begin', '/* x */ ROLLBACK', '-- x\nEND', 'ROLLBACK AND CHAIN', 'START TRANSACTION'])(
    'may not end it: %j',
    async (sql) => {
      const { run, schema, effects } = await scene()
      const work = run(async (tx) => {
        await insert(schema)(tx)
        await tx.query(sql)
      })
      await expect(work).rejects.toMatchObject({ code: 'UNSUPPORTED' })
      expect(await effects()).toBe(0)
    },
  )

  it('has no use of it after its end', async () => {
    const { run } = await scene()
    let kept: PostgresTransaction | undefined
    await run(async (tx) => {
      kept = tx
    })
    await expect(kept!.query('SELECT 1')).rejects.toMatchObject({ code: 'CLOSED' })
  })

  it('an abort while it waits rolls back at once, and its connection is not used again', async () => {
    const { run, schema, effects, adapter, claim } = await scene()
    const abort = new AbortController()
    const work = run(async (tx) => {
      await insert(schema)(tx)
      const sleeping = tx.query('SELECT pg_sleep(60)')
      const sleeps = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
      await expect.poll(async () => (await admin.query(sleeps)).rowCount).toBe(1)
      abort.abort()
      await sleeping
    }, abort.signal)
    await expect(work).rejects.toMatchObject({ code: 'ABORTED' })
    expect(await effects()).toBe(0)
    // The server ends the statement that nobody waits for, and with it what it locked.
    const locks = `SELECT 1 FROM pg_locks WHERE relation = '${schema}.effect'::regclass`
    await expect.poll(async () => (await admin.query(locks)).rowCount, { timeout: 10_000 }).toBe(0)
    expect(
      await adapter.inbox.end([{ ...claim, state: 'released', floor: 1, free: true, holdMs: 0 }], 1_000, signal),
    ).toEqual(['held'])
  })

  it('a database whose default is SERIALIZABLE changes nothing: renewals meanwhile do not fail the end', async () => {
    const serializable = new URL(url)
    serializable.searchParams.set('options', '-c default_transaction_isolation=serializable')
    const { run, schema, adapter, claim } = await scene({ url: serializable.href })
    const outcome = run(async (tx) => {
      await insert(schema)(tx)
      expect(await adapter.inbox.renew([claim], 60_000, signal)).toEqual(['held'])
    })
    expect(await outcome).toMatchObject({ status: 'committed' })
  })

  it('a process that stops between the end and COMMIT holds its claim up for seconds, not for ever', async () => {
    let answer: string | undefined
    const { run, schema, effects, open } = await scene({
      pool: poolWith(async (commit) => {
        // Nothing is sent, nothing is closed: what a frozen process looks like to the server.
        const [claim] = await other.inbox.claim([request], times, signal)
        answer = claim?.status
        return commit()
      }),
    })
    const other = open()
    await expect(run(insert(schema))).rejects.toMatchObject({ code: 'BROKER_UNAVAILABLE' })
    expect(answer).toBe('busy')
    expect(await effects()).toBe(0)
  })
})

describe('connections', () => {
  it('handlers that take all the others leave one to renewals', async () => {
    const pool = new pg.Pool({ connectionString: url, max: 5 })
    onTestFinished(() => pool.end())
    const { adapter, claim } = await scene({ pool, listen: false })
    // The one for renewals is taken when the first claim is made.
    await expect.poll(() => pool.totalCount - pool.idleCount).toBe(1)
    const taken = await Promise.all(Array.from({ length: 4 }, () => pool.connect()))
    expect(await adapter.inbox.renew([claim], 60_000, signal)).toEqual(['held'])
    for (const client of taken) client.release()
  })

  it('transactions leave connections to what they wait for', async () => {
    const { adapter } = await scene({ maxConnections: 6 })
    const keys = Array.from({ length: 8 }, (_, i) => ({ ...request, key: `many-${i}` }))
    const answers = await adapter.inbox.claim(keys, times, signal)
    let running = 0
    let most = 0
    const outcomes = await Promise.all(
      keys.map(({ scope, key }, i) => {
        const answer = answers[i]!
        if (answer.status !== 'claimed') throw new Error(answer.status)
        const ref = { scope, key, token: answer.token }
        return adapter.inbox.transact!(
          async (tx) => {
            most = Math.max(most, ++running)
            await tx.query('SELECT 1')
            // A step is recorded on another connection.
            expect(await adapter.inbox.record([{ ...ref, step: 'a', result: '1' }], signal)).toEqual(['held'])
            running--
          },
          () => ({ ...ref, state: 'completed', floor: 1, free: false, holdMs: 0 }),
          1_000,
          signal,
        )
      }),
    )
    expect(outcomes.map(({ status }) => status)).toEqual(keys.map(() => 'committed'))
    expect(most).toBe(2)
  })
})
