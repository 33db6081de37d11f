/** Bad input is never dropped: refused where it comes in, or kept byte for byte with the reason. */
import assert from 'node:assert/strict'
import { encodeEnvelope, reserveBytes, wireTime } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { message } from '../driver/bench.ts'
import type { DriverHarness } from '../driver/harness.ts'
import { expectRejection } from '../refusal.ts'
import { type Payload, payload, type WorkerBench, withManifest } from './bench.ts'

const rawBodies: Readonly<Record<string, Uint8Array>> = {
  'not JSON': Buffer.from('{"v":1,'),
  'not UTF-8': Uint8Array.of(0xff, 0x00, 0xc3, 0x28),
  empty: new Uint8Array(0),
  'a JSON list': Buffer.from('[]'),
  'an envelope without its fields': Buffer.from('{"v":1}'),
}

export const badInputCases: CaseGroup<DriverHarness, WorkerBench> = {
  name: 'bad input',
  cases: [
    {
      name: 'bytes that are no envelope are dead-lettered as they are, and the queue goes on',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const queue = await t.declared(client.mq.driver, { name: job.queue, group: 'default' })
        const bodies = Object.values(rawBodies)
        await t.send(
          client.mq.driver,
          { name: queue.name },
          bodies.map((body) => ({ ...message(), body })),
        )
        await client.mq.enqueue(job, payload())
        const worker = client.worker().handle(job, () => {})
        await worker.start()
        const letters = await t.dead(client.mq, job, bodies.length)
        const hex = (all: readonly Uint8Array[]): string[] =>
          all.map((body) => Buffer.from(body).toString('hex')).sort()
        assert.deepEqual(hex(letters.map(({ body }) => body)), hex(bodies))
        assert.deepEqual([...new Set(letters.map(({ reason }) => reason))], ['malformed'])
        await t.until(
          'the good job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        const { unreadable, replayed } = await client.mq.deadLetters(job.queue).replay()
        assert.deepEqual({ unreadable, replayed }, { unreadable: bodies.length, replayed: 0 })
      },
    },
    {
      name: 'an envelope of an unknown version is dead-lettered as it is',
      async run(t) {
        const client = await t.client()
        const { driver } = client.mq
        // A foreign format has no versions of ours.
        if (driver.codec) return
        const job = t.job()
        const queue = await t.declared(driver, { name: job.queue, group: 'default' })
        const body = Buffer.from('{"v":2,"job_id":"x","new":true}')
        await t.send(driver, { name: queue.name }, [{ ...message(), body }])
        await client
          .worker()
          .handle(job, () => {})
          .start()
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(letter?.reason, 'unsupported_version')
        assert.equal(Buffer.from(letter.body).toString(), body.toString())
      },
    },
    {
      name: 'a payload that does not match its schema on arrival is dead-lettered without starting the handler',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        await t.sendEnvelope(client.mq.driver, job, { payload: { value: 1 } })
        let runs = 0
        await client
          .worker()
          .handle(job, () => void runs++)
          .start()
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(letter?.reason, 'invalid_payload')
        assert.deepEqual(letter.envelope?.payload, { value: 1 })
        assert.equal(runs, 0)
      },
    },
    {
      name: 'a payload that does not match its schema is refused at enqueue, naming the path, and nothing is sent',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const bad = { key: 7 } as unknown as Payload
        const error = await expectRejection('enqueue', ['INVALID_PAYLOAD'], () => client.mq.enqueue(job, bad))
        assert.match(error.message, /key/)
        const [first, second] = await client.mq.enqueueMany(job, [bad, payload()])
        assert.equal(first?.status, 'failed')
        assert.equal(second?.status, 'stored')
        const queue = await t.declared(client.mq.driver, { name: job.queue, group: 'default' })
        const receiver = await t.open(client.mq.driver, queue)
        await t.take(receiver, 1)
        assert.deepEqual(await receiver.receive(1, 0, t.signal), [])
      },
    },
    {
      name: 'a job nobody knows is deferred without using an attempt, and done once somebody does',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const old = t.job({ queue: job.queue }, 'older-job')
        const sent = payload()
        await client.mq.enqueue(job, sent)
        const worker = client.worker().handle(old, () => {})
        await worker.start()
        await t.until(
          'the job to be deferred',
          () => client.seen('deferred').filter(({ reason }) => reason === 'unknown_job').length,
          (count) => count > 0,
        )
        await worker.stop()
        const attempts: number[] = []
        await client
          .worker()
          .handle(job, (_, { attempt }) => void attempts.push(attempt))
          .start()
        await t.until(
          'the job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        assert.deepEqual(attempts, [1])
        assert.deepEqual(client.seen('dead_lettered'), [])
      },
    },
    {
      name: 'a job nobody has known for 15 minutes is dead-lettered whole, unknown fields included',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const old = t.job({ queue: job.queue }, 'older-job')
        const longAgo = wireTime(Date.now() - 16 * 60_000)
        const trace = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', tracestate: 'a=b' }
        const foreign = client.mq.driver.codec ? {} : { added_later: { x: [1] } }
        await t.sendEnvelope(client.mq.driver, job, {
          ...trace,
          ...foreign,
          created_at: longAgo,
          unknown_since: longAgo,
          payload: { key: 'k' },
        })
        await client
          .worker()
          .handle(old, () => {})
          .start()
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(letter?.reason, 'unknown_job')
        const { traceparent, tracestate } = letter.envelope ?? {}
        assert.deepEqual({ traceparent, tracestate }, trace)
        const added = (letter.envelope as unknown as { added_later?: unknown }).added_later
        assert.deepEqual(added === undefined ? {} : { added_later: added }, foreign)
      },
    },
    {
      name: 'a job whose time is over is dead-lettered without starting',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        let runs = 0
        await t.sendEnvelope(client.mq.driver, job, { expires_at: wireTime(Date.now() - 1_000), payload: { key: 'k' } })
        await client
          .worker()
          .handle(job, () => void runs++)
          .start()
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(letter?.reason, 'expired')
        assert.equal(runs, 0)
      },
    },
    {
      name: 'a job above the limit less its reserve is refused with BODY_TOO_LARGE; one below it can fail and be buried',
      async run(t) {
        // The reserve is core's: a limit that is quick to fill shows it on any broker.
        const maxBodyBytes = Math.min(t.capabilities.maxBodyBytes, 256 * 1024)
        const client = await t.client({ driver: withManifest({ maxBodyBytes }) })
        const { driver } = client.mq
        const job = t.job()
        const filled = (bytes: number): Payload => ({ key: 'k'.repeat(40), value: 'x'.repeat(bytes) })
        const empty = await t.sendEnvelope(driver, t.job(), { idempotency_key: 'k'.repeat(40), payload: filled(0) })
        const around = (driver.codec ? driver.codec.encode(empty) : encodeEnvelope(empty)).byteLength
        const limit = maxBodyBytes - reserveBytes - around
        await expectRejection('enqueue', ['BODY_TOO_LARGE'], () => client.mq.enqueue(job, filled(limit + 1_000)))
        const sent = filled(limit - 1_000)
        await client.mq.enqueue(job, sent)
        const worker = client.worker().handle(job, () => {
          throw new Error('x'.repeat(100_000))
        })
        await worker.start()
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(letter?.reason, 'exhausted')
        assert.equal(letter.envelope?.failures?.length, 3)
        assert.deepEqual(letter.envelope?.payload, sent)
      },
    },
  ],
}
