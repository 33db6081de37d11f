/** Failures: retried as often as said, with their story, and then kept whole among the dead letters. */
import assert from 'node:assert/strict'
import {
  byJobId,
  circuitBreaker,
  type Driver,
  fixed,
  IdemqError,
  noInbox,
  PermanentError,
  RetryAfterError,
} from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { counting, type DriverHarness } from '../driver/harness.ts'
import { nowMs } from '../wait.ts'
import { payload, type WorkerBench, withChanges } from './bench.ts'

/** A driver that refuses the first `refusals` calls of one method, as a broker in trouble does. */
function refusing(method: 'send' | 'sendDead', refusals: number, when: () => boolean): (driver: Driver) => Driver {
  let left = refusals
  return (driver) =>
    withChanges(driver, {
      [method]: async (...args: Parameters<Driver['sendDead']>) => {
        if (when() && left-- > 0) throw new IdemqError('BROKER_UNAVAILABLE', `${method}: the broker is down`)
        return driver[method](...args)
      },
    })
}

export const failingCases: CaseGroup<DriverHarness, WorkerBench> = {
  name: 'failing',
  cases: [
    {
      name: 'a job that fails is tried again with its failures, as attempt 2 and 3, and succeeds',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const sent = payload({ amount: 5 })
        await client.mq.enqueue(job, sent, { headers: { tenant: 'a' } })
        const runs: unknown[] = []
        const worker = client.worker()
        worker.handle(job, (got, { attempt, failures, headers }) => {
          runs.push({ got, attempt, failures: failures.map(({ message }) => message), headers })
          if (attempt < 3) throw new Error(`no. ${attempt}`)
        })
        await worker.start()
        await t.until(
          'the job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        const run = (attempt: number, failures: string[]): unknown => ({
          got: sent,
          attempt,
          failures,
          headers: { tenant: 'a' },
        })
        assert.deepEqual(runs, [run(1, []), run(2, ['no. 1']), run(3, ['no. 1', 'no. 2'])])
        assert.deepEqual(client.seen('dead_lettered'), [])
      },
    },
    {
      name: 'after exactly maxAttempts starts a job is dead-lettered with reason, failures and payload',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const sent = payload({ amount: 5, text: 'Ω' })
        const { jobId } = await client.mq.enqueue(job, sent, { headers: { tenant: 'a' }, correlationId: 'c-1' })
        let starts = 0
        const worker = client.worker()
        worker.handle(job, () => {
          starts++
          throw new TypeError(`no. ${starts}`)
        })
        await worker.start()
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(starts, 3, 'starts')
        assert.equal(letter?.reason, 'exhausted')
        assert.equal(letter.error, 'TypeError')
        const envelope = letter.envelope
        assert.ok(envelope)
        assert.deepEqual(envelope.payload, sent)
        assert.deepEqual(envelope.headers, { tenant: 'a' })
        assert.equal(envelope.correlation_id, 'c-1')
        assert.equal(envelope.job_id, jobId)
        assert.equal(envelope.idempotency_key, sent.key)
        assert.deepEqual(
          envelope.failures?.map(({ attempt, name, message }) => `${attempt} ${name} ${message}`),
          ['1 TypeError no. 1', '2 TypeError no. 2', '3 TypeError no. 3'],
        )
        assert.deepEqual(
          await client.mq
            .deadLetters(job.queue)
            .groups()
            .then((all) => all.map(({ count }) => count)),
          [1],
        )
      },
    },
    {
      name: 'a permanent failure is dead-lettered at once',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        await client.mq.enqueue(job, payload())
        let starts = 0
        const worker = client.worker()
        worker.handle(job, () => {
          starts++
          throw new PermanentError('card declined')
        })
        await worker.start()
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(starts, 1)
        assert.equal(letter?.reason, 'permanent')
        assert.equal(letter.message, 'card declined')
      },
    },
    {
      name: 'a retry comes no earlier than its backoff or the Retry-After of its dependency',
      async run(t) {
        const client = await t.client()
        const { delayMs } = t.scale
        const job = t.job({ retry: { maxAttempts: 3, backoff: fixed(delayMs) } })
        await client.mq.enqueue(job, payload())
        const startsMs: number[] = []
        const failedMs: number[] = []
        const worker = client.worker()
        worker.handle(job, (_, { attempt }) => {
          startsMs.push(nowMs())
          if (attempt === 3) return
          failedMs.push(nowMs())
          throw attempt === 1 ? new Error('once') : new RetryAfterError(delayMs * 2)
        })
        await worker.start()
        await t.until(
          'the job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        const waits = failedMs.map((at, index) => startsMs[index + 1]! - at)
        assert.ok(waits[0]! >= delayMs - 2, `a backoff of ${delayMs} ms ended after ${waits[0]} ms`)
        assert.ok(waits[1]! >= delayMs * 2 - 2, `a Retry-After of ${delayMs * 2} ms ended after ${waits[1]} ms`)
      },
    },
    {
      name: 'a broker that refuses the retry copy for a while loses nothing and costs no attempt',
      async run(t) {
        let working = false
        const client = await t.client({ driver: refusing('send', 3, () => working) })
        const job = t.job()
        await client.mq.enqueue(job, payload())
        working = true
        const attempts: number[] = []
        const worker = client.worker()
        worker.handle(job, (_, { attempt }) => {
          attempts.push(attempt)
          if (attempt === 1) throw new Error('once')
        })
        await worker.start()
        await t.until(
          'the job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        assert.deepEqual(attempts, [1, 2])
      },
    },
    {
      name: 'a broker that refuses the dead letter for a while keeps the job until it takes it',
      async run(t) {
        const client = await t.client({ driver: refusing('sendDead', 3, () => true) })
        const job = t.job()
        await client.mq.enqueue(job, payload())
        let starts = 0
        const worker = client.worker()
        worker.handle(job, () => {
          starts++
          throw new PermanentError('no')
        })
        await worker.start()
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(letter?.reason, 'permanent')
        assert.equal(starts, 1)
      },
    },
    {
      name: 'without an inbox attempts are bounded all the same',
      gates: [counting],
      async run(t) {
        const client = await t.client()
        const job = t.job({ idempotencyKey: byJobId })
        await client.mq.enqueue(job, payload())
        const attempts: number[] = []
        const worker = client.worker({ inbox: noInbox() })
        worker.handle(job, (_, { attempt }) => {
          attempts.push(attempt)
          throw new Error('always')
        })
        await worker.start()
        await t.dead(client.mq, job, 1)
        assert.deepEqual(attempts, [1, 2, 3])
      },
    },
    {
      name: 'an open circuit pauses consumption, uses no attempt meanwhile, and recovers by itself',
      async run(t) {
        const client = await t.client()
        const { delayMs } = t.scale
        const cooldownMs = delayMs * 3
        const circuit = circuitBreaker({ name: 'provider', windowCalls: 4, cooldownMs })
        const job = t.job({ circuit, retry: { maxAttempts: 10, backoff: fixed(5) } })
        await client.mq.enqueueMany(
          job,
          Array.from({ length: 12 }, () => payload()),
        )
        let sick = true
        let openedMs = 0
        const tooEarly: number[] = []
        const unsubscribe = circuit.onChange((state) => {
          if (state !== 'open') return
          sick = false
          openedMs ||= nowMs()
        })
        t.onDispose(async () => unsubscribe())
        const worker = client.worker({ concurrency: 2 })
        worker.handle(job, () => {
          const sinceMs = openedMs === 0 ? Number.POSITIVE_INFINITY : nowMs() - openedMs
          if (sinceMs < cooldownMs - 2) tooEarly.push(sinceMs)
          if (sick) throw new Error('503')
        })
        await worker.start()
        await t.until(
          'all jobs to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 12,
        )
        assert.ok(openedMs > 0, 'the circuit never opened')
        assert.deepEqual(tooEarly, [], 'a handler started while the circuit was open')
        assert.ok(client.seen('paused').length > 0, 'consumption was not paused')
        assert.deepEqual(client.seen('dead_lettered'), [])
      },
    },
  ],
}
