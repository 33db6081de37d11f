/** What may happen to a server at work: whatever it is, jobs wait and are done once it is over. */
import { describe, expect, it, onTestFinished } from 'vitest'
import { counted } from '../test/jobs.ts'
import { message, openReceiver, queue, signal, testServer } from '../test/server.ts'

const testing = await testServer()
const { admin, server, start } = testing

/** Runs a shell command as the server does, in its data directory. */
async function asServer(command: string): Promise<void> {
  await admin.query(`COPY (SELECT 1) TO PROGRAM '${command.replaceAll("'", "''")}'`)
}

async function killed(): Promise<void> {
  await server.kill()
  await server.start()
}

describe('a server that restarts', () => {
  it('in the middle of sends and transactions: every job has its effect once', async () => {
    const { mq, job, work, allDone } = await counted(testing)
    await work()
    let outage = Promise.resolve()
    for (let n = 1; n <= 60; n++) {
      if (n % 20 === 0) outage = outage.then(() => (n === 40 ? killed() : server.restart()))
      await mq.enqueue(job, { n })
    }
    await outage
    await allDone(60)
  })
})

describe('a standby', () => {
  it('is BROKER_READ_ONLY for all that writes; a worker waits, and goes on once it is promoted', async () => {
    const { mq, job, work, allDone, codes } = await counted(testing)
    for (let n = 1; n <= 10; n++) await mq.enqueue(job, { n })
    const { adapter } = await start()
    const receiver = await openReceiver(adapter)
    await adapter.driver.send(queue, [message('a')], signal)
    const [delivery] = await receiver.receive(1, 0, signal)
    await asServer('touch standby.signal')
    onTestFinished(async () => void (await admin.query('SELECT pg_promote() WHERE pg_is_in_recovery()')))
    await server.restart()
    const request = { scope: 's', key: 'k', fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
    const calls = [
      () => adapter.driver.send(queue, [message('b')], signal),
      () => adapter.driver.send(queue, [message('b', { ordered: true })], signal),
      () => adapter.driver.sendDead(queue, [message('b')], signal),
      () => receiver.receive(1, 0, signal),
      () => adapter.inbox.claim([request], { leaseMs: 1_000, retentionMs: 1_000 }, signal),
      () => adapter.outbox.claim(1, 1_000, signal),
    ]
    const readOnly = { code: 'BROKER_READ_ONLY', retryable: true, message: expect.stringContaining('primary') }
    // Connections of before break at their first use or by themselves.
    for (const call of calls) await expect.poll(() => call().catch((error) => error)).toMatchObject(readOnly)
    expect(await receiver.settle([{ delivery: delivery!, outcome: 'ack' }], signal)).toEqual([
      { status: 'failed', error: expect.objectContaining({ code: 'BROKER_READ_ONLY' }) },
    ])
    // What only reads goes on.
    await adapter.driver.declare(queue, 'create', signal)
    expect(await adapter.driver.stats(queue, signal)).toMatchObject({ inFlight: 1 })

    await work()
    await expect.poll(() => codes.has('BROKER_READ_ONLY'), { timeout: 10_000 }).toBe(true)
    await admin.query('SELECT pg_promote()')
    await allDone(10)
    expect(await receiver.settle([{ delivery: delivery!, outcome: 'ack' }], signal)).toEqual([{ status: 'settled' }])
  })
})

describe('a full disk', () => {
  it('is BROKER_FULL; what was confirmed is there, and once there is room all goes on', async () => {
    // The 64 MiB in memory that an engine gives each container serve as a small disk.
    await asServer('mkdir /dev/shm/small')
    await admin.query(`CREATE TABLESPACE small LOCATION '/dev/shm/small'`)
    await admin.query('ALTER DATABASE postgres SET default_tablespace = small')
    onTestFinished(async () => {
      await admin.query('ALTER DATABASE postgres RESET default_tablespace')
    })
    await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()')
    const { mq, job, schema, work, allDone, codes } = await counted(testing)
    const { rows } =
      await admin.query(`SELECT spcname FROM pg_tablespace AS t JOIN pg_class AS c ON t.oid = reltablespace
      WHERE c.oid = '${schema}.message'::regclass`)
    expect(rows).toEqual([{ spcname: 'small' }])
    for (let n = 1; n <= 10; n++) await mq.enqueue(job, { n })

    await asServer('dd if=/dev/zero of=/dev/shm/filler bs=64k || true')
    const { driver, inbox } = mq
    const large = (text: string) => message(text, { body: Buffer.alloc(1_000_000, 1) })
    const full = { code: 'BROKER_FULL', retryable: true, message: expect.stringContaining('disk space') }
    await expect(driver.send(queue, [large('a')], signal)).rejects.toMatchObject(full)
    await expect(driver.sendDead(queue, [large('a')], signal)).rejects.toMatchObject(full)
    const requests = Array.from({ length: 500 }, (_, i) => {
      return { scope: 's', key: `${i}`.repeat(300), fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
    })
    await expect(inbox!.claim(requests, { leaseMs: 1_000, retentionMs: 1_000 }, signal)).rejects.toMatchObject(full)
    // A handler that has no room for its effect is tried again.
    await work(async (_n, tx) => {
      await tx.query(`INSERT INTO ${schema}.effect (n) SELECT -1 FROM generate_series(1, 100000)`)
      await tx.query(`DELETE FROM ${schema}.effect WHERE n = -1`)
    })
    await expect.poll(() => codes.has('BROKER_FULL'), { timeout: 10_000 }).toBe(true)

    await asServer('rm /dev/shm/filler')
    expect(await driver.send(queue, [large('a')], signal)).toEqual([{ status: 'stored' }])
    await allDone(10)
  })
})
