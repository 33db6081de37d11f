/** What a worker makes of starts that ended in a crash. Real kills are the crash harness's part. */
import assert from 'node:assert/strict'
import type { AnyJob, ClaimRef } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import type { DriverHarness } from '../driver/harness.ts'
import { type Client, type Payload, payload, type WorkerBench } from './bench.ts'

/** What a process leaves behind that claims a job and dies without a word. */
async function loseStart(t: WorkerBench, client: Client, job: AnyJob, sent: Payload, jobId: string): Promise<ClaimRef> {
  await client.inbox.prepare('create', t.signal)
  const fingerprint = job.fingerprint(sent)
  const copy = { scope: `default/${job.name}`, key: sent.key, fingerprint, jobId, replay: 0, attempt: 1 }
  const answer = await t.until(
    'a claim to be granted, which then lapses',
    async () => (await client.inbox.claim([copy], { leaseMs: 20, retentionMs: 600_000 }, t.signal))[0],
    (seen) => seen?.status === 'claimed',
  )
  assert.ok(answer?.status === 'claimed')
  return { scope: copy.scope, key: copy.key, token: answer.token }
}

export const crashCases: CaseGroup<DriverHarness, WorkerBench> = {
  name: 'crashes',
  cases: [
    {
      name: 'starts lost in crashes count: a job that used them up is dead-lettered without starting',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const sent = payload()
        const { jobId } = await client.mq.enqueue(job, sent)
        for (let crash = 1; crash <= 3; crash++) await loseStart(t, client, job, sent, jobId)
        let starts = 0
        const worker = client.worker()
        worker.handle(job, () => void starts++)
        await worker.start()
        const [letter] = await t.dead(client.mq, job, 1)
        assert.equal(letter?.reason, 'exhausted')
        assert.equal(starts, 0, 'it was started though its attempts were used up')
      },
    },
    {
      name: 'jobs whose start was lost in a crash run alone, one at a time, and cost their neighbours nothing',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const suspects = ['suspect', 'suspect', 'suspect'].map(payload)
        for (const sent of suspects) {
          const { jobId } = await client.mq.enqueue(job, sent)
          await loseStart(t, client, job, sent, jobId)
        }
        await client.mq.enqueueMany(
          job,
          Array.from({ length: 12 }, () => payload('neighbour')),
        )
        const running = new Set<Payload>()
        const attempts: string[] = []
        const company: unknown[] = []
        const worker = client.worker({ concurrency: 10 })
        worker.handle(job, async (sent, { attempt }) => {
          running.add(sent)
          attempts.push(`${sent.value} ${attempt}`)
          await new Promise((resolve) => setTimeout(resolve, 10))
          const values = [...running].map(({ value }) => value)
          if (values.includes('suspect') && values.length > 1) company.push(values)
          running.delete(sent)
        })
        await worker.start()
        await t.until(
          'all jobs to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 15,
        )
        assert.deepEqual(company, [], 'a suspect had company')
        assert.deepEqual([...new Set(attempts)].sort(), ['neighbour 1', 'suspect 2'])
      },
    },
    {
      name: 'a copy whose successor is stored is dropped without running, and the successor runs',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const sent = payload()
        const first = await t.sendEnvelope(client.mq.driver, job, { idempotency_key: sent.key, payload: sent })
        // A worker that stored the retry copy and released the claim, and died before it could remove the original.
        const ref = await loseStart(t, client, job, sent, first.job_id)
        const release = { ...ref, state: 'released', floor: 2, free: false, holdMs: 0 } as const
        assert.deepEqual(await client.inbox.end([release], 600_000, t.signal), ['held'])
        const attempts: number[] = []
        const worker = client.worker()
        worker.handle(job, (_, { attempt }) => void attempts.push(attempt))
        await worker.start()
        await t.until(
          'the original to be dropped',
          () => client.seen('deduplicated').map(({ reason }) => reason),
          (reasons) => reasons.includes('stale'),
        )
        assert.deepEqual(attempts, [])
        await t.sendEnvelope(client.mq.driver, job, { ...first, attempt: 2 })
        await t.until(
          'the successor to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        assert.deepEqual(attempts, [2])
      },
    },
  ],
}
