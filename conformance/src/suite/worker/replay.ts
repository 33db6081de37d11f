/** Replay: the same job again with new attempts, whole, and nothing lost on the way. */
import assert from 'node:assert/strict'
import { type Driver, type Job, PermanentError } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import type { DriverHarness } from '../driver/harness.ts'
import { nowMs } from '../wait.ts'
import { type Client, type Payload, payload, type WorkerBench, withChanges } from './bench.ts'

class CardDeclined extends Error {
  override readonly name = 'CardDeclined'
}

/** A driver that crashes, so to speak, between sending the replay copy and removing the letter, once. */
function forgetsOneRemoval(driver: Driver): Driver {
  let forgotten = false
  return withChanges(driver, {
    scanDead: (queue, visit, signal) =>
      driver.scanDead(
        queue,
        async (letter) => {
          const wish = await visit(letter)
          if (wish !== 'remove' || forgotten) return wish
          forgotten = true
          return 'stop'
        },
        signal,
      ),
  })
}

/** A worker that fails each job while `sick` says so. */
async function work(
  client: Client,
  job: Job<Payload, Payload>,
  sick: (sent: Payload) => Error | undefined,
): Promise<string[]> {
  const done: string[] = []
  const worker = client.worker()
  worker.handle(job, (sent, { attempt, replay }) => {
    const error = sick(sent)
    if (error) throw error
    done.push(`${sent.key} ${replay}.${attempt}`)
  })
  await worker.start()
  return done
}

export const replayCases: CaseGroup<DriverHarness, WorkerBench> = {
  name: 'replay',
  cases: [
    {
      name: 'a replayed job is the same job: identity, key and payload, replay 1, attempts from 1',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const sent = payload({ amount: 5 })
        const { jobId } = await client.mq.enqueue(job, sent, { headers: { tenant: 'a' } })
        let sick = true
        const runs: unknown[] = []
        const worker = client.worker()
        worker.handle(job, (got, { id, key, attempt, replay, headers }) => {
          if (sick) throw new PermanentError('no')
          runs.push({ got, id, key, attempt, replay, headers })
        })
        await worker.start()
        await t.dead(client.mq, job, 1)
        sick = false
        const result = await client.mq.deadLetters(job.queue).replay()
        assert.deepEqual(result, { matched: 1, replayed: 1, unreadable: 0, complete: true })
        await t.until(
          'the replayed job to succeed',
          () => client.seen('succeeded').length,
          (count) => count === 1,
        )
        const identity = { id: jobId, key: sent.key, attempt: 1, replay: 1 }
        assert.deepEqual(runs, [{ got: sent, ...identity, headers: { tenant: 'a' } }])
        await t.dead(client.mq, job, 0)
      },
    },
    {
      name: 'a replay by filter takes what matches and leaves the rest; a dry run leaves all',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        const all = ['declined', 'declined', 'other'].map(payload)
        await client.mq.enqueueMany(job, all)
        let sick = true
        const done = await work(client, job, ({ value }) => {
          if (value === 'other') return new PermanentError('other')
          return sick ? Object.assign(new CardDeclined('no'), { status: 402 }) : undefined
        })
        await t.dead(client.mq, job, 3)
        sick = false
        const letters = client.mq.deadLetters(job.queue)
        const filter = { error: 'CardDeclined' }
        for (let look = 0; look < 2; look++) {
          const dry = await letters.replay({ filter, dryRun: true })
          assert.deepEqual(dry, { matched: 2, replayed: 0, unreadable: 0, complete: true })
        }
        await t.dead(client.mq, job, 3)
        assert.equal((await letters.replay({ filter })).replayed, 2)
        await t.until(
          'the replayed jobs to succeed',
          () => done.length,
          (count) => count === 2,
        )
        const [left] = await t.dead(client.mq, job, 1)
        assert.equal(left?.message, 'other')
        assert.deepEqual(
          done.toSorted(),
          all
            .slice(0, 2)
            .map(({ key }) => `${key} 1.1`)
            .sort(),
        )
      },
    },
    {
      name: 'a replayed job that fails again is dead-lettered again, after all its attempts',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        await client.mq.enqueue(job, payload())
        await work(client, job, () => new Error('always'))
        await t.dead(client.mq, job, 1)
        assert.equal((await client.mq.deadLetters(job.queue).replay()).replayed, 1)
        const [letter] = await t.until(
          'the letter of the replay',
          () => t.dead(client.mq, job, 1),
          ([one]) => one?.envelope?.replay === 1,
        )
        assert.equal(letter?.reason, 'exhausted')
        assert.equal(client.seen('started').length, 6, 'three starts before the replay and three after it')
      },
    },
    {
      name: 'a crash between the replay copy and the removal of the letter loses and doubles nothing',
      async run(t) {
        const client = await t.client()
        const crashing = await t.client({ driver: forgetsOneRemoval })
        const job = t.job()
        const sent = payload()
        await client.mq.enqueue(job, sent)
        let sick = true
        const done = await work(client, job, () => (sick ? new PermanentError('no') : undefined))
        await t.dead(client.mq, job, 1)
        sick = false
        await crashing.mq.deadLetters(job.queue).replay()
        await t.until(
          'the replayed job to succeed',
          () => done.length,
          (count) => count === 1,
        )
        await t.dead(client.mq, job, 1)
        // The operator does it again: the letter goes, the effect is not repeated.
        assert.equal((await client.mq.deadLetters(job.queue).replay()).replayed, 1)
        await t.dead(client.mq, job, 0)
        await client.mq.enqueue(job, sent)
        await t.until(
          'a job with its key to be deduplicated',
          () => client.seen('deduplicated').length,
          (count) => count > 0,
        )
        assert.equal(done.length, 1)
      },
    },
    {
      name: 'a replay keeps to its rate',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        await client.mq.enqueueMany(job, ['a', 'b', 'c', 'd'].map(payload))
        await work(client, job, () => new PermanentError('always'))
        await t.dead(client.mq, job, 4)
        const startMs = nowMs()
        const { replayed } = await client.mq.deadLetters(job.queue).replay({ perSecond: 20, limit: 4 })
        assert.equal(replayed, 4)
        assert.ok(nowMs() - startMs >= 148, `four letters at 20 a second took ${nowMs() - startMs} ms`)
      },
    },
    {
      name: 'removing by filter removes what matches, and looking removes nothing',
      async run(t) {
        const client = await t.client()
        const job = t.job()
        await client.mq.enqueueMany(job, ['a', 'a', 'b'].map(payload))
        await work(client, job, ({ value }) => new PermanentError(String(value)))
        await t.dead(client.mq, job, 3)
        const letters = client.mq.deadLetters(job.queue)
        for (let look = 0; look < 5; look++)
          assert.equal(
            (await letters.groups()).reduce((sum, g) => sum + g.count, 0),
            3,
          )
        assert.equal(await letters.remove({ where: ({ message }) => message === 'a' }), 2)
        const [left] = await t.dead(client.mq, job, 1)
        assert.equal(left?.message, 'b')
      },
    },
  ],
}
