import { describe, expect, it, onTestFinished } from 'vitest'
import { closeAll, freshSchema, message, openReceiver, queue, signal, testServer } from '../test/server.ts'
import { migrationSql, postgres } from './index.ts'

const { admin, server, url } = await testServer()

const psql = (script: string): Promise<string> =>
  server.exec(['psql', '-U', 'postgres', '-qtA', '-v', 'ON_ERROR_STOP=1', '-c', script])

const definitions = async (schema: string): Promise<unknown[]> => {
  const { rows } = await admin.query(
    `SELECT table_name::text AS of, column_name::text AS name, data_type AS def
     FROM information_schema.columns WHERE table_schema = $1
     UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = $1
     UNION ALL SELECT '', proname, prosrc FROM pg_proc WHERE pronamespace = $1::regnamespace ORDER BY 1, 2`,
    [schema],
  )
  return rows
}

describe('migrationSql', () => {
  it('run by psql makes what declare makes, and again changes nothing', async () => {
    const [byPsql, byDeclare] = [freshSchema(), freshSchema()]
    await psql(migrationSql({ schema: byPsql }))
    await psql(migrationSql({ schema: byPsql }))
    const adapter = postgres({ url, schema: byDeclare })
    onTestFinished(() => closeAll(adapter))
    await adapter.driver.declare(queue, 'create', signal)
    const rename = (rows: unknown[]): string => JSON.stringify(rows).replaceAll(byDeclare, byPsql)
    expect(rename(await definitions(byDeclare))).toBe(rename(await definitions(byPsql)))
  })

  it.each(['read committed', 'repeatable read', 'serializable'])(
    'several first starts at once make it once, where the default isolation is %s',
    async (level) => {
      const schema = freshSchema()
      const target = new URL(url)
      target.searchParams.set('options', `-c default_transaction_isolation=${level.replace(' ', '\\ ')}`)
      const adapters = Array.from({ length: 4 }, () => postgres({ url: target.href, schema }))
      for (const adapter of adapters) onTestFinished(() => closeAll(adapter))
      await Promise.all(adapters.map(({ inbox }) => inbox.prepare('create', signal)))
      await adapters[0]!.inbox.prepare('check', signal)
    },
  )

  it('a role that may create nothing works with what a DBA made for it, declared or to be declared', async () => {
    const schema = freshSchema()
    const role = `App role ${schema}`
    await admin.query(`CREATE ROLE "${role}" LOGIN PASSWORD 'idemq'`)
    // As where functions are not for everybody.
    await admin.query('ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC')
    onTestFinished(async () => {
      await admin.query('ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC')
    })
    await psql(migrationSql({ schema, role, queues: [queue.name] }))
    const login = new URL(url)
    login.username = encodeURIComponent(role)
    const adapter = postgres({ url: login.href, schema })
    onTestFinished(() => closeAll(adapter))
    const { driver, inbox, outbox } = adapter
    await driver.declare(queue, 'check', signal)
    await driver.declare({ name: 'later', group: 'default' }, 'create', signal)
    await driver.send(queue, [message('a'), message('b', { ordered: true }), message('c', { ordered: true })], signal)
    await driver.sendDead(queue, [message('d')], signal)
    const receiver = await openReceiver(adapter)
    const deliveries = await receiver.receive(10, 0, signal)
    await receiver.settle(
      deliveries.map((delivery) => ({ delivery, outcome: 'ack' })),
      signal,
    )
    await driver.scanDead(queue, async () => 'remove', signal)
    const request = { scope: 's', key: 'k', fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
    const [claim] = await inbox.claim([request], { leaseMs: 1_000, retentionMs: 1 }, signal)
    if (claim?.status !== 'claimed') throw new Error(`not claimed but ${claim?.status}`)
    const { status } = await inbox.transact!(
      async (tx) => {
        const row = {
          queue: 'orders',
          copyId: 'c',
          jobId: 'j',
          partitionKey: 'k',
          ordered: false,
          body: Buffer.from('x'),
        }
        await outbox.insert(tx, [row])
      },
      () => ({ ...request, token: claim.token, state: 'completed', floor: 1, free: false, holdMs: 0 }),
      1,
      signal,
    )
    expect(status).toBe('committed')
    const claims = await outbox.claim(10, 1_000, signal)
    expect(claims).toHaveLength(1)
    await outbox.markSent(claims, signal)
    await expect.poll(() => inbox.purge(10, signal)).toBe(1)
    await expect(adapter.driver.stats(queue, signal)).resolves.toMatchObject({ ready: 0, dead: 0 })
  })

  it('many at once, by declare and by psql, all succeed', async () => {
    const schema = freshSchema()
    const adapters = Array.from({ length: 5 }, () => postgres({ url, schema }))
    onTestFinished(async () => void (await Promise.all(adapters.map(closeAll))))
    await Promise.all([
      ...adapters.map(({ driver }) => driver.declare(queue, 'create', signal)),
      ...adapters.map(({ inbox }) => inbox.prepare('create', signal)),
      psql(migrationSql({ schema })),
    ])
    const { rows } = await admin.query(`SELECT version FROM ${schema}.migration`)
    expect(rows).toEqual([{ version: 1 }])
  })

  it('leaves nothing behind where it fails, and the connection can be used', async () => {
    const schema = freshSchema()
    await admin.query(`CREATE SCHEMA ${schema}; CREATE TABLE ${schema}.outbox (mine text)`)
    const adapter = postgres({ url, schema, maxConnections: 5 })
    onTestFinished(() => closeAll(adapter))
    for (let i = 0; i < 5; i++) {
      const declared = adapter.driver.declare(queue, 'create', signal)
      await expect(declared).rejects.toMatchObject({ code: 'QUEUE_MISMATCH' })
    }
    const { rows } = await admin.query('SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace', [schema])
    expect(rows).toEqual([{ relname: 'outbox' }])
  })

  it.each([
    [{ schema: 'Jobs' }],
    [{ schema: 'a"; DROP TABLE x; --' }],
    [{ schema: '' }],
    [{ role: 'a"; DROP TABLE x; --' }],
    [{ queues: ["a'; DROP TABLE x; --"] }],
  ])('refuses %j', (options) => {
    expect(() => migrationSql(options)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
  })
})
