import { createServer } from 'node:net'
import { type Delivery, type ErrorCode, IdemqError } from '@idemq/core'
import pg from 'pg'
import { describe, expect, it, onTestFinished } from 'vitest'
import { closeAll, freshSchema, message, openReceiver, queue, signal, testServer } from '../test/server.ts'
import { postgres } from './index.ts'

const { admin, server, url, start } = await testServer()

/** The URL of the test's server with something changed. */
function changed(change: (url: URL) => void): string {
  const other = new URL(url)
  change(other)
  return other.href
}

async function codeOf(target: string, mode: 'create' | 'check' = 'create'): Promise<IdemqError> {
  const adapter = postgres({ url: target, schema: freshSchema() })
  onTestFinished(() => closeAll(adapter))
  const error = await adapter.driver.declare(queue, mode, signal).catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(IdemqError)
  expect((error as IdemqError).message).not.toContain('secret')
  return error as IdemqError
}

describe('connecting', () => {
  it('a wrong password is UNAUTHORIZED, and is not repeated', async () => {
    const error = await codeOf(changed((to) => Object.assign(to, { password: 'secret' })))
    expect(error.code).toBe('UNAUTHORIZED')
    expect(error.retryable).toBe(false)
    expect(error.message).toMatch(/password authentication failed/)
  })

  it('a database that does not exist is QUEUE_MISSING and says what to do', async () => {
    const error = await codeOf(changed((to) => Object.assign(to, { pathname: '/nowhere' })))
    expect(error).toMatchObject({ code: 'QUEUE_MISSING', message: expect.stringContaining('CREATE DATABASE') })
  })

  it('TLS that the server does not speak is UNSUPPORTED', async () => {
    const error = await codeOf(changed((to) => to.searchParams.set('sslmode', 'verify-full')))
    expect(error).toMatchObject({ code: 'UNSUPPORTED', message: expect.stringContaining('TLS') })
  })

  it('a port where nobody listens is BROKER_UNAVAILABLE', async () => {
    const free = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => free.once('listening', resolve))
    const { port } = free.address() as { port: number }
    await new Promise((resolve) => free.close(resolve))
    expect((await codeOf(`postgres://u:secret@127.0.0.1:${port}/d`)).code).toBe('BROKER_UNAVAILABLE')
  })

  it('a host name that nobody knows is BROKER_UNAVAILABLE', async () => {
    expect((await codeOf('postgres://u:secret@nowhere.invalid/d')).code).toBe('BROKER_UNAVAILABLE')
  })

  it('no connection left is BROKER_UNAVAILABLE', async () => {
    await admin.query("CREATE ROLE crowded LOGIN PASSWORD 'idemq' CONNECTION LIMIT 1")
    const crowded = changed((to) => Object.assign(to, { username: 'crowded' }))
    const first = new pg.Client(crowded)
    await first.connect()
    onTestFinished(() => first.end())
    const error = await codeOf(crowded)
    expect(error).toMatchObject({ code: 'BROKER_UNAVAILABLE', retryable: true })
    expect(error.message).toMatch(/too many connections/)
  })
})

describe('set-up', () => {
  it('missing tables are QUEUE_MISSING with the command that creates them', async () => {
    const error = await codeOf(url, 'check')
    expect(error.code).toBe('QUEUE_MISSING')
    expect(error.message).toMatch(/migrationSql\(\{ schema: 't_\w+' \}\)\)\)" \| psql/)
  })

  it('tables that are dropped while in use are QUEUE_MISSING for every part', async () => {
    const { adapter, schema } = await start()
    const receiver = await openReceiver(adapter)
    await admin.query(`DROP SCHEMA ${schema} CASCADE`)
    const times = { leaseMs: 1_000, retentionMs: 1_000 }
    const request = { scope: 's', key: 'k', fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
    const calls = [
      () => adapter.driver.send(queue, [message('a')], signal),
      () => adapter.driver.send(queue, [message('a', { ordered: true })], signal),
      () => adapter.driver.sendDead(queue, [message('a')], signal),
      () => receiver.receive(1, 0, signal),
      () => adapter.inbox.claim([request], times, signal),
      () => adapter.outbox.claim(1, 1_000, signal),
    ]
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'QUEUE_MISSING' })
  })

  it('a role that may create nothing is UNAUTHORIZED and told what to grant', async () => {
    await admin.query("CREATE ROLE poor LOGIN PASSWORD 'idemq'")
    const error = await codeOf(changed((to) => Object.assign(to, { username: 'poor' })))
    expect(error).toMatchObject({ code: 'UNAUTHORIZED', message: expect.stringContaining('migrationSql') })
  })

  it('tables of a later release are QUEUE_MISMATCH', async () => {
    const { adapter, schema } = await start()
    await admin.query(`INSERT INTO ${schema}.migration (version) VALUES (999)`)
    for (const mode of ['create', 'check'] as const) {
      const declared = adapter.driver.declare(queue, mode, signal)
      await expect(declared).rejects.toMatchObject({ code: 'QUEUE_MISMATCH', message: expect.stringContaining('999') })
    }
  })
})

describe('at work', () => {
  it('a session that takes no writes is BROKER_READ_ONLY, for reads it works', async () => {
    const { open } = await start()
    const readOnly = changed((to) => to.searchParams.set('options', '-c default_transaction_read_only=on'))
    const adapter = open({ url: readOnly })
    const sending = adapter.driver.send(queue, [message('a')], signal)
    await expect(sending).rejects.toMatchObject({ code: 'BROKER_READ_ONLY', retryable: true })
    expect(await adapter.driver.stats(queue, signal)).toMatchObject({ ready: 0 })
  })

  it.each([
    ['lock_timeout', 'another transaction holds a lock'],
    ['statement_timeout', 'statement_timeout ended it'],
  ])('a %s of the server is BROKER_BUSY, and nothing is stored', async (setting, advice) => {
    const { adapter, schema, open } = await start()
    const hasty = open({ url: changed((to) => to.searchParams.set('options', `-c ${setting}=100ms`)) })
    await hasty.driver.stats(queue, signal)
    const blocker = await admin.connect()
    onTestFinished(() => blocker.release(true))
    await blocker.query(`BEGIN; LOCK TABLE ${schema}.message, ${schema}.inbox`)
    const request = { scope: 's', key: 'k', fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
    const calls = [
      () => hasty.driver.send(queue, [message('a')], signal),
      () => hasty.driver.send(queue, [message('a', { ordered: true })], signal),
      () => hasty.inbox.claim([request], { leaseMs: 1_000, retentionMs: 1_000 }, signal),
    ]
    const busy = { code: 'BROKER_BUSY', retryable: true, message: expect.stringContaining(advice) }
    for (const call of calls) await expect(call()).rejects.toMatchObject(busy)
    await blocker.query('ROLLBACK')
    expect(await adapter.driver.stats(queue, signal)).toMatchObject({ ready: 0 })
    expect(await hasty.driver.send(queue, [message('a')], signal)).toEqual([{ status: 'stored' }])
  })

  it('a role that may look but not touch is UNAUTHORIZED, is told what to grant, and has stored nothing', async () => {
    const { adapter, schema, open } = await start()
    await admin.query(`CREATE ROLE "${schema}" LOGIN PASSWORD 'idemq';
      GRANT USAGE ON SCHEMA ${schema} TO "${schema}"; GRANT SELECT ON ALL TABLES IN SCHEMA ${schema} TO "${schema}"`)
    const poor = open({ url: changed((to) => Object.assign(to, { username: schema })) })
    await poor.driver.declare(queue, 'check', signal)
    const sending = poor.driver.send(queue, [message('a')], signal)
    const refusal = {
      code: 'UNAUTHORIZED',
      retryable: false,
      message: expect.stringContaining('migrationSql({ role })'),
    }
    await expect(sending).rejects.toMatchObject(refusal)
    expect(await adapter.driver.stats(queue, signal)).toMatchObject({ ready: 0 })
  })

  // What a test cannot bring about without harm to others, the server is made to say.
  it.each<[state: string, code: ErrorCode, retryable: boolean]>([
    ['53200', 'BROKER_BUSY', true],
    ['40001', 'BROKER_BUSY', true],
    ['58030', 'BROKER_UNAVAILABLE', true],
    ['42501', 'UNAUTHORIZED', false],
    ['XX000', 'BROKER_UNAVAILABLE', true],
  ])('a server that answers %s is %s, and nothing is stored', async (state, code, retryable) => {
    const { adapter, schema } = await start()
    await admin.query(`
      CREATE FUNCTION ${schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'made to fail' USING ERRCODE = '${state}'; END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON ${schema}.message EXECUTE FUNCTION ${schema}.refuse()`)
    for (const ordered of [false, true]) {
      const sending = adapter.driver.send(queue, [message('a', { ordered })], signal)
      await expect(sending).rejects.toMatchObject({ code, retryable })
    }
    await admin.query(`DROP TRIGGER refuse ON ${schema}.message`)
    expect(await adapter.driver.send(queue, [message('b')], signal)).toEqual([{ status: 'stored' }])
    expect(await adapter.driver.stats(queue, signal)).toMatchObject({ ready: 1 })
  })

  it('a send whose connection is cut is unknown; repeated, it is stored once', async () => {
    const { schema } = await start()
    const pool = new pg.Pool({ connectionString: url, application_name: schema })
    pool.on('error', () => {})
    onTestFinished(() => pool.end())
    const adapter = postgres({ pool, schema })
    onTestFinished(() => closeAll(adapter))
    await adapter.driver.stats(queue, signal)
    const blocker = await admin.connect()
    onTestFinished(() => blocker.release(true))
    await blocker.query(`BEGIN; LOCK TABLE ${schema}.message`)
    const sending = adapter.driver.send(queue, [message('a')], signal)
    const waits = `FROM pg_stat_activity WHERE application_name = '${schema}' AND wait_event_type = 'Lock'`
    await expect.poll(async () => (await admin.query(`SELECT pid ${waits}`)).rowCount).toBe(1)
    await admin.query(`SELECT pg_terminate_backend(pid) ${waits}`)
    expect(await sending).toEqual([{ status: 'unknown' }])
    await blocker.query('ROLLBACK')
    expect(await adapter.driver.send(queue, [message('a')], signal)).toEqual([{ status: 'stored' }])
    expect(await adapter.driver.stats(queue, signal)).toMatchObject({ ready: 1 })
  })

  it('a server that is down has done nothing: sends and settlements are refused, to be tried again', async () => {
    const { adapter } = await start()
    await adapter.driver.send(queue, [message('a')], signal)
    const receiver = await openReceiver(adapter)
    const [delivery] = await receiver.receive(1, 0, signal)
    // What is confirmed takes everything before it to the disk.
    await adapter.driver.sendDead(queue, [message('c')], signal)
    await server.kill()
    try {
      // Connections of before break at the first use or by themselves.
      const down = (): Promise<unknown> => adapter.driver.send(queue, [message('b')], signal)
      await expect.poll(() => down().catch(({ code }) => code)).toBe('BROKER_UNAVAILABLE')
      expect(await receiver.settle([{ delivery: delivery!, outcome: 'ack' }], signal)).toEqual([
        { status: 'failed', error: expect.objectContaining({ code: 'BROKER_UNAVAILABLE', retryable: true }) },
      ])
    } finally {
      await server.start()
    }
    await expect
      .poll(() => receiver.settle([{ delivery: delivery!, outcome: 'ack' }], signal))
      .toEqual([{ status: 'settled' }])
  })

  it('a server that crashes may forget who held a message: it is delivered again, under a fence of its own', async () => {
    const { adapter } = await start()
    await adapter.driver.send(queue, [message('a')], signal)
    const receiver = await openReceiver(adapter)
    const [first] = await receiver.receive(1, 0, signal)
    await server.kill()
    await server.start()
    const settle = async (delivery: Delivery): Promise<string | undefined> => {
      const [answer] = await receiver.settle([{ delivery, outcome: 'ack' }], signal)
      return answer?.status
    }
    // Connections of before break at their first use or by themselves.
    let answer = await settle(first!)
    while (answer === 'failed' || answer === 'unknown') answer = await settle(first!)
    // Whether the lease was on the disk already is up to the server.
    if (answer === 'lost') {
      const [second] = await receiver.receive(1, 10_000, signal)
      expect(await settle(first!)).toBe('lost')
      expect(await settle(second!)).toBe('settled')
    }
    expect(await settle(first!)).toBe('lost')
    expect(await adapter.driver.stats(queue, signal)).toMatchObject({ ready: 0, inFlight: 0 })
  })

  it('a server that is silent is given up after the caller’s patience: a send is unknown, no connection is lost', async () => {
    const { adapter } = await start({ maxConnections: 3 })
    await server.pause()
    try {
      const patience = AbortSignal.timeout(300)
      const sends = Array.from({ length: 3 }, (_, i) => adapter.driver.send(queue, [message(`a${i}`)], patience))
      const answers = await Promise.allSettled(sends)
      // On a connection: it may be stored. Still waiting for one: refused.
      const seen = answers.map((answer) => {
        return answer.status === 'fulfilled' ? answer.value[0]!.status : (answer.reason as IdemqError).code
      })
      expect(seen).toContain('unknown')
      expect(new Set([...seen, 'unknown', 'ABORTED'])).toEqual(new Set(['unknown', 'ABORTED']))
    } finally {
      await server.unpause()
    }
    const again = await Promise.all(
      Array.from({ length: 10 }, (_, i) => adapter.driver.send(queue, [message(`a${i}`)], signal)),
    )
    expect(again.flat()).toEqual(Array.from({ length: 10 }, () => ({ status: 'stored' })))
    expect(await adapter.driver.stats(queue, signal)).toMatchObject({ ready: 10 })
  })
})
